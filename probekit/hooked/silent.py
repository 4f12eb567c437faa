"""Components of a bridge that are stepped over while nobody listens to them.

A bridge component calls its hook points around the Hugging Face module that it wraps, also where
they carry no hook and so change nothing: on a small input that is a fifth of MiniLM's forward.
The classes here look for hooks first, at each call, and call the wrapped module where there are
none. Only TransformerLens's plain components are served, whose forward is then that module's.
"""

import inspect
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import generalized_components as lens
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from .. import seam

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_EARS = "_probekit_ears"


class _Silent(GeneralizedComponent):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped module's answer; the component's where somebody listens."""
        if any(self.__dict__[_EARS]) or not self._plain(args, kwargs):
            return super().__call__(*args, **kwargs)
        return self._modules["_original_component"](*args, **kwargs)  # type: ignore[misc]

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the component would hand this call on as it is."""
        return True


class LinearBridge(_Silent, lens.LinearBridge):
    pass


class Conv1DBridge(_Silent, lens.Conv1DBridge):
    pass


class MLPBridge(_Silent, lens.MLPBridge):
    pass


class AttentionBridge(_Silent, lens.AttentionBridge):
    pass


class EmbeddingBridge(_Silent, lens.EmbeddingBridge):
    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        plain = isinstance(self.original_component, nn.Embedding)
        return plain and len(args) == 1 and not kwargs and self._output_contribution_scale == 1


class NormalizationBridge(_Silent, lens.NormalizationBridge):
    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        # Other norms, and this one under autocast, may answer in another precision than asked.
        inside = self.original_component
        mixed = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        own = self.use_native_layernorm_autograd and isinstance(inside, nn.LayerNorm)
        return own and not (kwargs or mixed)


class BlockBridge(_Silent, lens.BlockBridge):
    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        # A block by itself answers a tuple; one layer may be told to start or to stop the forward.
        limits = self.__dict__.get("_stop_at_layer_idx"), self.__dict__.get("_start_at_layer_idx")
        alone = len(args) + len(kwargs) == 1
        return limits == (None, None) and not (alone or self._capture_hooks_wired)

    def _filter_kwargs_for_forward(
        self, kwargs: dict[str, Any], num_positional_args: int = 0
    ) -> dict[str, Any]:
        return kwargs  # as for any module that takes all; asking for its signature takes long

    def _maybe_wire_capture_hooks(self) -> None:
        """Once wired, the block has to clear what they capture, at every call."""
        if self._read_use_hook_mlp_in():
            super()._maybe_wire_capture_hooks()


_CLASSES: dict[type, Any] = {
    lens.LinearBridge: LinearBridge,
    lens.Conv1DBridge: Conv1DBridge,
    lens.MLPBridge: MLPBridge,
    lens.AttentionBridge: AttentionBridge,
    lens.EmbeddingBridge: EmbeddingBridge,
    lens.NormalizationBridge: NormalizationBridge,
    lens.BlockBridge: BlockBridge,
}


def silence(bridge: nn.Module) -> None:
    """Let the components of ``bridge`` be stepped over where they carry no hook."""
    modules: list[Any] = list(bridge.modules())
    ears = {point: _ears(point) for point in modules if isinstance(point, HookPoint)}
    for module in modules:
        if getattr(module, "_placeholder_hooks_wired", False):
            _pass_on(module, "in", "hook_in", ears)
            _pass_on(module, "out", "hook_out", ears)
    for module in modules:
        if isinstance(module, lens.NormalizationBridge):
            module.__dict__["_hf_autograd_forward_with_hooks"] = MethodType(_norm, module)
        if type(module) in _CLASSES and _served(module):
            heard = [ears[point] for point in _points(module)]
            module.__dict__[_EARS] = sum(heard, _ears(module))
            module.__class__ = _CLASSES[type(module)]


def _points(module: Any) -> list[HookPoint]:
    """The hook points that a component calls itself."""
    points = [child for child in module.children() if isinstance(child, HookPoint)]
    if isinstance(module, lens.MLPBridge):  # where Hugging Face's does not call its projections
        parts = ("in", "hook_in"), ("input", "hook_in"), ("out", "hook_out")
        own = module._modules
        points += [getattr(own[part], name) for part, name in parts if hasattr(own.get(part), name)]
    return points


def _pass_on(placeholder: Any, part: str, name: str, ears: dict[HookPoint, list[Any]]) -> None:
    """A placeholder's hook point is called by a hook at one of its parts: that one hook counts as
    heard where the placeholder is."""
    if part in placeholder.submodules:
        here, there = getattr(placeholder.submodules[part], name), getattr(placeholder, name)
        ears[here] = [_Further(here._forward_hooks), *_ears(here)[1:], *_ears(there)]


@dataclass(frozen=True)
class _Further:
    hooks: dict[int, Any]

    def __bool__(self) -> bool:
        return len(self.hooks) > 1


def _served(module: Any) -> bool:
    """Whether a component without hooks does what the module that it wraps does."""
    inside = module._modules.get("_original_component")
    if inside is None or module.name is None:
        return False
    if isinstance(module, lens.AttentionBridge):
        return seam.delegating(module) and not module.requires_relative_position_bias
    if isinstance(module, lens.BlockBridge):
        parameters = inspect.signature(inside.forward).parameters.values()
        everything = any(each.kind is each.VAR_KEYWORD for each in parameters)
        return everything and _is_delegating(module.submodules.get("attn"))
    return True


def _is_delegating(attn: nn.Module | None) -> bool:
    """TransformerLens's own attention may ask its block for the residual before the norm."""
    return attn is not None and seam.delegating(attn)


def _norm(self: lens.NormalizationBridge, x: Tensor) -> Tensor:
    """A wrapped norm by itself, unless somebody listens to what is inside it.

    TransformerLens computes the scale and the normalised values also where only the norm's input
    or output is heard: on MiniLM that is a twentieth of a forward.
    """
    if any(_ears(self.hook_scale) + _ears(self.hook_normalized)):
        return type(self)._hf_autograd_forward_with_hooks(self, x)
    assert self.original_component is not None
    return self.original_component(x).to(x.dtype)


def _ears(module: nn.Module) -> list[Any]:
    """Where hooks of a module are kept; empty where there are none."""
    return [module.__dict__[name] for name in _HOOKS]
