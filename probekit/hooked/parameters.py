"""Which numbers of a model's parameters are Q, K, V, O, MLP, LN, EMBED, POS or UNEMBED.

Read from the bridge's own components, so that one answer serves every family, whether a model
keeps Q in a matrix of its own or as columns of a fused one. Heads are true heads: rows of W_Q,
W_K, W_V (and their biases), columns of W_O. The bias of O belongs to no head and goes along only
where all heads are meant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import ProbekitError, SiteError
from ..hooksite import HookSite
from ..sitemap import SiteMap

HEAD_PARTS = ("Q", "K", "V", "O")
PARTS = (*HEAD_PARTS, "MLP", "LN", "EMBED", "POS", "UNEMBED")
BLOCK_PARTS = (*HEAD_PARTS, "MLP", "LN")


@dataclass(frozen=True, eq=False)
class WeightSlice:
    """Some of the numbers of one parameter: ``view`` shares its memory with ``parameter``."""

    address: str
    parameter: nn.Parameter
    view: Tensor


@dataclass(frozen=True)
class Block:
    """One layer and its attentions: by name, each with its number of heads."""

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
                yield from self._mlp(f"{where}.MLP", component)

    def _mlp(self, where: str, component: nn.Module) -> Iterator[WeightSlice]:
        named: set[int] = set()  # by storage: a fused matrix and its parts are the same numbers
        for inner, matrix in _submodules(component).items():
            for each in _whole(f"{where}.{inner}", matrix):
                named.add(_storage(each.parameter))
                yield each
        # What has no component of its own, such as the experts of a mixture. A BERT block's MLP
        # wraps the whole layer, where the rest is not the MLP's.
        rest = list(_whole(where, component))
        attention = {p for module, _ in self.attentions.values() for p in module.parameters()}
        if not any(each.parameter in attention for each in rest):
            yield from (each for each in rest if _storage(each.parameter) not in named)


def blocks(model: nn.Module) -> Iterator[Block]:
    """The layers of all stacks; none where ``model`` is no bridge."""
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
        yield Block(block, stack, layer, attentions)


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


def outside(model: nn.Module) -> Iterator[WeightSlice]:
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


def _storage(parameter: nn.Parameter) -> int:
    return parameter.untyped_storage().data_ptr()


def part_of(each: WeightSlice) -> str:
    """``"0.Q.weight"`` -> ``"Q"``."""
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


def parameter_names(model: nn.Module) -> dict[nn.Parameter, str]:
    """The clean name of each parameter, the first of several."""
    return {p: name.replace("._original_component", "") for name, p in model.named_parameters()}
