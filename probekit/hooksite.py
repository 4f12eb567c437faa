"""Where a model's activations live, read from its hook names, and how an edit takes effect.

Stacks are read from the model's own hook names (``blocks``, ``encoder_blocks``, ``text_blocks``,
legacy ``encoder.0.``), not from a table of architectures. For every part the map holds the one
hook point that carries the quantity of that name, and one of three answers to "does an edit
reach the output":

``return``    the hook's return value replaces the activation;
``in place``  the hook point sees the very tensor that the residual sum keeps (the input of the
              second norm), so an edit is written into that tensor;
refused       an edit would change nothing; ``attach`` raises, naming what to edit instead.
"""

import copy
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformer_lens.model_bridge.generalized_components.base import alias_generation

from . import seam
from .site import PART_AXES

_BLOCK = re.compile(r"^(?:(?P<stack>\w+)_)?blocks\.(?P<layer>\d+)\.(?P<rest>.+)$")
_LEGACY = re.compile(r"^(?P<stack>encoder|decoder)\.(?P<layer>\d+)\.(?P<rest>.+)$")

# For each part the names it may have inside a block, the more specific first; {A} is the
# attention module. A post-norm block's attn.hook_out lies after the norm, hence the o.hook_out.
_IN_BLOCK: dict[str, tuple[str, ...]] = {
    "resid_pre": ("hook_resid_pre", "hook_in"),
    "ln1": ("ln1.hook_out",),
    "ln2": ("ln2.hook_out",),
    "ln3": ("ln3.hook_out",),
    "q": ("{A}.hook_q", "{A}.q.hook_out"),
    "k": ("{A}.hook_k", "{A}.k.hook_out"),
    "v": ("{A}.hook_v", "{A}.v.hook_out"),
    "scores": ("{A}.hook_attn_scores",),
    "pattern": ("{A}.hook_pattern",),
    "z": ("{A}.hook_z", "{A}.o.hook_in"),
    "attn_out": ("hook_attn_out", "{A}.hook_out"),
    "resid_mid": ("hook_resid_mid",),
    "mlp_pre": ("mlp.hook_pre", "mlp.in.hook_out"),
    "mlp_post": ("mlp.hook_post", "mlp.out.hook_in"),
    "mlp_out": ("hook_mlp_out", "mlp.hook_out"),
    "resid_post": ("hook_resid_post", "hook_out"),
}
_CROSS: dict[str, tuple[str, ...]] = {
    **{part: names for part, names in _IN_BLOCK.items() if names[0].startswith("{A}")},
    "attn_out": ("hook_cross_attn_out", "{A}.hook_out"),
    "resid_mid": ("hook_resid_mid2",),
}
#: Where nothing depends on what kind of attention a block has.
_WITHOUT_ATTENTION = {"resid_pre", "resid_post", "mlp_pre", "mlp_post", "mlp_out"}
_UNLAYERED = {
    "embed": ("hook_{S}embed", "{S}embed.hook_out"),
    "ln_final": ("{S}ln_final.hook_out",),
    "logits": ("{S}unembed.hook_out",),
}


@dataclass(frozen=True, eq=False)
class HookSite:
    """One activation of one model: an address, the hook point behind it, and how to edit it."""

    part: str
    layer: int | None
    stack: str
    attn: str | None
    name: str
    hook: HookPoint
    write: Literal["return", "in place", "refused"] = "return"
    why_not: str = ""
    n_heads: int | None = None
    head: int | None = None
    needs_seam: bool = False
    scores_hook: HookPoint | None = None

    def __str__(self) -> str:
        words = [self.stack, None if self.layer is None else str(self.layer)]
        words += [self.attn, self.part]
        address = ".".join(word for word in words if word)
        return address if self.head is None else f"{address}:{self.head}"

    @property
    def head_axis(self) -> int:
        """The axis of heads in the tensor that the hook sees."""
        return PART_AXES[self.part].index("head")

    def narrow(self, tensor: Tensor) -> Tensor:
        """The part of ``tensor`` that this site means: the whole, or one head's slice."""
        return tensor if self.head is None else tensor.select(self.head_axis, self.head)


