"""The final residual stream and logits of native models, computing nothing that is not needed.

A toy's loss often reads one position only. In the last layer that takes one query, one MLP row
and one unembedding, where the model's forward computes all of them; and in the first layer keys
and values depend on token and position alone, so that each pair that occurs is projected once.
Hooks do not fire here; monitors run the model itself. A leading axis `run` is there throughout:
:class:`~probekit.training.Stack` has many runs, :func:`readout_logits` one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..errors import ProbekitError
from ..hooked.native import native_field

_ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}
_WRAPPER = "_original_component."
Parameters = Mapping[str, Tensor]  # each [run, ...], by its name in a checkpoint
Keys = Float[Tensor, "run batch head key d_head"]
Queries = Float[Tensor, "run batch head query d_head"]


def readout_logits(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch d_vocab"]:
    """``model(tokens)[:, -1]``, with the same gradients, for native models.

    Raises:
        ProbekitError: the model is not native, or has another norm, activation or MLP.
    """
    check_readable(model, "readout_logits")
    named = model.original_model.named_parameters()
    one = {name.replace(_WRAPPER, ""): parameter[None] for name, parameter in named}
    return unembed(one, stacked_final(one, tokens, model.cfg, 1)[0])[0, :, 0]


def check_readable(model: TransformerBridge, reader: str) -> None:
    """Raise the ProbekitError of :func:`readout_logits`, naming ``reader``, where it is due."""
    cfg = model.cfg
    plain = cfg.normalization_type == "LN" and not (cfg.gated_mlp or cfg.attn_only)
    native = cfg.architecture == "TransformerLensNative"
    if not (native and plain and cfg.act_fn in _ACTIVATIONS):
        raise ProbekitError(
            f"{reader} computes native models with LN and {' or '.join(_ACTIVATIONS)} MLPs "
            f"only, not {cfg.architecture} with {cfg.normalization_type} and {cfg.act_fn}; call "
            "the model instead"
        )


def stacked_final(
    p: Parameters,
    tokens: Int[Tensor, "*run batch pos"],
    cfg: Any,
    queries: int,
    with_patterns: bool = False,
) -> tuple[
    Float[Tensor, "run batch reader d_model"], list[Float[Tensor, "run batch head query key"]]
]:
    """What the final norm gives at the last ``queries`` positions, and patterns if asked for.

    Args:
        p: parameters with a leading axis `run`.
        tokens: shared by all runs where they have no axis `run`.
        with_patterns: every layer's pattern, over all queries.
    """
    stream, patterns = _embed(p, tokens), []
    for layer in range(cfg.n_layers):
        asked = queries if layer == cfg.n_layers - 1 else tokens.shape[-1]
        own = _Block(p, f"layers.{layer}.", cfg)
        stream, pattern = own.forward(stream, asked, with_patterns)
        patterns += [] if pattern is None else [pattern]
    final = _affine_norm(stream.rows, p, "ln_out", cfg)
    return final.unflatten(1, (stream.batch, queries)), patterns


def unembed(
    p: Parameters, final: Float[Tensor, "run *rest d_model"]
) -> Float[Tensor, "run *rest d_vocab"]:
    """Logits of what :func:`stacked_final` gives."""
    rows = _affine(final.flatten(1, -2), p["head.weight"], p.get("head.bias"))
    return rows.unflatten(1, final.shape[1:-1])


@dataclass(frozen=True)
class _Stream:
    """A residual stream: its rows, and which of them each position holds (None: each its own)."""

    rows: Float[Tensor, "run row d_model"]
    batch: int
    length: int
    where: Int[Tensor, "run batch pos"] | None = None  # into the rows of all runs, end to end

    def last(self, queries: int) -> "_Stream":
        """The last ``queries`` positions, a row each."""
        if self.where is not None:
            rows = self.rows.flatten(0, 1).index_select(0, self.where[..., -queries:].flatten())
        else:
            rows = self.rows.unflatten(1, (self.batch, self.length))[:, :, -queries:]
        rows = rows.reshape(len(self.rows), self.batch * queries, -1)
        return _Stream(rows, self.batch, queries)

    def heads(self, x: Float[Tensor, "run row width"], heads: int) -> Keys:
        """What the positions hold of ``x``, computed from the rows; contiguous, for speed."""
        if self.where is None:
            shape = (self.batch, self.length, heads, -1)
            return x.view(len(x), *shape).transpose(2, 3).contiguous()
        head = torch.arange(heads, device=x.device)[:, None]
        place = self.where[:, :, None] * heads + head
        return (
            x.reshape(-1, x.shape[-1] // heads)
            .index_select(0, place.flatten())
            .view(*place.shape, -1)
        )


def _embed(p: Parameters, tokens: Int[Tensor, "*run batch pos"]) -> _Stream:
    """A row for each pair of token and position that occurs, or for each position if fewer."""
    table, positions = p["tok_embed.weight"], p["pos.weight"]
    *_, batch, length = tokens.shape
    place = torch.arange(length, device=tokens.device)
    pairs, where = torch.unique(tokens * length + place, return_inverse=True)
    if len(pairs) < batch * length:
        rows = table.index_select(1, pairs // length) + positions.index_select(1, pairs % length)
        first = torch.arange(len(table), device=tokens.device) * len(pairs)
        return _Stream(rows, batch, length, first[:, None, None] + where)
    first = torch.arange(len(table), device=tokens.device)[:, None, None] * table.shape[1]
    rows = table.flatten(0, 1).index_select(0, (first + tokens).flatten())
    rows = rows.view(len(table), batch, length, -1) + positions[:, None, :length]
    return _Stream(rows.flatten(1, 2), batch, length)


@dataclass(frozen=True)
class _Block:
    """One block, for all runs; norms come before attention and MLP, or after the sums."""

    p: Parameters
    prefix: str
    cfg: Any

    def forward(
        self, stream: _Stream, queries: int, with_pattern: bool
    ) -> tuple[_Stream, Float[Tensor, "run batch head query key"] | None]:
        """The stream that leaves at the last ``queries`` positions, and the whole pattern."""
        heads, readers = self.cfg.n_heads, stream.last(queries)
        asking = stream if with_pattern else readers
        source = self._before(stream.rows)
        k = stream.heads(self._project(source, "ln1", "attn.k"), heads)
        v = stream.heads(self._project(source, "ln1", "attn.v"), heads)
        if asking is not stream:
            source = self._before(readers.rows)
        q = asking.heads(self._project(source, "ln1", "attn.q"), heads)
        causal = self.cfg.attention_dir == "causal"
        pattern = _pattern(q, k, causal) if with_pattern else None
        z = _attend(q, k, v, causal) if pattern is None else _mix(pattern[..., -queries:, :], v)
        attn_out = self._linear(z.transpose(2, 3).reshape(*readers.rows.shape[:2], -1), "attn.o")
        mid = self._after(readers.rows + attn_out, "ln1")
        hidden = self._project(self._before(mid), "ln2", "mlp.fc_in")
        mlp_out = self._linear(_ACTIVATIONS[self.cfg.act_fn](hidden), "mlp.fc_out")
        out = self._after(mid + mlp_out, "ln2")
        return _Stream(out, stream.batch, queries), pattern

    @property
    def _post_norm(self) -> bool:
        return native_field(self.cfg, "post_norm")

    def _before(self, x: Float[Tensor, "run row d_model"]) -> Float[Tensor, "run row d_model"]:
        """What attention or MLP reads, up to the norm's gain and offset."""
        return x if self._post_norm else _normalized(x, self.cfg)

    def _after(
        self, x: Float[Tensor, "run row d_model"], norm: str
    ) -> Float[Tensor, "run row d_model"]:
        """The residual stream, from the sum with what attention or MLP writes."""
        return _affine_norm(x, self.p, self.prefix + norm, self.cfg) if self._post_norm else x

    def _linear(self, x: Float[Tensor, "run row inner"], name: str) -> Float[Tensor, "run row out"]:
        return _affine(x, self.p[f"{self.prefix}{name}.weight"], self._bias(name))

    def _project(
        self, source: Float[Tensor, "run row d_model"], norm: str, name: str
    ) -> Float[Tensor, "run row out"]:
        """``linear(norm(x))``: the norm's gain and offset are moved into the smaller weights."""
        if self._post_norm:
            return self._linear(source, name)
        gain, offset = (self.p[f"{self.prefix}{norm}.{what}"] for what in ("weight", "bias"))
        weight, bias = self.p[f"{self.prefix}{name}.weight"], self._bias(name)
        shift = (weight @ offset[..., None]).squeeze(-1)
        return _affine(source, weight * gain[:, None], shift if bias is None else shift + bias)

    def _bias(self, name: str) -> Float[Tensor, "run out"] | None:
        return self.p.get(f"{self.prefix}{name}.bias")


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Float[Tensor, "run row out"]:
    if bias is None:
        return torch.bmm(x, weight.mT)
    return torch.baddbmm(bias[:, None], x, weight.mT)


