"""Logits of native models at their last position, computing nothing that they do not need.

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

_ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}
_WRAPPER = "_original_component."
Parameters = Mapping[str, Tensor]  # each [run, ...], by its name in a checkpoint
Keys = Float[Tensor, "run batch head key d_head"]
Queries = Float[Tensor, "run batch head query d_head"]


def readout_logits(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch d_vocab"]:
    """``model(tokens)[:, -1]``, with the same gradients, for pre-norm native models.

    Raises:
        ProbekitError: the model is not native, or has another norm, activation or MLP.
    """
    check_readable(model, "readout_logits")
    named = model.original_model.named_parameters()
    one = {name.replace(_WRAPPER, ""): parameter[None] for name, parameter in named}
    return stacked_readout(one, tokens, model.cfg)[0][0]


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


def stacked_readout(
    p: Parameters, tokens: Int[Tensor, "*run batch pos"], cfg: Any, with_patterns: bool = False
) -> tuple[Float[Tensor, "run batch d_vocab"], list[Float[Tensor, "run batch head query key"]]]:
    """Logits at the last position, and every layer's attention pattern if ``with_patterns``.

    Args:
        p: parameters with a leading axis `run`.
        tokens: shared by all runs where they have no axis `run`.
    """
    stream, patterns = _embed(p, tokens), []
    for layer in range(cfg.n_layers):
        queries = 1 if layer == cfg.n_layers - 1 else tokens.shape[-1]
        own = _Block(p, f"layers.{layer}.", cfg)
        stream, pattern = own.forward(stream, queries, with_patterns)
        patterns += [] if pattern is None else [pattern]
    gain, offset = p["ln_out.weight"][:, None], p["ln_out.bias"][:, None]
    final = torch.addcmul(offset, _normalized(stream.rows, cfg), gain)
    return final @ p["head.weight"].mT, patterns


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
    """A row for each pair of token and position that occurs."""
    table, positions = p["tok_embed.weight"], p["pos.weight"]
    *_, batch, length = tokens.shape
    place = torch.arange(length, device=tokens.device)
    pairs, where = torch.unique(tokens * length + place, return_inverse=True)
    rows = table.index_select(1, pairs // length) + positions.index_select(1, pairs % length)
    first = torch.arange(len(table), device=tokens.device) * len(pairs)
    return _Stream(rows, batch, length, first[:, None, None] + where)


@dataclass(frozen=True)
class _Block:
    """One pre-norm block, for all runs."""

    p: Parameters
    prefix: str
    cfg: Any

    def forward(
        self, stream: _Stream, queries: int, with_pattern: bool
    ) -> tuple[_Stream, Float[Tensor, "run batch head query key"] | None]:
        """The stream that leaves at the last ``queries`` positions, and the whole pattern."""
        heads, readers = self.cfg.n_heads, stream.last(queries)
        asking = stream if with_pattern else readers
        normed = _normalized(stream.rows, self.cfg)
        k = stream.heads(self._project(normed, "ln1", "attn.k"), heads)
        v = stream.heads(self._project(normed, "ln1", "attn.v"), heads)
        if asking is not stream:
            normed = _normalized(readers.rows, self.cfg)
        q = asking.heads(self._project(normed, "ln1", "attn.q"), heads)
        causal = self.cfg.attention_dir == "causal"
        pattern = _pattern(q, k, causal) if with_pattern else None
        z = _attend(q, k, v, causal) if pattern is None else _mix(pattern[..., -queries:, :], v)
        mid = readers.rows + self._linear(
            z.transpose(2, 3).reshape(*readers.rows.shape[:2], -1), "attn.o"
        )
        hidden = self._project(_normalized(mid, self.cfg), "ln2", "mlp.fc_in")
        out = mid + self._linear(_ACTIVATIONS[self.cfg.act_fn](hidden), "mlp.fc_out")
        return _Stream(out, stream.batch, queries), pattern

    def _linear(self, x: Float[Tensor, "run row inner"], name: str) -> Float[Tensor, "run row out"]:
        return _affine(x, self.p[f"{self.prefix}{name}.weight"], self._bias(name))

    def _project(
        self, normed: Float[Tensor, "run row d_model"], norm: str, name: str
    ) -> Float[Tensor, "run row out"]:
        """``linear(norm(x))``: the norm's gain and offset are moved into the smaller weights."""
        gain, offset = (self.p[f"{self.prefix}{norm}.{what}"] for what in ("weight", "bias"))
        weight, bias = self.p[f"{self.prefix}{name}.weight"], self._bias(name)
        shift = (weight @ offset[..., None]).squeeze(-1)
        return _affine(normed, weight * gain[:, None], shift if bias is None else shift + bias)

    def _bias(self, name: str) -> Float[Tensor, "run out"] | None:
        return self.p.get(f"{self.prefix}{name}.bias")


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Float[Tensor, "run row out"]:
    if bias is None:
        return torch.bmm(x, weight.mT)
    return torch.baddbmm(bias[:, None], x, weight.mT)


def _normalized(x: Float[Tensor, "run row d_model"], cfg: Any) -> Float[Tensor, "run row d_model"]:
    return F.layer_norm(x, x.shape[-1:], eps=cfg.eps)


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