class HookPoints(dict[str, HookPoint]):
    """Every hook point of a model by name, TransformerLens's aliases included; not to be changed.

    Of a bridge they are kept with what TransformerLens finds them from, since every attachment
    asks for them, and compared with that: all names anew would take as long as a layer.
    """

    def __init__(self, hooks: dict[str, HookPoint], found_from: tuple[Any, ...]) -> None:
        super().__init__(hooks)
        self.found_from = found_from

    @functools.cached_property
    def blocks(self) -> "dict[tuple[str, int], _Block]":
        """By stack and layer, in their order."""
        return _blocks_of(tuple(self))


def hook_points(model: nn.Module) -> HookPoints:
    """The hook points of ``model``."""
    registry, aliases = (getattr(model, name, None) for name in ("_hook_registry", "hook_aliases"))
    source = registry, aliases, alias_generation()
    kept = model.__dict__.get("_probekit_hook_points")
    if kept is not None and kept.found_from == source:
        return kept
    hooks = getattr(model, "hook_dict", None)
    if not isinstance(hooks, dict) or not hooks:
        named = model.named_modules()
        hooks = {name: module for name, module in named if isinstance(module, HookPoint)}
    found = HookPoints(hooks, (copy.copy(registry), copy.copy(aliases), alias_generation()))
    if registry:
        model.__dict__["_probekit_hook_points"] = found
    return found


def find_sites(model: nn.Module, hooks: HookPoints, part: str | None = None) -> Iterator[HookSite]:
    """Every site of ``model``, or those of one part, in the order of the forward pass.

    Args:
        hooks: its :func:`hook_points`.
    """
    n_heads = getattr(getattr(model, "cfg", None), "n_heads", None)
    blocks = hooks.blocks
    served = functools.cache(lambda: seam.serves(model))  # looks at every module
    stacks = list(dict.fromkeys(stack for stack, _ in blocks))
    wanted = [each for each in PART_AXES if part in (None, each)]
    if "embed" in wanted:
        yield from _unlayered(hooks, stacks, "embed")
    for (stack, layer), block in blocks.items():
        yield from _block_sites(model, hooks, block, stack, layer, n_heads, wanted, served)
    for each in ("ln_final", "logits"):
        if each in wanted:
            yield from _unlayered(hooks, stacks, each)


@dataclass(frozen=True)
class _Block:
    """Hook names of one block by what they are called within it, and its attentions.

    Of an attention: "self" or "cross" where there are both, its module, and names by part.
    """

    names: dict[str, str]

    @functools.cached_property
    def attentions(self) -> list[tuple[str | None, str, dict[str, tuple[str, ...]]]]:
        modules = {rest.partition(".")[0] for rest in self.names if "." in rest}
        has_cross = "cross_attn" in modules
        own = "self_attn" if "self_attn" in modules else "attn"
        cross = [("cross", "cross_attn", _CROSS)] if has_cross else []
        return [("self" if has_cross else None, own, _IN_BLOCK), *cross]


@functools.lru_cache(maxsize=16)  # a model has hundreds of names, and every attachment asks
def _blocks_of(names: tuple[str, ...]) -> dict[tuple[str, int], _Block]:
    """By stack and layer, in their order."""
    blocks: dict[tuple[str, int], _Block] = {}
    for name in names:
        match = _BLOCK.match(name) or _LEGACY.match(name)
        if match:
            key = (match["stack"] or "", int(match["layer"]))
            blocks.setdefault(key, _Block({})).names[match["rest"]] = name
    stacks = list(dict.fromkeys(stack for stack, _ in blocks))
    return dict(sorted(blocks.items(), key=lambda each: (stacks.index(each[0][0]), each[0][1])))


def _unlayered(hooks: dict[str, HookPoint], stacks: list[str], part: str) -> Iterator[HookSite]:
    own = [stack for stack in stacks if stack and _first(hooks, part, f"{stack}_")]
    for stack in own or [""]:
        name = _first(hooks, part, f"{stack}_" if stack else "")
        if name:
            yield HookSite(part, None, stack, None, name, hooks[name])


