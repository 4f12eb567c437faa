"""The log of a run by :func:`~probekit.training.fit_with_drift`, read back as arrays.

How fast a part decays, when only decay moves it, what the published rules say of its drift.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ...runs import RunDir
from ..drift import log_slope
from ..stability import time_to_generalisation, time_to_stability

#: Such as published_stable_step.
Rule = Callable[[Sequence[int], Sequence[float]], int | None]


def half_way(steps: Sequence[int], values: Sequence[float]) -> int:
    """The first step at which values are half-way from the first to the last, whatever their size.

    Example:
        >>> half_way([0, 10, 20, 30], [1.0, 1.5, 2.5, 3.0])
        20
    """
    gone = np.abs(np.asarray(values) - values[0])
    return steps[int(np.argmax(gone >= gone[-1] / 2))]


@dataclass(frozen=True)
class Head:
    """A head over some logs of a run."""

    from_uniform: float
    """1 less the least attention entropy of these logs; 0 is uniform attention."""
    norm: float
    """Of its Q and K at the last of them."""
    rate: float
    """At which that norm fell; NaN for too few logs."""

    @property
    def uniform(self) -> bool:
        """Whether it attended uniformly at all these logs, to a thousandth of the entropy."""
        return self.from_uniform < 1e-3


@dataclass(frozen=True)
class DriftRun:
    """The log of a run by :func:`fit_with_drift`, as arrays."""

    rows: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> "DriftRun":
        """Read a run's folder.

        Raises:
            RunError: it is damaged.
        """
        return cls(RunDir(folder).rows())

    @property
    def steps(self) -> list[int]:
        """When it was logged."""
        return [row["step"] for row in self.rows]

    def part(self, part: str, what: str) -> Float[np.ndarray, " log"]:
        """Such as ``part("QK", "norm")``."""
        return np.array([row["parts"][part][what] for row in self.rows])

    def score(self, what: str) -> Float[np.ndarray, " log"]:
        """``accuracy``, ``loss``, ``margin``, ``train_accuracy`` or ``train_loss``."""
        return np.array([row[what][0] for row in self.rows])

    @property
    def entropy(self) -> Float[np.ndarray, "log head"]:
        """Attention entropy, layers one after the other."""
        return np.array([np.ravel(row["entropy"]) for row in self.rows])

    @property
    def head_norm(self) -> Float[np.ndarray, "log head"]:
        """Norm of each head's Q and K, in the order of ``entropy``."""
        return np.array([np.ravel(row["head_norm"]) for row in self.rows])

    @property
    def grokked(self) -> float:
        """The first log with a validation accuracy of .90, as published; NaN where none is."""
        step = time_to_generalisation(self.steps, list(self.score("accuracy")), at=0.90)
        return float("nan") if step is None else float(step)

    @property
    def last_third(self) -> float:
        """Where the last third of the steps after grokking begins; NaN where it never grokked."""
        return self.grokked + (self.steps[-1] - self.grokked) * 2 / 3

    def only_decays(self, part: str) -> int | None:
        """The log from which gradients give no more than a tenth of the velocity; or None."""
        moved = self.part(part, "beyond_decay") > 0.1 * self.part(part, "velocity")
        return time_to_stability(self.steps, [1 - float(one) for one in moved], at=1.0)

    def settled(self, part: str) -> int:
        """When a part was half as far from its start as it ended."""
        return half_way(self.steps, list(self.part(part, "drift")))

    def answer(self, rule: Rule, part: str, every: int) -> float:
        """What a published rule says of a part's drift at every so many logs; NaN for nothing."""
        step = rule(self.steps[::every], list(self.part(part, "drift")[::every]))
        return float("nan") if step is None else float(step)

    def velocity_ratio(self, part: str, other: str, begin: float, end: float = math.inf) -> float:
        """Velocity of one part over that of another, mean over the logs from ``begin`` on."""
        late = self._within(begin, end)
        each = self.part(part, "velocity")[late] / self.part(other, "velocity")[late]
        return float(each.mean()) if len(each) else float("nan")

    def at(self, step: int, part: str, what: str) -> float:
        """A part's value at the log of that step; NaN where it was not logged."""
        found = dict(zip(self.steps, self.part(part, what), strict=True))
        return float(found.get(step, np.nan))

    def decay_rate(self, part: str, begin: float, end: float = math.inf) -> float:
        """Minus the slope of ``ln |part|`` a step, from ``begin`` on; NaN for too few logs."""
        return self._rate(self.part(part, "norm"), begin, end)

    def heads(self, begin: float, end: float = math.inf, scale: float = 1.0) -> list["Head"]:
        """Each head's Q and K from step ``begin`` on, rates over ``scale``, such as lr * wd."""
        chosen = self._within(begin, end)
        entropy, last = self.entropy[chosen], self.head_norm[chosen][-1:]
        least = entropy.min(0) if len(entropy) else np.full(entropy.shape[1], np.nan)
        ends = last[0] if len(last) else np.full(entropy.shape[1], np.nan)
        return [
            Head(float(1 - most), float(norm), self._rate(norms, begin, end) / scale)
            for most, norm, norms in zip(least, ends, self.head_norm.T, strict=True)
        ]

    def _within(self, begin: float, end: float) -> Bool[np.ndarray, " log"]:
        steps = np.array(self.steps)
        return (steps >= begin) & (steps <= end)

    def _rate(self, norms: Float[np.ndarray, " log"], begin: float, end: float) -> float:
        chosen = self._within(begin, end)
        if chosen.sum() < 3:
            return float("nan")
        return -log_slope(np.array(self.steps)[chosen].tolist(), list(norms[chosen])).per_step
