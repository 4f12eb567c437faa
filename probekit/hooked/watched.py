"""Modules that tell of a hook as it comes, so that nobody has to look for it at each call."""

from operator import attrgetter
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module
from transformer_lens.hook_points import HookPoint

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
hooks_of = attrgetter(*HOOKS)
OF_ALL_MODULES = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)
_REGISTER = (
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_backward_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
)


class Watched(nn.Module):
    """Tells when somebody begins to listen to it.

    Marks its bridge as stale when it gets other dicts of hooks, another hook point, or another
    forward.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in HOOKS or name == "forward" or isinstance(value, HookPoint):
            self.__dict__.get("_stale", []).append(True)
            self._tell()

    def _tell(self) -> None:
        for begin_to_listen in self.__dict__.get("_told", ()):
            begin_to_listen()


def _telling(register: str) -> Any:
    def registered(self: Watched, *args: Any, **kwargs: Any) -> Any:
        handle = getattr(super(Watched, self), register)(*args, **kwargs)
        self._tell()  # not before: who is told looks for it
        return handle

    return registered


for _register in _REGISTER:
    setattr(Watched, _register, _telling(_register))


class WatchedHookPoint(Watched, HookPoint):
    pass
