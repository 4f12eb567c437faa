"""Components of a bridge that are stepped over while nobody listens to them.

A bridge component calls its hook points around the Hugging Face module that it wraps, also where
they carry no hook and so change nothing: on a small input that is a fifth of MiniLM's forward.
The classes here look for hooks first, at each call, and call the wrapped module where there are
none. Only TransformerLens's plain components are served, which then give what that module gives.

A forward asks hundreds of hook points, and after a layer's weights none of them is in the
processor's cache: reaching them takes longer than asking. So a component holds the very dicts that
PyTorch keeps hooks in. Where one is replaced the bridge is stale: from then on all components run.
"""

import inspect
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.modules import module as torch_module
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import generalized_components as lens
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformers import PreTrainedModel

from .. import seam

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_hooks_of = attrgetter(*_HOOKS)
#: Flags that give queries, keys and values the residual itself as inputs of their own.
_FORKS = ("use_attn_in", "use_split_qkv_input")
_OF_ALL_MODULES = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


class _Watched(nn.Module):
    """Marks its bridge as stale when it gets other dicts of hooks, or another hook point."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _HOOKS or isinstance(value, HookPoint):
            self.__dict__.get("_stale", []).append(True)


class _HookPoint(_Watched, HookPoint):
    pass


class _Silent(_Watched, GeneralizedComponent):
    #: What is empty while nobody listens: the dicts of hooks of this component and of its hook
    #: points, but for those in :attr:`_relaying` and that of a block's answer; and the list that is
    #: not once the bridge is stale.
    _listeners: tuple[Any, ...] = (True,)  # until :func:`silence` has looked
    #: Dicts with one hook, TransformerLens's own, and its key.
    _relaying: tuple[tuple[dict[int, Any], int], ...] = ()
    #: Whether the component would hand a call on as it is; None where it always does.
    _plain: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped module's answer; the component's where somebody listens."""
        if (
            any(self._listeners)
            or any(_OF_ALL_MODULES)
            or is_compiling()  # what is compiled would not ask again
            or (self._relaying and self._relays_to_another())
            or (self._plain and not self._plain(args, kwargs))
        ):
            return super().__call__(*args, **kwargs)
        return self._modules["_original_component"](*args, **kwargs)  # type: ignore[misc]

    def _relays_to_another(self) -> bool:
        return any(hooks and (len(hooks) > 1 or key not in hooks) for hooks, key in self._relaying)


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
        # Another class may answer in float32.
        plain = type(self._modules["_original_component"]) is nn.Embedding
        return plain and len(args) == 1 and not kwargs and self._output_contribution_scale == 1


class _Norm(_Silent):
    #: Whether the norm is Hugging Face's: TransformerLens computes some of these anew (GPT-2's),
    #: which gives other bits and takes thrice the time.
    _foreign = False

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        # Other norms, and this one under autocast, may answer in another precision than asked.
        norm = self._modules["_original_component"]
        return (
            type(norm) is nn.LayerNorm
            and (self.use_native_layernorm_autograd or self._may_compute(norm))
            and len(args) == 1
            and not kwargs
            and not torch.is_autocast_enabled(args[0].device.type)
        )

    def _hf_autograd_forward_with_hooks(self, x: Tensor) -> Tensor:
        """The norm by itself, unless somebody listens to what is inside it.

        TransformerLens computes the scale and the normalised values also where only the norm's
        input or output is heard: on MiniLM that is a twentieth of a forward.
        """
        if self._inside_is_heard():
            return super()._hf_autograd_forward_with_hooks(x)  # type: ignore[misc]
        return self._original(x)

    def _python_norm_forward(self, hidden_states: Tensor) -> Tensor:
        norm = self._modules["_original_component"]
        if not self._may_compute(norm) or self._inside_is_heard():
            return super()._python_norm_forward(hidden_states)  # type: ignore[misc]
        return self._original(hidden_states)

    def _may_compute(self, norm: Any) -> bool:
        """Whether the norm may compute itself where TransformerLens does not call it.

        Hooks on it are not heard there, and must not be heard just because nobody listens inside.
        """
        own = type(norm) is nn.LayerNorm and "forward" not in norm.__dict__
        return self._foreign and own and not any(_hooks_of(norm))

    def _inside_is_heard(self) -> bool:
        inside = (*_hooks_of(self.hook_scale), *_hooks_of(self.hook_normalized))
        return any(inside) or any(_OF_ALL_MODULES)

    def _original(self, x: Tensor) -> Tensor:
        assert self.original_component is not None
        return self.original_component(x).to(x.dtype)


