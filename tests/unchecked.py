"""Calls as a user's are: in tests beartype would refuse a wrong type before probekit does."""

import inspect
from collections.abc import Callable
from typing import Any


def unchecked(what: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``what(*args, **kwargs)``, a function's or dataclass's call, without the check of types."""
    if not isinstance(what, type):
        return inspect.unwrap(what)(*args, **kwargs)
    made = object.__new__(what)
    inspect.unwrap(what.__init__)(made, *args, **kwargs)
    return made
