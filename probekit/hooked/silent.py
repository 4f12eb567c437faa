"""Components of a bridge that are stepped over while nobody listens to them.

A bridge component calls its hook points around the Hugging Face module that it wraps, also where
they carry no hook and so change nothing: on a small input that is a fifth of MiniLM's forward.
The classes here look for hooks first, at each call, and call the wrapped module where there are
none. Only TransformerLens's plain components are served, whose forward is then that module's.

A forward asks hundreds of hook points, and after a layer's weights none of them is in the
processor's cache: reaching them takes longer than asking. So a component holds the very dicts that
PyTorch keeps hooks in. Where one is replaced the bridge is stale: from then on all components run.

In a bridge's own forward most of them are not even called: see :mod:`probekit.hooked.aside`.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import generalized_components as lens
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from .. import seam
from .watched import OF_ALL_MODULES, Watched, WatchedHookPoint, hooks_of


class Silent(Watched, GeneralizedComponent):
    #: What is empty while nobody listens: the dicts of hooks of this component and of its hook
    #: points, but for those in :attr:`_relaying` and :attr:`_inside` and that of a block's answer;
    #: and the list that is not once the bridge is stale.
    _listeners: tuple[Any, ...] = (True,)  # until :func:`silence` has looked
    #: Dicts with one hook, TransformerLens's own, and its key.
    _relaying: tuple[tuple[dict[int, Any], int], ...] = ()
    #: Whether the component would hand a call on as it is; None where it always does.
    _plain: Any = None
    #: Dicts of hooks that the seam calls within the wrapped module.
    _inside: tuple[Any, ...] = ()
    #: What the hooks in :attr:`_listeners` are put on.
    points: tuple[Any, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped module's answer; the component's where somebody listens."""
        if (
            any(self._listeners)
            or any(OF_ALL_MODULES)
            or is_compiling()  # what is compiled would not ask again
            or (self._relaying and self._relays_to_another())
            or (self._plain and not self._plain(args, kwargs))
        ):
            return super().__call__(*args, **kwargs)
        return self._modules["_original_component"](*args, **kwargs)  # type: ignore[misc]

    def _relays_to_another(self) -> bool:
        return any(hooks and (len(hooks) > 1 or key not in hooks) for hooks, key in self._relaying)

    def _is_plain(self) -> bool:
        """Whether the wrapped module answers any call of Hugging Face's as the component does."""
        return True

    def may_step_aside(self) -> bool:
        """Whether nobody listens, and no call of Hugging Face's needs the component."""
        heard = any(self._listeners) or any(self._inside) or self._relays_to_another()
        return self._is_plain() and not heard


class LinearBridge(Silent, lens.LinearBridge):
    pass


class Conv1DBridge(Silent, lens.Conv1DBridge):
    pass


class MLPBridge(Silent, lens.MLPBridge):
    pass


class AttentionBridge(Silent, lens.AttentionBridge):
    #: The modules that ask Hugging Face's interface for attention.
    _asking: tuple[nn.Module, ...] = ()

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        # Elsewhere than on the seam TransformerLens fires these hooks, after the fact.
        seamed = bool(self._asking) and all(map(seam.routes, self._asking))
        return seamed or not any(self._inside)


class EmbeddingBridge(Silent, lens.EmbeddingBridge):
    def _is_plain(self) -> bool:
        # Another class may answer in float32.
        plain = type(self._modules["_original_component"]) is nn.Embedding
        return plain and self._output_contribution_scale == 1

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return self._is_plain() and len(args) == 1 and not kwargs


class _Norm(Silent):
    def _is_plain(self) -> bool:
        # Other norms, and this one under autocast, may answer in another precision than asked.
        plain = type(self._modules["_original_component"]) is nn.LayerNorm
        return plain and self.use_native_layernorm_autograd

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        alone = self._is_plain() and len(args) == 1 and not kwargs
        return alone and not torch.is_autocast_enabled(args[0].device.type)

    def _hf_autograd_forward_with_hooks(self, x: Tensor) -> Tensor:
        """The norm by itself, unless somebody listens to what is inside it.

        TransformerLens computes the scale and the normalised values also where only the norm's
        input or output is heard: on MiniLM that is a twentieth of a forward.
        """
        inside = (*hooks_of(self.hook_scale), *hooks_of(self.hook_normalized))
        if any(inside) or any(OF_ALL_MODULES):
            return super()._hf_autograd_forward_with_hooks(x)  # type: ignore[misc]
        assert self.original_component is not None
        return self.original_component(x).to(x.dtype)


class NormalizationBridge(_Norm, lens.NormalizationBridge):
    pass


class RMSNormalizationBridge(_Norm, lens.RMSNormalizationBridge):
    pass


class BlockBridge(Silent, lens.BlockBridge):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A block whose answer alone is heard needs nothing of what TransformerLens does before."""
        heard = self._modules["hook_out"]._forward_hooks  # type: ignore[union-attr]
        alone = heard and not (any(self._listeners) or any(OF_ALL_MODULES) or is_compiling())
        if not alone or not self._plain(args, kwargs):
            return super().__call__(*args, **kwargs)
        answer = self._modules["_original_component"](*args, **kwargs)  # type: ignore[misc]
        return self._apply_output_hook(answer)

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        # A block by itself answers a tuple; one layer may be told to start or to stop the forward.
        own = self.__dict__
        return not (
            len(args) + len(kwargs) == 1
            or own.get("_stop_at_layer_idx") is not None
            or own.get("_start_at_layer_idx") is not None
            or own["_capture_hooks_wired"]
            or self._read_use_hook_mlp_in()
        )

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
    stale: list[bool] = []
    for module in modules:
        if type(module) in _CLASSES and _served(module):
            points = _points(module)
            relaying = [point for point in points if point in mirrors]
            own = [(point._forward_hooks, next(iter(point._forward_hooks))) for point in relaying]
            elsewhere = {id(hooks) for hooks, _ in own}
            if isinstance(module, lens.BlockBridge):
                elsewhere.add(id(module.hook_out._forward_hooks))
            if isinstance(module, lens.AttentionBridge):
                taps = module.hook_attn_scores, module.hook_pattern
                module.__dict__["_inside"] = tuple(each for tap in taps for each in hooks_of(tap))
                module.__dict__["_asking"] = tuple(seam.asking(module))
                elsewhere |= set(map(id, module._inside))
            # TransformerLens's own hook is heard where the placeholder is.
            points += [mirrors[point] for point in relaying]
            heard = (module, *points)
            dicts = [hooks for each in heard for hooks in hooks_of(each)]
            dicts = [hooks for hooks in dicts if id(hooks) not in elsewhere]
            module.__dict__["_listeners"] = (*dicts, stale)
            module.__dict__["_relaying"] = tuple(own)
            module.__dict__["points"] = heard
            for each in heard:
                each.__dict__["_stale"] = stale
                each.__class__ = _CLASSES.get(type(each), WatchedHookPoint)


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
