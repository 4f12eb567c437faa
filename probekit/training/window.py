"""Crystallization windows: when the heads' VDIs become equal, with and without persistence.

Source: "Homeostatic Crystallization", metric definition 4.5. START is the first logged step at
which the spread over heads falls below 1e-3, END the first from then on below 1e-4. Neither has
to persist, so that two scalars that merely cross count; ``persistent=True`` asks that the spread
stays below at every later log, of which there must be some.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from jaxtyping import Float
from torch import Tensor

START_BELOW, END_BELOW = 1e-3, 1e-4
#: Later logs, at the least, over which a persistent window has persisted.
PERSISTS = 5
#: A stretch is stationary if its halves differ by no more than this, in units of VDI.
STATIONARY = 0.01
#: The shortest stretch that a rate is taken over, in logs.
_STRETCH = 10
#: Accuracy that must have been exceeded before the in-training detector looks.
GATE = 0.95


@dataclass(frozen=True)
class Window:
    """A crystallization window in steps; ``duration`` may be 0."""

    start: int
    end: int

    @property
    def duration(self) -> int:
        return self.end - self.start


def head_spread(vdi: Float[Tensor, " head"], *, sample: bool = False) -> float:
    """Standard deviation over heads: population (the monitor's) or sample (the loss log's).

    With two heads it is |v0 - v1|/2 or |v0 - v1|/sqrt 2: "head synchronisation" in the write-up.
    """
    return float(vdi.std(correction=int(sample)))


def detect_window(
    steps: Sequence[int],
    spreads: Sequence[float],
    accuracies: Sequence[float] | None = None,
    *,
    persistent: bool = False,
) -> Window | None:
    """The window, or None where START or END is never reached.

    Args:
        steps, spreads: the log.
        accuracies: with them the in-training detector, which starts looking once accuracy has
            exceeded 0.95; without them the reanalysis behind the published table.
        persistent: both thresholds must hold at every later log as well, five at the least.
    """
    gate = 0
    if accuracies is not None:
        passed = (i for i, accuracy in enumerate(accuracies) if accuracy > GATE)
        gate = next(passed, len(steps))
    start = _first_below(spreads, START_BELOW, gate, persistent)
    end = None if start is None else _first_below(spreads, END_BELOW, start, persistent)
    if start is None or end is None:
        return None
    return Window(steps[start], steps[end])


def chance_crossing_rate(
    spreads: Sequence[float], means: Sequence[float], below: float = END_BELOW
) -> float:
    """The fraction of logs below the threshold where nothing changes: what chance alone gives.

    Of the end of the log: the longest of its last 1/2, 1/3, 1/4, ... whose two halves have mean
    VDIs within 0.01. NaN where there is none of ten logs or more, and where the heads have become
    equal for good: that is no chance.

    Args:
        spreads, means: over the heads, at each log.
    """
    begin = _stationary_from(means)
    if begin is None or detect_window(range(len(spreads)), spreads, persistent=True):
        return math.nan
    stretch = spreads[begin:]
    return sum(spread < below for spread in stretch) / len(stretch)


def _stationary_from(means: Sequence[float]) -> int | None:
    for part in range(2, len(means) // _STRETCH + 1):
        begin = len(means) - len(means) // part
        middle = (begin + len(means)) // 2
        if abs(fmean(means[begin:middle]) - fmean(means[middle:])) <= STATIONARY:
            return begin
    return None


def _first_below(
    spreads: Sequence[float], below: float, begin: int, persistent: bool
) -> int | None:
    for index in range(begin, len(spreads) - PERSISTS * persistent):
        checked = spreads[index:] if persistent else spreads[index : index + 1]
        if all(spread < below for spread in checked):
            return index
    return None
