"""Components that nobody hears are out of Hugging Face's model for the length of a forward.

A component is a child of one of Hugging Face's modules, in the place of the module that it wraps.
While a bridge's forward runs, the modules that silent components wrap are back in their places, and
nothing at all stands between Hugging Face's own. Afterwards the components are there again; as soon
as somebody begins to listen, too, be it in the middle of a forward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from ..ledger import Ledger
from .silent import Silent
from .watched import OF_ALL_MODULES

_KEPT = "aside"
_Children = dict[str, nn.Module | None]


@dataclass(frozen=True, eq=False)
class _Place:
    """Where Hugging Face's model calls a component: among which children, by what name."""

    children: _Children
    name: str
    component: Silent

    @property
    def wrapped(self) -> nn.Module | None:
        return self.component._modules["_original_component"]

    def leave(self) -> None:
        if self.children.get(self.name) is self.component:
            self.children[self.name] = self.wrapped

    def come_back(self) -> None:
        if self.children.get(self.name) is self.wrapped:
            self.children[self.name] = self.component


class _Aside:
    """The components of one bridge that can step aside."""

    def __init__(self, bridge: nn.Module) -> None:
        self._lock = RLock()  # a hook that another thread adds comes before or after a look
        self._silent: dict[_Place, None] = {}
        #: Where somebody may have begun to listen: looked at again by the next forward.
        self._heard = dict.fromkeys(_places(bridge.original_model))
        told: dict[nn.Module, Ledger] = {}
        for place in self._heard:
            for point in place.component.points:
                told.setdefault(point, Ledger()).append(partial(self._begin_to_listen, place))
        for point, listeners in told.items():
            point.__dict__["_told"] = listeners

    def leave(self) -> None:
        """Put back the modules that are wrapped by components to which nobody listens."""
        with self._lock:
            for place in [each for each in self._heard if each.component.may_step_aside()]:
                self._silent[place] = self._heard.pop(place)
            for place in self._silent:
                place.leave()

    def come_back(self) -> None:
        with self._lock:
            for place in self._silent:
                place.come_back()

    def _begin_to_listen(self, place: _Place) -> None:
        with self._lock:
            self._silent.pop(place, None)
            self._heard[place] = None
            place.come_back()


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


def _places(model: Any) -> Iterator[_Place]:
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
            # A list of blocks is the bridge's own too.
            if isinstance(child, Silent) and child.points and not isinstance(module, nn.ModuleList):
                yield _Place(module._modules, name, child)
