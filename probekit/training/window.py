"""Crystallization windows: when the heads' VDIs become equal, with and without persistence.

Source: "Homeostatic Crystallization", metric definition 4.5. START is the first logged step at
which the spread over heads falls below 1e-3, END the first from then on below 1e-4. Neither has
to persist, so that two scalars that merely cross count; ``persistent=True`` asks that the spread
stays below at every later log.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

START_BELOW, END_BELOW = 1e-3, 1e-4
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
        persistent: both thresholds must hold at every later log as well.
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


def chance_crossing_rate(spreads: Sequence[float], below: float = END_BELOW) -> float:
    """The fraction of log points below the threshold; 1 where the heads are truly equal.

    Over a stretch in which nothing changes, a small positive rate is what chance alone gives.
    """
    return sum(spread < below for spread in spreads) / len(spreads) if spreads else 0.0


def _first_below(
    spreads: Sequence[float], below: float, begin: int, persistent: bool
) -> int | None:
    for index in range(begin, len(spreads)):
        checked = spreads[index:] if persistent else spreads[index : index + 1]
        if all(spread < below for spread in checked):
            return index
    return None
