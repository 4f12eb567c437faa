"""Checks of numbers that several items and modulators take; a bool is no number here."""

import math
import os

from .errors import ProbekitError


def is_whole(value: object) -> bool:
    """Whether ``value`` is an int, True and False aside."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether ``value`` is an int or a finite float."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def check_finite(name: str, value: object) -> None:
    """Refuse what is no finite number."""
    if not is_finite(value):
        raise ProbekitError(f"{name} must be a finite number, not {value!r}")


def check_from_zero(name: str, value: object) -> None:
    """Refuse what is no finite number, or is negative."""
    if not (is_finite(value) and value >= 0):  # type: ignore[operator]
        raise ProbekitError(f"{name} must be a finite number from 0, not {value!r}")


def check_positive(name: str, value: object) -> None:
    """Refuse what is no finite number above 0."""
    if not (is_finite(value) and value > 0):  # type: ignore[operator]
        raise ProbekitError(f"{name} must be a finite positive number, not {value!r}")


def check_share(name: str, value: object) -> None:
    """Refuse a number outside [0, 1], NaN among them."""
    if not (is_finite(value) and 0 <= value <= 1):  # type: ignore[operator]
        raise ProbekitError(f"{name} must be a number from 0 to 1, not {value!r}")


def check_whole(name: str, value: object) -> None:
    """Refuse what is no whole number."""
    if not is_whole(value):
        raise ProbekitError(f"{name} must be a whole number, not {value!r}")


def check_sizes(**sizes: object) -> None:
    """Refuse sizes that are no whole numbers from 1."""
    for name, size in sizes.items():
        if not (is_whole(size) and size >= 1):  # type: ignore[operator]
            raise ProbekitError(f"{name} must be a whole number from 1, not {size!r}")


def check_is(name: str, value: object, cls: type) -> None:
    """Refuse what is no ``cls``."""
    if not isinstance(value, cls):
        raise ProbekitError(f"{name} must be a {cls.__name__}, not {value!r}")


def check_memory(
    what: str, numbers: int, more: int = 0, kind: type[ProbekitError] = ProbekitError
) -> None:
    """Refuse what needs more memory than the machine has, before any is asked for.

    Args:
        numbers: in float32.
        more: bytes.
        kind: of the error.
    """
    if not hasattr(os, "sysconf"):
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = 4 * numbers + more
    if needed > there:
        raise kind(
            f"{what} takes {needed >> 30:,} GiB of memory, and this machine has {there >> 30:,}; "
            "give smaller sizes"
        )
