"""Which norm's scales each attention and MLP reads, so that they can be folded into its weights."""

import re
from dataclasses import dataclass

from .sources import Entry, WeightSource

_FIRST = re.compile(
    r"^(layer\.0\.layer_norm|layer_norm1|norm1|ln_?1|input_layernorm|layernorm_before"
    r"|attention\.output\.LayerNorm)$"
)
_LAST = re.compile(
    r"^(layer_norm2|norm2|ln_?2|post_attention_layernorm|layernorm_after|output\.LayerNorm)$"
)
_T5 = re.compile(r"^layer\.([12])\.layer_norm$")


@dataclass(frozen=True)
class InputNorm:
    """The norm that is read: its scales and, of a LayerNorm, its offset."""

    gamma: Entry
    beta: Entry | None


def input_norms(source: WeightSource, stack: str) -> dict[tuple[int, str], InputNorm]:
    """By layer and reader ("attention", "cross" or "mlp").

    Where norms follow the residual sums (BERT), a layer's MLP reads the norm after its attention,
    and its attention reads the last norm of the layer before, or that of the embeddings.
    """
    norms = [e for e in source.entries if e.type == "norm" and e.stack == stack]
    weights = {(e.layer, e.rest): e for e in norms if e.kind == "weight"}
    biases = {(e.layer, e.rest): e for e in norms if e.kind == "bias"}
    decoder = {layer for layer, rest in weights if rest == "layer.2.layer_norm"}
    found: dict[tuple[int, str], InputNorm] = {}
    for (layer, rest), gamma in weights.items():
        norm = InputNorm(gamma, biases.get((layer, rest)))
        if layer is None:
            if source.post_norm and "embed" in rest:
                found[0, "attention"] = norm
            continue
        role = _role(rest, layer in decoder)
        if role and source.post_norm:
            found[(layer, "mlp") if role == "attention" else (layer + 1, "attention")] = norm
        elif role:
            found[layer, role] = norm
    return found


def _role(rest: str, decoder: bool) -> str:
    t5 = _T5.match(rest)
    if t5:
        return "cross" if decoder and t5[1] == "1" else "mlp"
    if _FIRST.match(rest):
        return "attention"
    return "mlp" if _LAST.match(rest) else ""
