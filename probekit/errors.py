"""The errors that probekit raises, and how it answers a name that it does not know.

Every error says what was given, what is possible, and the next step. Catch `ProbekitError` for all.
"""

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 12  # longer lists of valid names are cut: the closest ones say more


class ProbekitError(Exception):
    """Base of every error that probekit raises on purpose."""


class SiteError(ProbekitError):
    """An address of activations that the model does not have."""


class HookNeverFiredError(ProbekitError):
    """A hook was attached and no forward pass reached it."""


class DecorativeHookError(ProbekitError):
    """An edit at a site whose value does not reach the model's output."""


class CardError(ProbekitError):
    """A model card that is unknown, malformed, or whose weights cannot be had."""


class NotFiniteError(ProbekitError):
    """A state or a gradient left the finite numbers."""


class RunError(ProbekitError):
    """A recipe or its run folder that cannot be used as asked."""


def closest(given: str, valid: Iterable[str]) -> str:
    """Return a phrase such as `"; closest: 'a', 'b'"`, or `""` when nothing comes near."""
    by_lower = {name.lower(): name for name in valid}
    matches = [by_lower[match] for match in get_close_matches(given.lower(), by_lower)]
    return f"; closest: {', '.join(map(repr, matches))}" if matches else ""


def unknown(kind: str, given: str, valid: Iterable[str]) -> str:
    """Return `"unknown <kind> 'x'; valid: a, b, c; closest: 'a'"`.

    The list of valid names is cut after twelve; the closest are looked for among all of them.
    """
    names = list(valid)
    listed = ", ".join(names[:_LISTED]) or "none"
    if len(names) > _LISTED:
        listed += f" and {len(names) - _LISTED} more"
    return f"unknown {kind} {given!r}; valid: {listed}{closest(given, names)}"