class NormalizationBridge(_Norm, lens.NormalizationBridge):
    pass


class RMSNormalizationBridge(_Norm, lens.RMSNormalizationBridge):
    pass


class BlockBridge(_Silent, lens.BlockBridge):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A block whose answer alone is heard needs nothing of what TransformerLens does before."""
        heard = any(self._listeners) or any(_OF_ALL_MODULES) or is_compiling()
        if heard or not self._plain(args, kwargs):
            return super(_Silent, self).__call__(*args, **kwargs)
        answer = self._modules["_original_component"](*args, **kwargs)  # type: ignore[misc]
        # Asked afterwards: who begins to listen while a block runs hears its answer.
        listening = self._modules["hook_out"]._forward_hooks  # type: ignore[union-attr]
        return self._apply_output_hook(answer) if listening else answer

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        # A block by itself answers a tuple; one layer may be told to start or to stop the forward.
        limits = self.__dict__.get("_stop_at_layer_idx"), self.__dict__.get("_start_at_layer_idx")
        alone = len(args) + len(kwargs) == 1
        captures = self._capture_hooks_wired or self._captures()
        return limits == (None, None) and not (alone or captures)

    def _captures(self) -> bool:
        """Whether a flag asks for what a block keeps: the residuals that its norms are given."""
        config = self.submodules["attn"].config
        forked = any(getattr(config, flag, False) for flag in _FORKS)
        return forked or self._read_use_hook_mlp_in()

    def _filter_kwargs_for_forward(
        self, kwargs: dict[str, Any], num_positional_args: int = 0
    ) -> dict[str, Any]:
        return kwargs  # as for any module that takes all; asking for its signature takes long

    def _maybe_wire_capture_hooks(self) -> None:
        """Once wired, the block has to clear what they capture, at every call."""
        if self._captures():
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
    stale: list[bool] = []
    foreign = isinstance(getattr(bridge, "original_model", None), PreTrainedModel)
    for module in modules:
        if type(module) in _CLASSES and _served(module):
            points = _points(module)
            relaying = [point for point in points if point in mirrors]
            own = [(point._forward_hooks, next(iter(point._forward_hooks))) for point in relaying]
            elsewhere = {id(hooks) for hooks, _ in own}
            if isinstance(module, lens.BlockBridge):
                elsewhere.add(id(module.hook_out._forward_hooks))
            # TransformerLens's own hook is heard where the placeholder is.
            points += [mirrors[point] for point in relaying]
            dicts = [hooks for each in (module, *points) for hooks in _hooks_of(each)]
            dicts = [hooks for hooks in dicts if id(hooks) not in elsewhere]
            module.__dict__["_listeners"] = (*dicts, stale)
            module.__dict__["_relaying"] = tuple(own)
            if isinstance(module, lens.NormalizationBridge):
                module.__dict__["_foreign"] = foreign
            _watch(module, stale, _CLASSES[type(module)])
            for point in points:
                _watch(point, stale, _HookPoint)


def _watch(module: nn.Module, stale: list[bool], kind: Any) -> None:
    module.__dict__["_stale"] = stale
    module.__class__ = kind


def _points(module: Any) -> list[HookPoint]:
    """The hook points that a component calls itself."""
    points = [child for child in module.children() if isinstance(child, HookPoint)]
    if isinstance(module, lens.MLPBridge):  # where Hugging Face's does not call its projections
        parts = ("in", "hook_in"), ("input", "hook_in"), ("out", "hook_out")
        own = module._modules
        points += [getattr(own[part], name) for part, name in parts if hasattr(own.get(part), name)]
    return points


def _served(module: Any) -> bool:
    """Whether a component without hooks gives what the module that it wraps gives."""
    inside = module._modules.get("_original_component")
    if inside is None or module.name is None:
        return False
    if isinstance(module, lens.AttentionBridge):
        return seam.delegating(module) and not module.requires_relative_position_bias
    if isinstance(module, lens.BlockBridge):
        parameters = inspect.signature(inside.forward).parameters.values()
        everything = any(each.kind is each.VAR_KEYWORD for each in parameters)
        return everything and isinstance(module.submodules.get("attn"), lens.AttentionBridge)
    return True
