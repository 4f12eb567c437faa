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
        modules = {module: None for root in forward_roots(model) for module in root.modules()}
        parameters = {p: None for root in forward_roots(model) for p in root.parameters()}
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
            module.training = training
        for parameter, requires_grad in self.grads:
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


def forward_roots(model: nn.Module) -> list[nn.Module]:
    """The modules whose call is a forward pass: the bridge, and the model that it wraps."""
    inner = getattr(model, "original_model", None)
    return [model] + ([inner] if isinstance(inner, nn.Module) and inner is not model else [])
