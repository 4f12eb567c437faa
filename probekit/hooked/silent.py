"""Components of a bridge that are stepped over while nobody listens to them.

A bridge component calls its hook points around the Hugging Face module that it wraps, also where
they carry no hook and so change nothing: on a small input that is a fifth of MiniLM's forward.
The classes here look for hooks first, at each call, and call the wrapped module where there are
none. Only TransformerLens's plain components are served, whose forward is then that module's.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import generalized_components as lens
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from .. import seam


class _Silent(GeneralizedComponent):
    #: The hook points that are called here; of one at which TransformerLens has a hook of its own,
    #: also the key of that hook. None until :func:`silence` has looked.
    _listeners: tuple[tuple[HookPoint, int | None], ...] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped module's answer; the component's where somebody listens."""
        if self._heard() or not self._plain(args, kwargs):
            return super().__call__(*args, **kwargs)
        return self._modules["_original_component"](*args, **kwargs)  # type: ignore[misc]

    def _heard(self) -> bool:
        if self._listeners is None or _hooked(self) or _has_any_global_hook():
            return True
        return "forward" in self.__dict__ or any(_hooked(*each) for each in self._listeners)

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
        plain = type(self.original_component) is nn.Embedding  # another may answer in float32
        return plain and len(args) == 1 and not kwargs and self._output_contribution_scale == 1


class _Norm(_Silent):
    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        own = self.use_native_layernorm_autograd and type(self.original_component) is nn.LayerNorm
        # Other norms, and this one under autocast, may answer in another precision than asked.
        return (
            own
            and len(args) == 1
            and not kwargs
            and not torch.is_autocast_enabled(args[0].device.type)
        )

    def _hf_autograd_forward_with_hooks(self, x: Tensor) -> Tensor:
        """The norm by itself, unless somebody listens to what is inside it.

        TransformerLens computes the scale and the normalised values also where only the norm's
        input or output is heard: on MiniLM that is a twentieth of a forward.
        """
        if _hooked(self.hook_scale) or _hooked(self.hook_normalized):
            return super()._hf_autograd_forward_with_hooks(x)  # type: ignore[misc]
        assert self.original_component is not None
        return self.original_component(x).to(x.dtype)


class NormalizationBridge(_Norm, lens.NormalizationBridge):
    pass


class RMSNormalizationBridge(_Norm, lens.RMSNormalizationBridge):
    pass


class BlockBridge(_Silent, lens.BlockBridge):
    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        # A block by itself answers a tuple; one layer may be told to start or to stop the forward.
        limits = self.__dict__.get("_stop_at_layer_idx"), self.__dict__.get("_start_at_layer_idx")
        alone = len(args) + len(kwargs) == 1
        captures = self._capture_hooks_wired or self._read_use_hook_mlp_in()
        return limits == (None, None) and not (alone or captures)

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
    lens.RMSNormalizationBridge: RMSNormalizationBridge,
    lens.BlockBridge: BlockBridge,
}


def silence(bridge: nn.Module) -> None:
    """Let the components of ``bridge`` be stepped over where they carry no hook."""
    modules: list[Any] = list(bridge.modules())
    mirrors: dict[HookPoint, HookPoint] = {}
    for module in modules:
        if module.__dict__.get("_placeholder_hooks_wired"):
            for part, name in (("in", "hook_in"), ("out", "hook_out")):
                if part in module.submodules:
                    mirrors[getattr(module.submodules[part], name)] = getattr(module, name)
    for module in modules:
        if type(module) in _CLASSES and _served(module):
            listeners: list[tuple[HookPoint, int | None]] = []
            for point in _points(module):
                mirror = mirrors.get(point)
                if mirror is None:
                    listeners.append((point, None))
                else:  # that one hook is heard where the placeholder is
                    listeners += [(point, next(iter(point._forward_hooks))), (mirror, None)]
            module.__dict__["_listeners"] = tuple(listeners)
            module.__class__ = _CLASSES[type(module)]


def _points(module: Any) -> list[HookPoint]:
    """The hook points that a component calls itself."""
    points = [child for child in module.children() if isinstance(child, HookPoint)]
    if isinstance(module, lens.MLPBridge):  # where Hugging Face's does not call its projections
        parts = ("in", "hook_in"), ("input", "hook_in"), ("out", "hook_out")
        own = module._modules
        points += [getattr(own[part], name) for part, name in parts if hasattr(own.get(part), name)]
    return points


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


def _hooked(module: nn.Module, but: int | None = None) -> bool:
    """Whether a module carries any hook, ``but`` a forward hook of that key."""
    hooks = module._forward_hooks
    return bool(
        (hooks and (len(hooks) > 1 or but not in hooks))
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