def _first(hooks: dict[str, HookPoint], part: str, prefix: str) -> str | None:
    candidates = (template.format(S=prefix) for template in _UNLAYERED[part])
    return next((name for name in candidates if name in hooks), None)


def _block_sites(
    model: nn.Module,
    hooks: dict[str, HookPoint],
    block: _Block,
    stack: str,
    layer: int,
    n_heads: int | None,
    parts: list[str],
    served: Callable[[], bool],
) -> Iterator[HookSite]:
    names = block.names
    for attn, module_name, table in block.attentions:
        wanted = [part for part in table if part in parts]
        needed = not _WITHOUT_ATTENTION.issuperset(wanted)
        module = _attention_module(model, names, module_name) if needed else None
        for part in wanted:
            rests = [template.format(A=module_name) for template in table[part]]
            if part in ("attn_out", "resid_mid") and _norm_inside(model, names, module):
                rests = [f"{module_name}.o.hook_out" if part == "attn_out" else "ln1.hook_out"]
            rest = next((rest for rest in rests if rest in names), None)
            if rest is None:
                continue
            hook = hooks[names[rest]]
            here = HookSite(
                part,
                layer,
                stack,
                attn if part in _CROSS else None,
                names[rest],
                hook,
                n_heads=_heads(hook, hooks.get(names.get(f"{module_name}.o.hook_in", "")), n_heads)
                if "head" in PART_AXES[part]
                else None,
                scores_hook=_live_scores(module),
            )
            yield _judge(here, module, hooks, names, served)


def _judge(
    here: HookSite,
    module: nn.Module | None,
    hooks: dict[str, HookPoint],
    names: dict[str, str],
    served: Callable[[], bool],
) -> HookSite:
    """Decide how an edit at this site takes effect."""
    if here.part == "resid_mid" and here.hook is hooks.get(names.get("ln2.hook_in", "")):
        return replace(here, write="in place")
    if here.part not in ("scores", "pattern") or not isinstance(module, AttentionBridge):
        return here
    if seam.delegating(module):
        if served():
            return replace(here, needs_seam=True)
        return replace(
            here,
            write="refused",
            why_not="this architecture's attention runs inside Hugging Face, which calls no "
            "function of others for it, and the hook fires afterwards (that of scores on the "
            "pattern); edit q, k or z",
        )
    if here.part == "scores" and type(module).forward is AttentionBridge.forward:
        return replace(
            here,
            write="refused",
            why_not="the hook fires after the softmax and holds the pattern; edit 'pattern' "
            "instead, or load the model with pk.load, whose attention has live scores",
        )
    return here  # TransformerLens computes the attention, and calls the hook inside


def _attention_module(
    model: nn.Module, names: dict[str, str], module_name: str
) -> nn.Module | None:
    name = names.get(f"{module_name}.hook_pattern")
    return None if name is None else model.get_submodule(name.removesuffix(".hook_pattern"))


def _live_scores(attn: nn.Module | None) -> HookPoint | None:
    """The score hook of an attention that computes itself, and so fires it before the softmax."""
    if isinstance(attn, AttentionBridge) and type(attn).forward is AttentionBridge.forward:
        return None
    return getattr(attn, "hook_attn_scores", None)


def _norm_inside(model: nn.Module, names: dict[str, str], attn: nn.Module | None) -> bool:
    """Whether the block is post-norm: its first norm closes the attention module (BERT)."""
    if attn is None or "ln1.hook_out" not in names or not hasattr(attn, "original_component"):
        return False
    norm = model.get_submodule(names["ln1.hook_out"].removesuffix(".hook_out"))
    inside = attn.original_component
    return isinstance(inside, nn.Module) and any(norm is module for module in inside.modules())


def _heads(hook: HookPoint, z_hook: HookPoint | None, default: int | None) -> int | None:
    """The number of heads, from the reshape that the hook or z carries (towers, GQA differ)."""
    for reshape in (hook.hook_conversion, getattr(z_hook, "hook_conversion", None)):
        if hasattr(reshape, "n_heads"):
            return reshape.n_heads  # type: ignore[union-attr]
    return default