def _normalized(x: Float[Tensor, "run row d_model"], cfg: Any) -> Float[Tensor, "run row d_model"]:
    return F.layer_norm(x, x.shape[-1:], eps=cfg.eps)


def _affine_norm(
    x: Float[Tensor, "run row d_model"], p: Parameters, name: str, cfg: Any
) -> Float[Tensor, "run row d_model"]:
    gain, offset = p[f"{name}.weight"][:, None], p[f"{name}.bias"][:, None]
    return torch.addcmul(offset, _normalized(x, cfg), gain)


def _attend(q: Queries, k: Keys, v: Keys, causal: bool) -> Queries:
    """Attention without the pattern, of the last positions ``q``."""
    if q.shape[-2] == 1:  # sees every key under either mask; products beat many tiny matmuls
        scores = (q * k).sum(-1) * k.shape[-1] ** -0.5
        return _mix(scores.softmax(-1)[..., None, :], v)
    merged = [x.flatten(0, 1) for x in (q, k, v)]
    z = F.scaled_dot_product_attention(merged[0], merged[1], merged[2], is_causal=causal)
    return z.view(q.shape)


def _pattern(q: Queries, k: Keys, causal: bool) -> Float[Tensor, "run batch head query key"]:
    scores = (q @ k.mT) * k.shape[-1] ** -0.5
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return scores.softmax(-1)


def _mix(pattern: Float[Tensor, "run batch head query key"], v: Keys) -> Queries:
    if pattern.shape[-2] == 1:
        return (pattern.mT * v).sum(-2, keepdim=True)
    return pattern @ v
