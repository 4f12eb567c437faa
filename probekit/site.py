"""Sites: one address scheme for activations, the same for every model.

A :class:`Site` says which activation is meant, not how a model stores it. Its string form is
``[stack.]layer.[self.|cross.]part[:head]``::

    "0.pattern:1"          layer 0, head 1
    "encoder.3.resid_pre"  the encoder of T5
    "decoder.2.cross.z"    the decoder's attention over the encoder
    "vision.0:4.mlp_out"   layers 0 to 3 of CLIP's image tower
    "resid_post"           every layer of every stack

Whatever is left out means "all": without a layer every layer, without a stack every stack,
without ``self``/``cross`` both attentions. :mod:`probekit.sitemap` finds the hook points.
"""

import contextlib
import operator
import re
from dataclasses import dataclass

from .errors import SiteError, unknown

#: TransformerLens's words, with the axes of the tensor that a hook there sees.
PART_AXES: dict[str, tuple[str, ...]] = {
    "embed": ("batch", "pos", "d_model"),
    "resid_pre": ("batch", "pos", "d_model"),
    "resid_mid": ("batch", "pos", "d_model"),
    "resid_post": ("batch", "pos", "d_model"),
    "ln1": ("batch", "pos", "d_model"),
    "ln2": ("batch", "pos", "d_model"),
    "ln3": ("batch", "pos", "d_model"),
    "q": ("batch", "pos", "head", "d_head"),
    "k": ("batch", "pos", "head", "d_head"),
    "v": ("batch", "pos", "head", "d_head"),
    "z": ("batch", "pos", "head", "d_head"),
    "scores": ("batch", "head", "query", "key"),
    "pattern": ("batch", "head", "query", "key"),
    "attn_out": ("batch", "pos", "d_model"),
    "mlp_pre": ("batch", "pos", "d_mlp"),
    "mlp_post": ("batch", "pos", "d_mlp"),
    "mlp_out": ("batch", "pos", "d_model"),
    "ln_final": ("batch", "pos", "d_model"),
    "logits": ("batch", "pos", "d_vocab"),
}
PARTS = tuple(PART_AXES)
#: Parts that exist once a stack (or once a model), not once a layer.
UNLAYERED = ("embed", "ln_final", "logits")
#: Parts that belong to an attention, so that ``self`` and ``cross`` tell them apart.
ATTENTION_PARTS = ("q", "k", "v", "z", "scores", "pattern", "attn_out", "resid_mid")

_LAYER = re.compile(r"-?\d+|(-?\d+)?:(-?\d+)?(:(-?\d+)?)?|\*")
_FORM = "the form is [stack.]layer.[self.|cross.]part[:head]"
_LONGEST = 1000  # Python does not read numbers of some thousand digits


@dataclass(frozen=True)
class Site:
    """The address of an activation.

    Args:
        part: a TransformerLens word, one of :data:`PARTS`.
        layer: an index (negative counts from the end), a slice, or None for all layers.
        head: an index, or None for the whole tensor.
        stack: ``"encoder"``, ``"decoder"``, ``"text"``, ``"vision"``; None for all.
        attn: ``"self"`` or ``"cross"`` where a block has both; None for all.

    Raises:
        SiteError: an unknown part, a layer on an unlayered part, a head on a headless part.
    """

    part: str
    layer: int | slice | None = None
    head: int | None = None
    stack: str | None = None
    attn: str | None = None

    def __post_init__(self) -> None:
        for name in ("layer", "head"):
            value = getattr(self, name)
            if not isinstance(value, int):  # NumPy's, of a table
                with contextlib.suppress(TypeError):
                    object.__setattr__(self, name, operator.index(value))
        if not (self.layer is None or _is_index(self.layer) or isinstance(self.layer, slice)):
            raise SiteError(f"layer must be a whole number or a slice, not {self.layer!r}")
        if not (self.head is None or _is_index(self.head)):
            raise SiteError(f"head must be a whole number, not {self.head!r}")
        if isinstance(self.layer, slice) and not _is_slice(self.layer):
            raise SiteError(
                f"a slice of layers has whole numbers and no step 0, not {self.layer!r}"
            )
        for name, word in (("part", self.part), ("stack", self.stack or "")):
            if not isinstance(word, str):
                raise SiteError(f"{name} must be a word, not {word!r}")
        if self.part not in PART_AXES:
            raise SiteError(unknown("part", self.part, PARTS))
        if self.attn not in (None, "self", "cross"):
            raise SiteError(unknown("attn", str(self.attn), ("self", "cross")))
        if self.attn is not None and self.part not in ATTENTION_PARTS:
            raise SiteError(
                f"{self.part!r} belongs to no attention, so attn={self.attn!r} has no meaning"
            )
        if self.layer is not None and self.part in UNLAYERED:
            raise SiteError(f"{self.part!r} exists once a stack; leave the layer out")
        if self.head is not None and "head" not in PART_AXES[self.part]:
            with_heads = [part for part, axes in PART_AXES.items() if "head" in axes]
            raise SiteError(
                f"{self.part!r} has no heads; parts with heads: {', '.join(with_heads)}"
            )

    def __str__(self) -> str:
        words = [self.stack, _layer_text(self.layer), self.attn]
        address = ".".join([word for word in words if word is not None] + [self.part])
        return address if self.head is None else f"{address}:{self.head}"


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_slice(layers: slice) -> bool:
    bounds = (layers.start, layers.stop, layers.step)
    return all(bound is None or _is_index(bound) for bound in bounds) and layers.step != 0


def parse_site(address: "str | Site") -> Site:
    """Read an address such as ``"decoder.2.cross.z:3"``; a :class:`Site` passes through.

    Raises:
        SiteError: the text is no address; the message says which word was not understood.
    """
    if isinstance(address, Site):
        return address
    if not isinstance(address, str):
        raise SiteError(f"a site is a string or a pk.Site, not {type(address).__name__}")
    if len(address) > _LONGEST:
        raise SiteError(f"a site of {len(address)} characters, {address[:40]!r}...: {_FORM}")
    if "hook_" in address:
        raise SiteError(
            f"site {address!r} is a name of TransformerLens; the address is in the row of "
            "pk.list_sites(model) that has it as its hook, such as '0.pattern'"
        )
    *words, last = address.split(".")
    part, colon, head_text = last.partition(":")
    if colon and not re.fullmatch(r"\d+", head_text):
        raise SiteError(f"site {address!r}: head {head_text!r} is not a whole number")
    fields: dict[str, str] = {}
    for word in words:
        kind = (
            "attn" if word in ("self", "cross") else "layer" if _LAYER.fullmatch(word) else "stack"
        )
        if kind in fields:
            raise SiteError(
                f"site {address!r}: two words for the {kind}, {fields[kind]!r} and {word!r}; "
                f"{_FORM}"
            )
        fields[kind] = word
    try:
        return Site(
            part,
            layer=_parse_layer(fields.get("layer")),
            head=int(head_text) if colon else None,
            stack=fields.get("stack"),
            attn=fields.get("attn"),
        )
    except SiteError as error:
        raise SiteError(f"site {address!r}: {error}") from None


def _parse_layer(word: str | None) -> int | slice | None:
    if word is None or word == "*":
        return None
    if ":" not in word:
        return int(word)
    return slice(*(int(bound) if bound else None for bound in word.split(":")))


def _layer_text(layer: int | slice | None) -> str | None:
    if not isinstance(layer, slice):
        return None if layer is None else str(layer)
    start, stop = ("" if bound is None else bound for bound in (layer.start, layer.stop))
    return f"{start}:{stop}" + ("" if layer.step is None else f":{layer.step}")
