"""Flags that an attachment leaves as they were: module modes and requires_grad."""

from typing import Any

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from .ledger import Ledger


class Flags:
    """The flags of a model at one moment, to be set back.

    Where attachments end out of order, the earlier one's flags are handed to the next, which sets
    them back when it ends: the last to end leaves what the first one found.
    """

    def __init__(self, model: nn.Module) -> None:
        # Both roots: a wrapped model is no submodule of its bridge, nor are all of its modules.
        modules = all_modules(*forward_roots(model))
        own = [p for module in modules for p in module._parameters.values() if p is not None]
        parameters = dict.fromkeys(own)
        self.modes = [(module, module.training) for module in modules]
        self.grads = [(parameter, parameter.requires_grad) for parameter in parameters]
        self._kept = Ledger.of(model, "flags")
        self._kept.append(self)

    def restore(self) -> None:
        """Set every flag back, or hand them on."""
        at = self._kept.index(self)
        later = self._kept[at + 1 : at + 2]
        del self._kept[at]
        if later:
            later[0].modes, later[0].grads = self.modes, self.grads
            return
        for module, training in self.modes:
            if module.training != training:
                module.training = training
        for parameter, requires_grad in self.grads:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


_stopped: Any = WeakIdKeyDictionary()  # nn.Parameter -> (how many hold it, its flag before)


def stop_gradient(parameter: nn.Parameter) -> None:
    """Turn the gradient off until as many :func:`let_gradient`."""
    holders, before = _stopped.get(parameter, (0, parameter.requires_grad))
    _stopped[parameter] = holders + 1, before
    parameter.requires_grad_(False)


def let_gradient(parameter: nn.Parameter) -> None:
    """Give back one :func:`stop_gradient`; the last one restores the flag."""
    holders, before = _stopped.pop(parameter)
    if holders > 1:
        _stopped[parameter] = holders - 1, before
    else:
        parameter.requires_grad_(before)


def all_modules(*roots: nn.Module) -> list[nn.Module]:
    """Every module in ``roots``, once, parents first.

    ``root.modules()`` runs a generator for each level that a module lies deep, and a bridge is
    deep: for each attachment that would cost as much as a layer's forward.
    """
    seen: dict[nn.Module, None] = {}
    waiting: list[nn.Module | None] = list(reversed(roots))
    while waiting:
        module = waiting.pop()
        if module is not None and module not in seen:
            seen[module] = None
            if module._modules:
                waiting.extend(reversed(module._modules.values()))
    return list(seen)


def forward_roots(model: nn.Module) -> list[nn.Module]:
    """The modules whose call is a forward pass: the bridge, and the model that it wraps."""
    inner = getattr(model, "original_model", None)
    return [model] + ([inner] if isinstance(inner, nn.Module) and inner is not model else [])
