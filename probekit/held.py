"""Weights that the steps of optimizers leave alone.

Before each step the held numbers and their part of the optimizer's state are noted, and after it
put back. Notes lie on the model, in the order in which they were taken, and are used up newest
first: freezes may overlap, and a step that raised (Ctrl-C) is taken back by whatever comes next.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from .errors import ProbekitError
from .flags import forward_roots, let_gradient, stop_gradient
from .hooked.regions import Region
from .ledger import Ledger


class _Step:
    """What one step of ``optimizer`` must leave as it is."""

    def __init__(self, optimizer: Optimizer, held: list[tuple[Region, dict[str, Any]]]) -> None:
        self.optimizer = optimizer
        self.thread = threading.get_ident()
        self.weights = [(region, region.read(region.parameter)) for region, _ in held]
        moving = [(r, group) for r, group in held if r.parameter.grad is not None]
        # An optimizer passes over what has no gradient: its state, its counts and its decay.
        self.gradients = [(r.parameter, r.parameter.grad) for r, _ in moving if r.boxes is None]
        parts = [(r, group) for r, group in moving if r.boxes is not None]
        self.state = [
            (region, key, region.read(value))
            for region, _ in parts
            for key, value in _state_like(optimizer, region.parameter).items()
        ]
        self.decayed = [
            region
            for region, group in parts
            if group.get("weight_decay") and not _state_like(optimizer, region.parameter)
        ]

    def begin(self) -> None:
        for parameter, _ in self.gradients:
            parameter.grad = None
        for region, _ in self.weights:
            if region.parameter.grad is not None:  # set by hand, or from before the freeze
                region.zero(region.parameter.grad)
        # State is born in this step. Of a weight of zero without gradient it is what the
        # optimizer starts from; coupled decay would make it something else.
        for region in self.decayed:
            region.zero(region.parameter)

    def take_back(self) -> None:
        for region, values in self.weights:
            region.write(region.parameter, values)
        for region, key, values in self.state:
            now = _state_like(self.optimizer, region.parameter).get(key)
            if now is not None:
                region.write(now, values)
        for parameter, gradient in self.gradients:
            if parameter.grad is None and gradient is not None:
                parameter.grad = gradient.to(parameter.device, parameter.dtype)


class _Gradient:
    """A gradient that was there before the freeze: zero where it is frozen until the end."""

    def __init__(self, region: Region) -> None:
        self.parameter = region.parameter
        self.own: Any = region.parameter.grad
        with torch.inference_mode(False), torch.no_grad():
            self.shown = region.without(self.own)
        self.version = self.shown._version

    def give_back(self, gradients: Ledger) -> None:
        gradients.remove(self)
        later = next((each for each in gradients if each.own is self.shown), None)
        if later is not None:
            later.own = self.own
        elif self.parameter.grad is self.shown and self.shown._version == self.version:
            self.parameter.grad = self.own.to(self.parameter.device, self.parameter.dtype)


def settle(model: nn.Module) -> None:
    """Take back the steps that raised."""
    steps = Ledger.of(model, "steps")
    _take_back(steps, list(steps))


class _Hold:
    """What one freeze does at the steps of optimizers.

    It must not refer to the model, which would never be collected.
    """

    def __init__(self, places: list[Region], gradients: Ledger, steps: Ledger) -> None:
        self.places = {region.parameter: region for region in places}
        self.gradients, self.steps = gradients, steps
        self.noted: dict[nn.Parameter, _Gradient] = {}
        self.calls: dict[Optimizer, list[list[_Step]]] = {}

    def note_gradients(self) -> None:
        for parameter, region in self.places.items():
            if parameter.grad is not None:
                noted = self.noted[parameter] = _Gradient(region)
                self.gradients.append(noted)
                parameter.grad = noted.shown

    def give_gradients_back(self) -> None:
        for noted in self.noted.values():
            noted.give_back(self.gradients)

    def before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]) -> Any:
        own = [
            (self.places[parameter], group)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter in self.places
        ]
        if not own:
            return None
        if isinstance(optimizer, LBFGS):
            raise ProbekitError(
                "LBFGS mixes all numbers in its directions, so that FreezeWeights cannot hold some "
                "of them; take another optimizer, or give it only the parameters that train"
            )
        begun: list[_Step] = []
        self.calls.setdefault(optimizer, []).append(begun)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            begun.append(self.begin(optimizer, own))
            return None

        def held_closure() -> Any:
            while begun:
                self.finish(begun.pop())
            loss = closure()  # it may change weights, and makes gradients
            begun.append(self.begin(optimizer, own))
            return loss

        if len(args) > 1:
            return (args[0], held_closure, *args[2:]), kwargs
        return args, kwargs | {"closure": held_closure}

    def begin(self, optimizer: Optimizer, own: list[tuple[Region, dict[str, Any]]]) -> _Step:
        for region, _ in own:
            if region.parameter in self.noted:
                self.gradients.remove(self.noted.pop(region.parameter))
        step = _Step(optimizer, own)
        self.steps.append(step)
        step.begin()
        return step

    def after_step(self, optimizer: Optimizer) -> None:
        if self.calls.get(optimizer):  # newest last: a step may call that of its base class
            for step in self.calls[optimizer].pop():
                self.finish(step)

    def finish(self, step: _Step) -> None:
        """Take back this step, and first what other freezes noted of it later."""
        if step in self.steps:
            later = self.steps[self.steps.index(step) :]
            _take_back(self.steps, [s for s in later if s.optimizer is step.optimizer])

    def settle(self, *_: Any) -> None:
        """Take back the steps of this thread that raised."""
        thread = threading.get_ident()
        _take_back(self.steps, [step for step in self.steps if step.thread == thread])


_holds: list[_Hold] = []


def _before_step(optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]) -> Any:
    for hold in tuple(_holds):
        changed = hold.before_step(optimizer, args, kwargs)
        if changed is not None:
            args, kwargs = changed
    return args, kwargs


def _after_step(optimizer: Optimizer, *_: Any) -> None:
    for hold in tuple(_holds):
        hold.after_step(optimizer)


# Once, and for good: torch goes through these hooks while other threads step, and may not meet one
# that comes or goes with a freeze.
register_optimizer_step_pre_hook(_before_step)
register_optimizer_step_post_hook(_after_step)


@contextmanager
def held(model: nn.Module, places: list[Region]) -> Iterator[None]:
    """Hold the numbers of ``places`` still, whatever optimizer steps until the block ends."""
    settle(model)
    hold = _Hold(places, Ledger.of(model, "gradients"), Ledger.of(model, "steps"))
    with ExitStack() as cleanup:
        cleanup.callback(hold.give_gradients_back)
        hold.note_gradients()
        for region in places:
            _stop_gradient(region, cleanup)
        for root in forward_roots(model):
            cleanup.callback(root.register_forward_pre_hook(hold.settle).remove)
            cleanup.callback(root.register_load_state_dict_pre_hook(hold.settle).remove)
        cleanup.callback(_holds.remove, hold)
        _holds.append(hold)
        cleanup.callback(settle, model)
        yield


def _take_back(steps: Ledger, some: list[_Step]) -> None:
    for step in reversed(some):
        step.take_back()
        steps.remove(step)


def _stop_gradient(region: Region, cleanup: ExitStack) -> None:
    parameter = region.parameter
    if not (parameter.is_floating_point() or parameter.is_complex()):
        return
    flag = parameter.requires_grad
    parameter.requires_grad_(True)  # for the hook, which counts when the flag is set later
    cleanup.callback(parameter.register_hook(region.without).remove)
    parameter.requires_grad_(flag)
    if region.boxes is None:  # nothing to compute
        stop_gradient(parameter)
        cleanup.callback(let_gradient, parameter)


def _state_like(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The parts of the optimizer's state that belong to single numbers of ``parameter``."""
    state = optimizer.state.get(parameter, {})
    return {
        key: value
        for key, value in state.items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    }
