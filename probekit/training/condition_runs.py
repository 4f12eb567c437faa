"""What a finished condition left behind, read back: series, final values, windows, gradients."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runs import RunDir
from .window import chance_crossing_rate

#: Training went on for so long after the end of the window, then stopped early (as published).
GRACE = 1000
#: The equilibrium is the mean of so many last log rows (as published).
LAST = 10


@dataclass(frozen=True)
class ConditionRun:
    """The log rows and the developmental trajectory of one condition and seed."""

    rows: list[dict[str, Any]]
    trajectory: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "ConditionRun":
        """Read a condition's folder.

        Raises:
            RunError: it is not finished, or damaged.
        """
        run = RunDir(folder)
        return cls(run.rows(), run.read_json("developmental_trajectory.json"))

    def series(self, key: str) -> tuple[list[int], np.ndarray]:
        """The steps at which ``key`` was logged, and its values."""
        rows = [row for row in self.rows if key in row]
        return [row["step"] for row in rows], np.array([row[key] for row in rows])

    @property
    def stopped(self) -> int:
        """The step at which the published early stop would have ended the run, or its last."""
        window = self.trajectory["windows"]["in_training"]
        last = self.rows[-1]["step"]
        return min(last, window["end"] + GRACE) if window else last

    def final(self, key: str = "vdi", *, early_stop: bool = True) -> float:
        """Mean over heads and the last ten log rows, up to the published early stop or the end."""
        return float(self._last(key, early_stop).mean())

    def tail(self, key: str = "vdi") -> float:
        """Standard deviation over the last ten log rows of the mean over heads."""
        return float(self._last(key, early_stop=False).std())

    def _last(self, key: str, early_stop: bool) -> np.ndarray:
        until = self.stopped if early_stop else self.rows[-1]["step"]
        kept = [np.mean(row[key]) for row in self.rows if row["step"] <= until]
        return np.array(kept[-LAST:])

    def largest_gradient(self, term: str, kind: str = "gradient_norms") -> float:
        """The largest gradient norm of a loss term over all monitor checkpoints."""
        return max(row[kind].get(term, 0.0) for row in self.rows if kind in row)

    def chance_rate(self, begin: int, end: int) -> float:
        """The share of log rows within these steps with a spread below the window's threshold."""
        return chance_crossing_rate(
            [row["vdi_spread"] for row in self.rows if begin <= row["step"] <= end]
        )


def finals(runs: Iterable[ConditionRun], key: str = "vdi") -> list[float]:
    """Final values of several runs."""
    return [run.final(key) for run in runs]
