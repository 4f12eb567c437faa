"""SimplexField: scale a residual stream by gates that read the shape of deformed simplices.

Source: the "geometric field modulator" of the write-up "Geometric Terrain Analysis".
What misleads, each of it kept as published:

* Gates only attenuate: the factor lies in ``[prod_k (1 - alpha_k), 1]``. Near-constant gates merely
  rescale the active coordinates against the others, which a following norm turns into a boost of
  the "null space". The control is ``gate="constant"``: the same gates, blind to the input.
* "Validity" (V^2 > 0) is always 1: V^2 of points is a Gram determinant. The validity heads do not
  reach the output and get no gradient: 20 of the published 38,552 parameters.
* The k = 1 expert is constant: its features are the squared edge d^2 and V^2, which is d^2 again,
  and LayerNorm of two equal numbers is 0. Another 6,160 parameters, its deformation, are inert:
  what gradient they get is rounding, which Adam blows up into full steps that change nothing.
* The published template is not regular (``template="published"``).
* The "null space" is a share of the coordinates in an arbitrary basis, and blocks write there.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..checks import (
    check_finite,
    check_memory,
    check_share,
    check_sizes,
    check_whole,
    is_finite,
)
from ..errors import ProbekitError, unknown
from ..geometry import (
    cayley_menger,
    n_edges,
    published_simplex,
    regular_simplex,
    squared_distances,
)
from .lerp import check_place

_TEMPLATES = {"regular": regular_simplex, "published": published_simplex}


class SimplexField(nn.Module):
    """``x_active <- x_active * prod_k [(1 - a_k) + a_k g_k(x_active)]``; null coordinates stay.

    Expert k deforms a k-simplex by the input, ``v = template + deform_scale * (W x + b)``, reads
    ``f = LayerNorm([squared edges, V^2])`` off it, and gates ``g_k = sigmoid(A f + c)``, a number a
    coordinate. ``a_k = clamp(sigmoid(logit), alpha_min, alpha_max)`` per layer and expert; all else
    is shared by the layers. Outside the clamp a logit has no gradient.

    The published configuration, which is the defaults with ``template="published"``, has 38,552
    parameters: ``n_active d + d + 2 o + (o + 1) + o n_active + n_active`` an expert, with
    ``d = (k + 1) d_vertex`` and ``o = k (k + 1) / 2 + 1`` features, and 18 alphas.

    With ``alpha=0`` and ``alpha_min=0`` it returns x bit for bit.

    Args:
        d_model: width of the residual stream.
        n_layers: layers that it may be applied at.
        experts: the order k of each expert's simplex.
        d_vertex: dimensions of the simplices' space (the write-up's edim).
        alpha: start of alpha.
        alpha_min, alpha_max: its bounds.
        deform_scale: factor of the deformation.
        null_fraction: share of coordinates left alone, rounded down to a whole number of them.
        null_at: the last coordinates, or a random choice. The write-up's code fails at the latter.
        template: the frozen simplex: regular, or as published.
        gate: from the simplex, or constant, ``g_k = sigmoid(c)``: the control.
        seed: of the random choice and the initial values, which are those of ``nn.Linear``.

    Raises:
        ProbekitError: unless 0 <= alpha_min <= alpha <= alpha_max <= 1; experts repeated or with
            1 <= k <= d_vertex not met; no active coordinate left; a size below 1.
    """

    active: Tensor

    def __init__(
        self,
        *,
        d_model: int = 512,
        n_layers: int = 6,
        experts: Sequence[int] = (1, 2, 4),
        d_vertex: int = 8,
        alpha: float | int = 0.01,
        alpha_min: float | int = 0.001,
        alpha_max: float | int = 0.35,
        deform_scale: float | int = 0.05,
        null_fraction: float | int = 0.25,
        null_at: Literal["tail", "random"] = "tail",
        template: Literal["regular", "published"] = "regular",
        gate: Literal["simplex", "constant"] = "simplex",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_layers=n_layers, d_vertex=d_vertex)
        check_finite("deform_scale", deform_scale)
        check_whole("seed", seed)
        _check_bounds(alpha_min, alpha, alpha_max)
        _check_experts(experts)
        deformed = sum((k + 1) * (d_vertex + k) for k in experts)
        check_memory("the modulator", deformed * d_model + n_layers * len(experts))
        _check_choice("null_at", null_at, ("tail", "random"))
        _check_choice("template", template, tuple(_TEMPLATES))
        _check_choice("gate", gate, ("simplex", "constant"))
        #: The arguments that rebuild it.
        self.config: dict[str, Any] = {
            "d_model": d_model,
            "n_layers": n_layers,
            "experts": list(experts),
            "d_vertex": d_vertex,
            "alpha": alpha,
            "alpha_min": alpha_min,
            "alpha_max": alpha_max,
            "deform_scale": deform_scale,
            "null_fraction": null_fraction,
            "null_at": null_at,
            "template": template,
            "gate": gate,
            "seed": seed,
        }
        self.d_model, self.n_layers = d_model, n_layers
        self.alpha_min, self.alpha_max = alpha_min, alpha_max
        generator = torch.Generator().manual_seed(seed)
        active = _active(d_model, null_fraction, null_at, generator)
        self.register_buffer("active", active)
        self.experts = nn.ModuleList(
            _Expert(
                _TEMPLATES[template](k, d_vertex),
                len(active),
                deform_scale,
                gate == "constant",
                generator,
            )
            for k in experts
        )
        start = torch.logit(torch.tensor(alpha, dtype=torch.float64))
        self.alpha_logits = nn.Parameter(start.float().repeat(n_layers, len(experts)))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())

    @property
    def alpha(self) -> Float[Tensor, "layers experts"]:
        """The bounded alpha of each layer and expert."""
        return torch.sigmoid(self.alpha_logits).clamp(self.alpha_min, self.alpha_max)

    def forward(
        self, x: Float[Tensor, "*batch d_model"], layer: int
    ) -> Float[Tensor, "*batch d_model"]:
        """The modulated stream.

        Raises:
            ProbekitError: x of another width than ``d_model``, or no such layer.
        """
        check_place(self, x, layer)
        here = x[..., self.active]
        factor = here.new_ones((), dtype=self.alpha_logits.dtype)
        for alpha, (_, gate) in zip(self.alpha[layer], self._readings(here), strict=True):
            # Chosen, not computed: the gate of an infinite input is NaN.
            factor = torch.where(alpha == 0, factor, factor * (1 - alpha + alpha * gate))
        return x.index_copy(-1, self.active, (here * factor).to(x.dtype))

    @torch.no_grad()
    def health(self, x: Float[Tensor, "*batch d_model"] | None = None) -> dict[str, Any]:
        """Statistics of alpha and of each expert.

        Always: alpha's mean, deviation (the population's), extremes and values per layer; the
        number of parameters; per expert the template's V^2 and the norms of the deformation's
        weights and biases. With ``x``, a residual stream, also the share of its positions with
        V^2 > 0, and the gate's deviation over positions, averaged over coordinates.

        Raises:
            ProbekitError: x of another width than ``d_model``.
        """
        alpha = self.alpha
        report: dict[str, Any] = {
            "alpha_mean": float(alpha.mean()),
            "alpha_std": float(alpha.std(correction=0)),
            "alpha_min": float(alpha.min()),
            "alpha_max": float(alpha.max()),
            "alpha": alpha.tolist(),
            "parameters": sum(p.numel() for p in self.parameters()),
        }
        for expert in self._each():
            report |= {f"k{expert.k}.{name}": value for name, value in expert.health().items()}
        if x is None:
            return report
        check_place(self, x, 0)
        for expert, (v2, gate) in zip(
            self._each(), self._readings(x[..., self.active]), strict=True
        ):
            spread = gate.reshape(-1, gate.shape[-1]).double().std(0, correction=0).mean()
            report[f"k{expert.k}.share_v2_positive"] = float((v2 > 0).double().mean())
            report[f"k{expert.k}.gate_std"] = float(spread)
        return report

    def _each(self) -> list["_Expert"]:
        return cast(list[_Expert], list(self.experts))

    def _readings(self, here: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [expert(here) for expert in self._each()]


class _Expert(nn.Module):
    """One simplex: the input's deformation of it, its squared edges and V^2, and the gate."""

    template: Tensor

    def __init__(
        self,
        template: Tensor,
        n_active: int,
        deform_scale: float | int,
        constant: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.k = len(template) - 1
        self.constant = constant
        self.deform_scale = deform_scale
        features = n_edges(self.k) + 1
        self.register_buffer("template", template)
        self.deform = _linear(n_active, template.numel(), generator)
        self.norm = nn.LayerNorm(features)
        self.validity = _linear(features, 1, generator)  # published, and read by nothing
        self.gate = _linear(features, n_active, generator)

    def forward(self, here: Tensor) -> tuple[Tensor, Tensor]:
        """V^2 and gate at each position, in the parameters' dtype."""
        shift = self.deform(here.to(self.deform.weight.dtype)).unflatten(-1, self.template.shape)
        squared = _gram_distances(self.template + self.deform_scale * shift)
        row, column = torch.triu_indices(self.k + 1, self.k + 1, 1, device=here.device)
        edges, v2 = squared[..., row, column], cayley_menger(squared).to(squared.dtype)
        features = self.norm(torch.cat([edges, v2.unsqueeze(-1)], -1))
        if self.constant:
            features = torch.zeros_like(features)
        return v2, torch.sigmoid(self.gate(features))

    def health(self) -> dict[str, float]:
        return {
            "template_v2": float(cayley_menger(squared_distances(self.template))),
            "deform_weight_norm": float(self.deform.weight.norm()),
            "deform_bias_norm": float(self.deform.bias.norm()),
        }


def _gram_distances(points: Float[Tensor, "*batch points dim"]) -> Float[Tensor, "*batch p p"]:
    """Squared distances as published: ``|p|^2 + |q|^2 - 2 p.q``, at least 0."""
    gram = points @ points.mT
    own = gram.diagonal(dim1=-2, dim2=-1)
    squared = (own.unsqueeze(-1) + own.unsqueeze(-2) - 2 * gram).clamp(min=0).triu(1)
    return squared + squared.mT  # rounding aside it was symmetric already, its diagonal 0


def _active(d_model: int, fraction: float | int, at: str, generator: torch.Generator) -> Tensor:
    """Indices of the coordinates that are not in the null space, ascending."""
    check_share("null_fraction", fraction)
    n_active = d_model - int(fraction * d_model)
    if n_active == 0:
        raise ProbekitError(f"null_fraction={fraction} leaves no active coordinate; lower it")
    if at == "tail":
        return torch.arange(n_active)
    return torch.randperm(d_model, generator=generator)[:n_active].sort().values


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """nn.Linear with its own initial distribution, drawn from ``generator``."""
    layer = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(n_in**-0.5), n_in**-0.5, generator=generator)
    return layer


def _check_bounds(low: float | int, alpha: float | int, high: float | int) -> None:
    if not (all(map(is_finite, (low, alpha, high))) and 0 <= low <= alpha <= high <= 1):
        raise ProbekitError(
            "needs 0 <= alpha_min <= alpha <= alpha_max <= 1,"
            f" given alpha_min={low}, alpha={alpha}, alpha_max={high}"
        )


def _check_experts(experts: Sequence[int]) -> None:
    if not experts or len(set(experts)) < len(experts):
        raise ProbekitError(f"experts must be different orders k, at least one, not {experts!r}")


def _check_choice(name: str, given: str, valid: tuple[str, ...]) -> None:
    if given not in valid:
        raise ProbekitError(unknown(name, given, valid))
