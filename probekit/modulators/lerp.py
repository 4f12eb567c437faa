"""LerpModulator: pull the residual stream towards a geometric embedding of each token.

Source: the "geometric residual modulator" of the write-up "Geometric Terrain Analysis". Where rows
may come from is in :mod:`probekit.modulators.sources`.
It misleads in three ways. The blend shrinks the stream, over six layers to ``(1 - alpha)^6``, so
the shrinking alone (``form="shrink-only"``) belongs beside every effect. Rows of tokens that got no
geometry keep their random start, of norm ``sqrt(d_geometry)`` where a normalised row has 1: set
them to zero. And alpha ends where its start and the learning rate let it get to, not at a constant
of nature.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..checks import check_memory, check_share, check_sizes, check_whole, is_whole
from ..errors import ProbekitError, unknown

#: Rows that :meth:`LerpModulator.health` takes its cosines from, at most.
HEALTH_ROWS = 5000
#: What becomes of the blend: the published one, and its two halves alone.
FORMS = ("lerp", "shrink-only", "additive-only")
Form = Literal["lerp", "shrink-only", "additive-only"]


class LerpModulator(nn.Module):
    """``x <- (1 - alpha_l) x + alpha_l s_l P G[token]`` before layer l's block.

    The scales s are a buffer of ones, as published, until :meth:`set_scales`. At the defaults
    2,088,966 parameters: G 2,056,192, P 32,768 and 6 logits of alpha.

    Args:
        d_model: width of the residual stream.
        n_layers: layers that it may be applied at.
        vocab: rows of G, one a token id.
        d_geometry: width of G (the write-up's g).
        alpha: start of alpha in [0, 1]. At 0 or 1 the logit is infinite and does not learn.
        per_layer: an alpha a layer, or one for all.
        learn_alpha: alpha's logits are a parameter, or else a buffer.
        warmup: steps over which alpha rises linearly in training mode; see :meth:`advance`.
        seed: of the initial values, G from N(0, 1) and P from N(0, 0.01^2).

    Raises:
        ProbekitError: alpha outside [0, 1], a size below 1, or a negative warmup.
    """

    steps: Tensor
    scales: Tensor

    def __init__(
        self,
        *,
        d_model: int = 512,
        n_layers: int = 6,
        vocab: int = 32128,
        d_geometry: int = 64,
        alpha: float | int = 0.01,
        per_layer: bool = True,
        learn_alpha: bool = True,
        warmup: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_layers=n_layers, vocab=vocab, d_geometry=d_geometry)
        check_whole("seed", seed)
        check_memory("the modulator", (vocab + d_model) * d_geometry + n_layers)
        #: The arguments that rebuild it.
        self.config: dict[str, Any] = {
            "d_model": d_model,
            "n_layers": n_layers,
            "vocab": vocab,
            "d_geometry": d_geometry,
            "alpha": alpha,
            "per_layer": per_layer,
            "learn_alpha": learn_alpha,
            "warmup": warmup,
            "seed": seed,
        }
        if not is_whole(warmup) or warmup < 0:
            raise ProbekitError(f"warmup must be 0 steps or more, not {warmup!r}")
        self.d_model, self.n_layers, self.warmup = d_model, n_layers, warmup
        generator = torch.Generator().manual_seed(seed)
        self.geometry = nn.Parameter(torch.randn(vocab, d_geometry, generator=generator))
        self.projection = nn.Parameter(torch.randn(d_model, d_geometry, generator=generator) / 100)
        logits = torch.zeros(n_layers if per_layer else ())
        if learn_alpha:
            self.alpha_logits = nn.Parameter(logits)
        else:
            self.register_buffer("alpha_logits", logits)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scales", torch.ones(n_layers))
        self.set_alpha(alpha)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())

    @property
    def alpha(self) -> Float[Tensor, " layers"]:
        """The learned alpha of each layer, without the warmup."""
        return torch.sigmoid(self.alpha_logits).expand(self.n_layers)

    def advance(self, steps: int = 1) -> None:
        """Count steps of training for the warmup; call once an optimizer step. Idle in eval mode.

        After s steps alpha is its value times ``min(1, (s + 1) / warmup)``, in all layers alike:
        the first step trains at a share of 1 / warmup, not at 0, where nothing would get a
        gradient. Without any call it stays there.
        """
        if self.training:
            self.steps += steps

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        tokens: Int[Tensor, "batch pos"],
        layer: int,
        alpha: float | int | None = None,
        form: Form = "lerp",
    ) -> Float[Tensor, "batch pos d_model"]:
        """The modulated stream; where alpha is 0, ``x`` bit for bit.

        Args:
            x: the residual stream before the block.
            tokens: the ids at its positions.
            layer: index of the block, from 0.
            alpha: used in place of the learned one, and without warmup.
            form: the blend, or as controls ``(1 - alpha) x`` ("shrink-only"), which never reads G,
                and ``x + alpha s P G`` ("additive-only").

        Raises:
            ProbekitError: a width, layer, token id or alpha out of range, or an unknown form.
        """
        check_place(self, x, layer)
        check_form(form)
        if tokens.shape != x.shape[:-1]:
            raise ProbekitError(
                f"tokens of shape {list(tokens.shape)} for x of shape {list(x.shape)}: give one"
                " token id a batch and position"
            )
        _check_ids(tokens, len(self.geometry))
        a = self.alpha[layer] if alpha is None else self._fixed(alpha)
        if alpha is None and self.training and self.warmup:
            a = a * ((self.steps + 1) / self.warmup).clamp(max=1)
        out = x if form == "additive-only" else (1 - a) * x
        if form != "shrink-only":
            target = F.linear(F.embedding(tokens, self.geometry), self.projection)
            out = out + a * (self.scales[layer] * target).to(x.dtype)
        # Chosen, not computed: -0.0 + 0.0 is 0.0, and 0 times an infinite row is NaN.
        return torch.where(a == 0, x, out)

    def set_alpha(self, value: float | int | Sequence[float | int]) -> None:
        """Set alpha, one number for all layers or one each.

        Raises:
            ProbekitError: a number outside [0, 1], or the wrong count of them.
        """
        values = [value] if isinstance(value, (int, float)) else list(value)
        for number in values:
            check_share("alpha", number)
        if len(values) not in (1, self.alpha_logits.numel()):
            raise ProbekitError(
                f"alpha has {self.alpha_logits.numel()} entries, given {len(values)};"
                " give one number for all layers or one for each entry"
            )
        logits = torch.logit(torch.tensor(values, dtype=torch.float64))
        with torch.no_grad():
            self.alpha_logits.copy_(logits if len(values) > 1 else logits[0])

    @torch.no_grad()
    def set_scales(self, values: Float[Tensor, " layers"] | Sequence[float | int]) -> None:
        """Set what each layer's ``P G[token]`` is multiplied by, such as its stream's norm.

        Raises:
            ProbekitError: not a finite number above 0 for each layer.
        """
        scales = torch.as_tensor(values).to(self.scales)
        if scales.shape != (self.n_layers,) or not ((scales > 0) & scales.isfinite()).all():
            raise ProbekitError(
                f"scales must be {self.n_layers} finite numbers above 0, one a layer, not"
                f" {scales.tolist()}"
            )
        self.scales.copy_(scales)

    @torch.no_grad()
    def set_geometry(
        self,
        rows: Float[Tensor, "rows d_geometry"],
        token_ids: Int[Tensor, " rows"] | Sequence[int] | None = None,
        zero_others: bool = False,
    ) -> None:
        """Set rows of G: all, or those of ``token_ids``.

        Args:
            rows: the new rows.
            token_ids: their ids, each once; None means every id in order.
            zero_others: set the rows of all other ids to 0, rather than leave them as they are.

        Raises:
            ProbekitError: rows of another shape than needed, or ids out of range or repeated.
        """
        vocab, width = self.geometry.shape
        ids = torch.arange(vocab) if token_ids is None else torch.as_tensor(token_ids).cpu().long()
        if rows.shape != (len(ids), width):
            raise ProbekitError(
                f"{len(ids)} ids need rows of shape [{len(ids)}, {width}],"
                f" given {list(rows.shape)}; pass token_ids to set some rows only"
            )
        _check_ids(ids, vocab)
        if len(ids.unique()) < len(ids):
            raise ProbekitError("token_ids holds an id twice; give each id one row")
        if zero_others:
            self.geometry.zero_()
        self.geometry[ids.to(self.geometry.device)] = rows.to(self.geometry)

    def _fixed(self, alpha: float | int) -> Tensor:
        check_share("alpha", alpha)
        return self.alpha_logits.new_full((), alpha)

    @torch.no_grad()
    def health(self, seed: int = 0) -> dict[str, Any]:
        """Statistics of G, and alpha of each layer.

        Cosines over the pairs of up to 5000 rows, drawn by ``seed`` from the whole table; norms
        over all rows; the participation ratio ``(sum l)^2 / sum l^2`` of the covariance's
        eigenvalues, and its share of ``d_geometry``. Deviations are the population's.
        """
        table = self.geometry.double()
        chosen = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
        rows = F.normalize(table[chosen[:HEALTH_ROWS].to(table.device)], dim=-1)
        cosine_mean, cosine_std = _pair_statistics(rows)
        norms = table.norm(dim=-1)
        covariance = torch.cov(table.T, correction=0)
        ratio = float(covariance.trace().square() / covariance.square().sum())
        return {
            "cosine_mean": cosine_mean,
            "cosine_std": cosine_std,
            "norm_mean": float(norms.mean()),
            "norm_std": float(norms.std(correction=0)),
            "participation_ratio": ratio,
            "participation_share": ratio / table.shape[1],
            "alpha": self.alpha.tolist(),
        }


def check_form(form: object) -> None:
    """Refuse what is no form of the blend."""
    if form not in FORMS:
        raise ProbekitError(unknown("form", str(form), FORMS))


def check_place(module: Any, x: Tensor, layer: int) -> None:
    """Refuse a residual stream or a layer that the modulator was not built for."""
    if x.shape[-1] != module.d_model:
        raise ProbekitError(
            f"x of shape {list(x.shape)}, built for d_model={module.d_model};"
            " build the modulator for this model"
        )
    if not 0 <= layer < module.n_layers:
        raise ProbekitError(f"layer {layer}: the modulator has layers 0 to {module.n_layers - 1}")
    device = module.alpha_logits.device
    if device != x.device:
        raise ProbekitError(
            f"the modulator is on {device} and the stream on {x.device}; move it there:"
            f" module.to({str(x.device)!r})"
        )


def _pair_statistics(unit: Float[Tensor, "rows width"]) -> tuple[float, float]:
    """Mean and standard deviation of the products of all pairs, without the table of pairs.

    ``sum_ij c_ij = |sum_i u_i|^2`` and ``sum_ij c_ij^2 = |U^T U|^2``, less their diagonals.
    """
    own = unit.square().sum(-1)
    pairs = len(unit) * (len(unit) - 1)
    mean = (unit.sum(0).square().sum() - own.sum()) / pairs
    square = ((unit.T @ unit).square().sum() - own.square().sum()) / pairs
    return float(mean), float((square - mean**2).clamp(min=0).sqrt())


def _check_ids(ids: Tensor, vocab: int) -> None:
    # Left to the look-up, an id out of range would end a GPU's process.
    low, high = torch.stack(torch.aminmax(ids)).tolist() if ids.numel() else (0, 0)
    if low < 0 or high >= vocab:
        raise ProbekitError(
            f"token ids run from {low} to {high}, the table has rows 0 to {vocab - 1};"
            " build the modulator with the vocab of the tokenizer"
        )
