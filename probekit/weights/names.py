"""Which matrix a parameter's name means: one set of rules for models in memory and on disk.

Types are the write-up's: q, k, v, o (cross_q, ... in cross-attention), mlp_gate, mlp_up, mlp_down,
position_bias, norm, embedding, pooler, projection, other. The rules know BERT, T5 (gated or not),
CLIP as Hugging Face and as open_clip names it, DINOv2, ViT, GPT-2, Llama, Qwen and probekit's own
toy models. What they do not know is "other"; :func:`check_complete` refuses a model of which they
know only a part.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import ProbekitError

ATTENTION_TYPES = ("q", "k", "v", "o", "cross_q", "cross_k", "cross_v", "cross_o")
MLP_TYPES = ("mlp_gate", "mlp_up", "mlp_down")
LAYER_TYPES = (*ATTENTION_TYPES, *MLP_TYPES)

_LAYER = re.compile(
    r"^(?P<stem>(?:.*?\.)?)(?P<list>layers|layer|blocks|block|h|resblocks)\.(?P<layer>\d+)\."
    r"(?P<rest>.+)$"
)
_END = r"(?:^|\.)(?:{})$"
_IN_LAYER = [
    (kind, re.compile(_END.format(pattern)))
    for kind, pattern in (
        ("q", "q|query|q_proj"),
        ("k", "k|key|k_proj"),
        ("v", "v|value|v_proj"),
        ("qkv", "in_proj|c_attn|qkv"),
        ("o", r"o|o_proj|out_proj|attention\.output\.dense|attn\.c_proj|attn\.proj"),
        ("mlp_gate", "gate_proj|wi_0|gate"),
        ("mlp_up", r"intermediate\.dense|fc1|c_fc|wi|wi_1|up_proj|fc_in|mlp\.in"),
        ("mlp_gate_up", "weights_in"),
        ("mlp_down", r"output\.dense|fc2|mlp\.c_proj|wo|down_proj|fc_out|weights_out|mlp\.out"),
        ("position_bias", "relative_attention_bias"),
    )
]
_OUTSIDE = [
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("pooler", r"(?:^|\.)pooler\."),
        ("projection", r"(?:^|\.)(?:\w+_projection|projection|proj)$"),
        ("embedding", r"(?<!un)embed|(?:^|\.)(?:wte|wpe|shared|pos)$"),
    )
]
_NORM = re.compile(r"(?:norm|layrnorm|(?:^|[._])ln)\w*$", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """What a name says: ``kind`` is "weight" or "bias"; ``rest`` the name within its layer."""

    type: str
    stack: str
    layer: int | None
    kind: str
    rest: str


def place(name: str) -> Place:
    """The place of a parameter by its clean name.

    Example:
        >>> place("encoder.layer.3.attention.self.query.weight")
        Place(type='q', stack='encoder', layer=3, kind='weight', rest='attention.self.query')
    """
    stem, _, kind = re.sub(r"in_proj_(weight|bias)$", r"in_proj.\1", name).rpartition(".")
    if kind not in ("weight", "bias"):
        stem, kind = name, "weight"
    found = _LAYER.match(stem)
    if stem.startswith("mtp."):  # Qwen's head for several tokens has a layer 0 of its own
        return Place("other", "", None, kind, stem)
    if found is None:
        return Place(_outside(stem), _stack(stem), None, kind, stem)
    rest = found["rest"]
    return Place(_within(rest), _stack(found["stem"]), int(found["layer"]), kind, rest)


def _within(rest: str) -> str:
    if rest.startswith("linear_attn."):  # has no queries and keys of the usual kind
        return "other"
    for kind, pattern in _IN_LAYER:
        if pattern.search(rest):
            cross = "EncDecAttention" in rest
            if cross and kind == "position_bias":  # old T5 checkpoints have one that nothing reads
                return "other"
            return f"cross_{kind}" if cross and kind in "qkvo" else kind
    return "norm" if _NORM.search(rest) else "other"


def _outside(stem: str) -> str:
    if _NORM.search(stem):
        return "norm"
    return next((kind for kind, pattern in _OUTSIDE if pattern.search(stem)), "other")


def _stack(stem: str) -> str:
    parts = stem.split(".")
    if "text_model" in parts:
        return "text"
    if "vision_model" in parts or "visual" in parts:
        return "vision"
    return next((part for part in parts if part in ("encoder", "decoder")), "")


def check_complete(
    places: Iterable[Place],
    depths: Mapping[str, int] = {},
    attention_layers: Mapping[str, int] = {},
) -> None:
    """Refuse unless there are L matrices of each type in a stack of L layers.

    Args:
        places: of all weights.
        depths: layers of each stack, where a config says; else the highest layer found counts.
        attention_layers: how many layers of a stack have attention, where not all do.

    Raises:
        ProbekitError: no attention or MLP at all, or a type that some layers lack or have twice;
        the message lists what was found.
    """
    found: dict[str, Counter[str]] = {}
    seen: dict[str, set[int]] = {}
    for each in places:
        if each.kind == "weight" and each.type in LAYER_TYPES:
            found.setdefault(each.stack, Counter())[each.type] += 1
            seen.setdefault(each.stack, set()).add(each.layer or 0)
    if not found:
        raise ProbekitError(
            "no query, key or MLP matrices were recognised by name; the names known are those of "
            "BERT, T5, CLIP, open_clip, DINOv2, ViT, GPT-2, Llama and Qwen"
        )
    wrong = []
    for stack, counts in found.items():
        depth = depths.get(stack, max(seen[stack]) + 1)
        if not {"q", "qkv"} & counts.keys():
            wrong.append(f"{stack + ' ' if stack else ''}q: 0 of {depth}")
        for kind, number in counts.items():
            wanted = attention_layers.get(stack, depth) if kind in ATTENTION_TYPES else depth
            if number != wanted:
                wrong.append(f"{stack + ' ' if stack else ''}{kind}: {number} of {wanted}")
    if wrong:
        listed = "; ".join(
            f"{stack or 'model'} has {', '.join(f'{n} {kind}' for kind, n in counts.items())}"
            for stack, counts in found.items()
        )
        raise ProbekitError(
            f"every layer needs one matrix of each type, but there are {', '.join(wrong)}; "
            f"found: {listed}"
        )
