"""Components that nobody hears are out of Hugging Face's model for the length of a forward.

A component is a child of one of Hugging Face's modules, in the place of the module that it wraps.
While a bridge's forward runs, the modules that silent components wrap are back in their places, and
nothing at all stands between Hugging Face's own. Afterwards the components are there again; as soon
as somebody begins to listen, too, be it in the middle of a forward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.compiler import is_compiling
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from ..ledger import Ledger
from .silent import BlockBridge, Silent
from .watched import OF_ALL_MODULES

_KEPT = "aside"
_Children = dict[str, nn.Module | None]


class _Place(NamedTuple):
    """Where Hugging Face's model calls a component: among which children, by what name."""

    children: _Children
    name: str
    component: Silent
    own: _Children  # the component's, of which one is the wrapped module


class _Aside:
    """The components of one bridge that can step aside."""

    def __init__(self, bridge: Any) -> None:
        self._places = list(_places(bridge.original_model))
        self._silent: list[_Place] | None = None  # not known since somebody began to listen
        self._lock = RLock()  # a hook that another thread adds comes before or after a look
        for place in self._places:
            for point in place.component.points:
                point.__dict__["_told"] = Ledger([self])

    def leave(self) -> None:
        """Put back the modules that are wrapped by components to which nobody listens."""
        with self._lock:
            if self._silent is None:
                self.come_back()
                self._silent = [each for each in self._places if each.component.may_step_aside()]
            for children, name, component, own in self._silent:
                if children.get(name) is component:
                    children[name] = own["_original_component"]

    def come_back(self) -> None:
        for children, name, component, own in self._places:
            if children.get(name) is own["_original_component"]:
                children[name] = component

    def begin_to_listen(self) -> None:
        with self._lock:
            self._silent = None
            self.come_back()


@contextmanager
def stepping_aside(bridge: nn.Module) -> Iterator[None]:
    """One forward of ``bridge`` without the components that nobody hears."""
    if is_compiling() or torch._C._get_tracing_state():  # what is traced would not look again
        yield
        return
    kept = Ledger.of(bridge, _KEPT)  # a copy of the bridge looks for its own
    if not kept:
        kept.append(_Aside(bridge))
    aside: _Aside = kept[0]
    try:
        if any(OF_ALL_MODULES) or torch._C._is_any_autocast_enabled():
            aside.come_back()  # who is around this forward may be in another one
        else:
            aside.leave()
        yield
    finally:
        aside.come_back()


def come_back(bridge: nn.Module) -> None:
    """Have all components of ``bridge`` in their places, also within a forward."""
    for aside in Ledger.of(bridge, _KEPT):
        aside.come_back()


def _places(model: nn.Module) -> Iterator[_Place]:
    """The places of components in Hugging Face's model."""
    waiting: list[Any] = [model]
    seen: set[nn.Module] = set()
    while waiting:
        module = waiting.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        if isinstance(module, GeneralizedComponent):
            waiting.append(module._modules.get("_original_component"))
            continue
        waiting.extend(module._modules.values())
        for name, child in module._modules.items():
            # What a block does depends on each call.
            if isinstance(child, Silent) and child.points and not isinstance(child, BlockBridge):
                yield _Place(module._modules, name, child, child._modules)
