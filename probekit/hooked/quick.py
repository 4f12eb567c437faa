"""Components of a bridge at about the price of what they wrap, while nobody listens to them.

At every call of a component TransformerLens asks Accelerate whether weights are offloaded, reads
signatures, and passes input and output through hook points whether these have hooks or not. On
MiniLM with small batches that is a tenth of a forward. Here a component's class is replaced by a
subclass of the same name that leaves out what has no effect then, and calls TransformerLens's own
code wherever it has one: with a hook, with offloaded weights, under global hooks of torch.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from transformer_lens.model_bridge.generalized_components import (
    BlockBridge,
    LinearBridge,
    NormalizationBridge,
)
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent


def quicken(bridge: nn.Module) -> None:
    """Make every component of ``bridge`` quick; only methods differ, so the class may change."""
    for module in bridge.modules():
        if isinstance(module, GeneralizedComponent):
            object.__setattr__(module, "__class__", _quick(type(module)))


@cache
def _quick(cls: type[GeneralizedComponent]) -> type[GeneralizedComponent]:
    if cls.__call__ is not GeneralizedComponent.__call__:
        return cls  # quick already, or with a way of its own
    methods: dict[str, Any] = {"__module__": cls.__module__, "__call__": _call}
    if cls.forward is LinearBridge.forward:
        methods["__call__"] = _call_linear
    if cls.forward is NormalizationBridge.forward:
        methods["__call__"] = _call_norm
    if issubclass(cls, NormalizationBridge):
        methods["_hf_autograd_forward_with_hooks"] = _norm
    if issubclass(cls, BlockBridge):
        methods["_filter_kwargs_for_forward"] = _filter_kwargs
    return type(cls.__name__, (cls,), methods)  # type: ignore[return-value]


def _call(self: GeneralizedComponent, *args: Any, **kwargs: Any) -> Any:
    if _offloaded(self):
        return GeneralizedComponent.__call__(self, *args, **kwargs)
    return nn.Module.__call__(self, *args, **kwargs)


def _call_linear(self: LinearBridge, *args: Any, **kwargs: Any) -> Any:
    if _offloaded(self) or not _unheard(self, "hook_in", "hook_out"):
        return _call(self, *args, **kwargs)
    # What its forward tells the component around it.
    self.__dict__.update(_suppress_next_hook_in=False, _fired_hook_out=True)
    return self._modules["_original_component"](*args, **kwargs)  # type: ignore[misc]


def _call_norm(self: NormalizationBridge, *args: Any, **kwargs: Any) -> Any:
    names = ("hook_in", "hook_scale", "hook_normalized", "hook_out")
    own = self.use_native_layernorm_autograd or getattr(self.config, "layer_norm_folding", False)
    if kwargs or not own or _offloaded(self) or not _unheard(self, *names):
        return _call(self, *args, **kwargs)
    return _wrapped(self, *args)


def _norm(self: NormalizationBridge, x: Tensor) -> Tensor:
    """A wrapped norm by itself, unless somebody listens to what is inside it.

    TransformerLens computes the scale and the normalised values at every call, heard or not.
    """
    if not _unheard(self, "hook_scale", "hook_normalized"):
        return NormalizationBridge._hf_autograd_forward_with_hooks(self, x)
    return _wrapped(self, x)


def _wrapped(self: NormalizationBridge, x: Tensor) -> Tensor:
    return self._modules["_original_component"](x).to(x.dtype)  # type: ignore[misc]


def _filter_kwargs(
    self: BlockBridge, kwargs: dict[str, Any], num_positional_args: int = 0
) -> dict[str, Any]:
    forward = getattr(self.original_component, "forward", None)
    if _takes_everything(getattr(forward, "__func__", forward)):
        return kwargs
    return BlockBridge._filter_kwargs_for_forward(self, kwargs, num_positional_args)


@cache
def _takes_everything(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _offloaded(component: GeneralizedComponent) -> bool:
    """Whether there is nothing wrapped, or Accelerate has put a hook of its own on it."""
    original = component._modules.get("_original_component")
    return original is None or "_hf_hook" in original.__dict__


def _unheard(component: GeneralizedComponent, *hooks: str) -> bool:
    """Whether neither the component nor these of its hook points has any hook of torch."""
    if torch_module._has_any_global_hook():
        return False
    for point in (component, *map(component._modules.get, hooks)):
        if (
            point is None
            or point._forward_hooks
            or point._forward_pre_hooks
            or point._backward_hooks
            or point._backward_pre_hooks
        ):
            return False
    return True
