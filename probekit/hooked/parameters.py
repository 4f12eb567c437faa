"""Which numbers of a model's parameters are Q, K, V, O, MLP, LN, EMBED, POS or UNEMBED.

Read from the bridge's own components, so that one answer serves every family: a selection is a
list of live views, whether a model keeps Q in a matrix of its own or as columns of a fused one.
Heads are true heads: rows of W_Q, W_K, W_V (and their biases), columns of W_O. The bias of O
belongs to no head and goes along only where all heads are meant.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import ProbekitError, SiteError, unknown
from ..hooksite import HookSite
from ..sitemap import SiteMap

HEAD_PARTS = ("Q", "K", "V", "O")
PARTS = (*HEAD_PARTS, "MLP", "LN", "EMBED", "POS", "UNEMBED")
_BLOCK_PARTS = (*HEAD_PARTS, "MLP", "LN")


@dataclass(frozen=True, eq=False)
class WeightSlice:
    """Some of the numbers of one parameter: ``view`` shares its memory with ``parameter``."""

    address: str
    parameter: nn.Parameter
    view: Tensor


@dataclass(frozen=True)
class Selection:
    """What is meant: parts, and where. None means all.

    Args:
        parts: of :data:`PARTS`.
        layers: indices; negative ones count from the end.
        heads: true heads, of Q, K, V and O.
        stack, attn: where there are several.

    Raises:
        ProbekitError: no or an unknown part, or heads of parts that have none.
    """

    parts: Sequence[str]
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    stack: str | None = None
    attn: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.parts, str) or not self.parts:
            raise ProbekitError(f"parts is a sequence such as ('Q', 'K'), not {self.parts!r}")
        for part in self.parts:
            if part not in PARTS:
                raise ProbekitError(unknown("part", str(part), PARTS))
        for name in ("layers", "heads"):
            chosen = getattr(self, name)
            if chosen is not None and not (
                isinstance(chosen, Sequence) and chosen and all(type(i) is int for i in chosen)
            ):
                raise ProbekitError(f"{name} is a sequence of whole numbers, not {chosen!r}")
        headless = [part for part in self.parts if part not in HEAD_PARTS]
        if self.heads is not None and headless:
            raise ProbekitError(f"heads= selects in Q, K, V and O; {', '.join(headless)} has none")

    def find(self, model: nn.Module) -> list[WeightSlice]:
        """The selected slices of ``model``, each once, in the order of the forward pass.

        Raises:
            SiteError: no such layer, head, stack or attention.
            ProbekitError: the model lacks one of the parts; the message says which it has.
        """
        found = list(self._in_blocks(model))
        if self.layers is None and self.attn is None:
            found += self._outside_blocks(model)
        missing = [part for part in self.parts if not any(_part(s) == part for s in found)]
        if missing:
            here = dict.fromkeys(
                _part(s)
                for s in (*_outside(model), *(s for b in _blocks(model) for s in b.slices(PARTS)))
            )
            raise ProbekitError(
                f"this model has no {', '.join(missing)} at that place; parts of the model: "
                f"{', '.join(part for part in PARTS if part in here)}"
                + _where(self.layers, self.attn, missing)
            )
        return _each_once(found)

    def _in_blocks(self, model: nn.Module) -> Iterator[WeightSlice]:
        blocks = list(_blocks(model))
        if not blocks:
            raise ProbekitError(
                f"{type(model).__name__} is no TransformerLens bridge, so its weights cannot be "
                "told apart; load it with pk.load or pk.wrap"
            )
        stacks = list(dict.fromkeys(block.stack for block in blocks))
        if self.stack is not None and self.stack not in stacks:
            raise SiteError(
                unknown("stack", self.stack, [stack or "(unnamed)" for stack in stacks])
            )
        wanted = [block for block in blocks if self.stack in (None, block.stack)]
        chosen = [block for block in wanted if self._has_layer(block, wanted)]
        for block in chosen:
            yield from block.slices(self.parts, self.heads, self.attn)

    def _has_layer(self, block: "_Block", blocks: Iterable["_Block"]) -> bool:
        if self.layers is None:
            return True
        depth = 1 + max(b.layer for b in blocks if b.stack == block.stack)
        outside = [layer for layer in self.layers if not -depth <= layer < depth]
        if outside:
            raise SiteError(
                f"layers={tuple(self.layers)}: {outside} do not exist; "
                f"{block.stack or 'blocks'} has layers 0 to {depth - 1}"
            )
        return block.layer in {layer % depth for layer in self.layers}

    def _outside_blocks(self, model: nn.Module) -> list[WeightSlice]:
        prefix = f"{self.stack}." if self.stack else ""
        return [
            each
            for each in _outside(model)
            if _part(each) in self.parts and each.address.startswith(prefix)
        ]


@dataclass(frozen=True)
class _Block:
    component: nn.Module
    stack: str
    layer: int
    attentions: dict[str | None, tuple[nn.Module, int]]

    def slices(
        self, parts: Sequence[str], heads: Sequence[int] | None = None, attn: str | None = None
    ) -> Iterator[WeightSlice]:
        where = f"{self.stack}.{self.layer}" if self.stack else str(self.layer)
        for name, (module, n_heads) in self.attentions.items():
            if attn in (None, name):
                place = f"{where}.{name}" if name else where
                yield from _attention_slices(place, module, n_heads, parts, heads)
        for name, component in _submodules(self.component).items() if attn is None else ():
            if name.startswith("ln") and "LN" in parts:
                yield from _whole(f"{where}.LN.{name}", component)
            elif name == "mlp" and "MLP" in parts:
                # A BERT block's MLP wraps the whole layer, so its matrices are asked for by name.
                matrices = _submodules(component) or {"": component}
                for inner, matrix in matrices.items():
                    yield from _whole(f"{where}.MLP.{inner}".rstrip("."), matrix)


def _blocks(model: nn.Module) -> Iterator[_Block]:
    places: dict[tuple[str, int], list[HookSite]] = {}
    for site in SiteMap(model).sites:
        if site.part == "z" and site.layer is not None:
            places.setdefault((site.stack, site.layer), []).append(site)
    for (stack, layer), sites in places.items():
        stem = f"{stack}_blocks" if stack else "blocks"
        block = getattr(model, stem, [None] * (layer + 1))[layer]
        if not _submodules(block):
            return
        attentions: dict[str | None, tuple[nn.Module, int]] = {}
        for site in sites:
            # "decoder_blocks.0.cross_attn.hook_z" -> "cross_attn"
            name = site.name.split(".")[-2 if site.name.endswith("hook_z") else -3]
            attentions[site.attn] = (getattr(block, name), site.n_heads or model.cfg.n_heads)  # type: ignore[union-attr]
        yield _Block(block, stack, layer, attentions)


def _attention_slices(
    where: str,
    module: nn.Module,
    n_heads: int,
    parts: Sequence[str],
    heads: Sequence[int] | None,
) -> Iterator[WeightSlice]:
    components = _submodules(module)
    width = _width(components["q"])
    d_head = width // n_heads
    for part in (part for part in HEAD_PARTS if part in parts):
        matrix = components[part.lower()]
        if heads is None:
            yield from _whole(f"{where}.{part}", matrix)
            continue
        outside = [head for head in heads if not 0 <= head < n_heads]
        if outside:
            raise SiteError(
                f"heads={tuple(heads)}: {outside} do not exist at {where}, which has heads 0 to "
                f"{n_heads - 1}"
            )
        if part in "KV" and _width(matrix) != width:
            raise ProbekitError(
                f"{where}.{part} is shared by groups of heads, so that one head's cannot be "
                "changed alone; leave heads out, or select Q and O"
            )
        for head in heads:
            yield from _of_head(f"{where}.{part}", matrix, part, head, d_head)


def _of_head(
    where: str, component: nn.Module, part: str, head: int, d_head: int
) -> Iterator[WeightSlice]:
    matrix = _original(component)
    # nn.Linear keeps [out, in], Conv1D [in, out]; heads lie along out, for O along in.
    axis = int(isinstance(matrix, Conv1D)) ^ int(part == "O")
    weight = matrix.get_parameter("weight")
    view = weight.detach().narrow(axis, head * d_head, d_head)
    yield WeightSlice(f"{where}.weight:{head}", weight, view)
    bias = getattr(matrix, "bias", None)
    if part != "O" and isinstance(bias, nn.Parameter):
        view = bias.detach().narrow(0, head * d_head, d_head)
        yield WeightSlice(f"{where}.bias:{head}", bias, view)


def _outside(model: nn.Module) -> Iterator[WeightSlice]:
    """Embeddings, final norms and unembedding: the components outside the blocks."""
    components = _submodules(model)
    stacks = [name.removesuffix("_blocks") for name in components if name.endswith("_blocks")]
    for name, component in components.items():
        stack, short = next(
            ((s, name.removeprefix(f"{s}_")) for s in stacks if name.startswith(f"{s}_")),
            # TransformerLens gives these no prefix, though they belong to one stack.
            ({"pos_embed": "encoder", "unembed": "decoder"}.get(name, ""), name),
        )
        place = f"{stack}." if stack in stacks else ""
        if short == "unembed":
            yield from _whole(f"{place}UNEMBED", component)
        elif short.startswith("ln_") or short.endswith("_ln"):
            yield from _whole(f"{place}LN.{short}", component)
        elif short.endswith("embed"):
            for each in _whole(f"{place}{{}}.{short}", component):
                positions = short == "pos_embed" or "position" in each.address
                part = "POS" if positions else "EMBED"
                yield WeightSlice(each.address.format(part), each.parameter, each.view)


def _whole(where: str, component: nn.Module) -> Iterator[WeightSlice]:
    for name, parameter in _original(component).named_parameters():
        clean = name.replace("_original_component.", "")
        yield WeightSlice(f"{where}.{clean}", parameter, parameter.detach())


def _each_once(slices: Iterable[WeightSlice]) -> list[WeightSlice]:
    """Tied parameters share their memory: the first of the same numbers stands for all."""
    seen: dict[tuple, WeightSlice] = {}
    for each in slices:
        view = each.view
        seen.setdefault((view.data_ptr(), view.shape, view.stride()), each)
    return list(seen.values())


def _part(each: WeightSlice) -> str:
    return next(word for word in each.address.split(".") if word in PARTS)


def _submodules(component: nn.Module | None) -> dict[str, nn.Module]:
    names = getattr(component, "submodules", None)
    if names is None and component is not None and hasattr(component, "adapter"):
        names = component.adapter.components  # type: ignore[union-attr]
    if not isinstance(names, dict):
        return {}
    return {name: getattr(component, name) for name in names if hasattr(component, name)}


def _original(component: nn.Module) -> nn.Module:
    inner = getattr(component, "original_component", None)
    return inner if isinstance(inner, nn.Module) else component


def _width(component: nn.Module) -> int:
    """The number of features that a projection puts out."""
    weight = _original(component).get_parameter("weight")
    return weight.shape[int(isinstance(_original(component), Conv1D))]


def _where(layers: Sequence[int] | None, attn: str | None, missing: Sequence[str]) -> str:
    outside = [part for part in missing if part not in _BLOCK_PARTS]
    if outside and (layers is not None or attn is not None):
        return f"; {', '.join(outside)} lies outside the layers, so leave layers and attn out"
    return ""
