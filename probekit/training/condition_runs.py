"""Train conditions side by side, and read back what each left behind.

A :class:`ConditionRun` gives its series, final values, windows and gradients.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..hooked.cards import read_card
from ..runs import RunDir
from .conditions import Condition, Schedule
from .loop import train
from .side_by_side import CARD, SideBySide, difference_if_apart
from .trajectory import developmental_trajectory
from .window import chance_crossing_rate

#: Training went on for so long after the end of the window, then stopped early (as published).
GRACE = 1000
#: The equilibrium is the mean of so many last log rows (as published).
LAST = 10
#: For so many steps conditions that are one algorithm are trained apart, to see that they are.
APART_STEPS = 50
_APART = "apart.json"


def train_conditions(
    folder: Path,
    conditions: Sequence[Condition],
    seed: int,
    schedule: Schedule,
    *,
    title: str,
    position: int,
) -> None:
    """Train ``conditions`` from one seed's weights, on its batches; may be killed and resumed.

    They are one :class:`~probekit.training.Stack`. ``folder`` holds its checkpoint and log; each
    condition's own folder beside it gets ``metrics.jsonl``, ``developmental_trajectory.json`` and
    ``summary.json``, which are written again if the folder is deleted.

    Raises:
        RunError: conditions that cannot share a stack, or a folder of another run.
    """
    run = RunDir(folder)
    optimisation = {f.name: getattr(schedule, f.name) for f in fields(Schedule)}
    run.start({"conditions": [asdict(one) for one in conditions], **optimisation}, seed)
    if not (run.path / _APART).exists():
        apart = difference_if_apart(conditions, seed, schedule, APART_STEPS)
        run.write_json(_APART, {"steps": APART_STEPS, "largest_difference": apart})
    if not run.done:
        stacked = SideBySide(conditions, seed, schedule)
        train(
            run,
            stacked.stack,
            stacked.optimizer,
            steps=schedule.steps,
            update=stacked.update,
            log=stacked.log,
            log_every=schedule.log_every,
            checkpoint_every=schedule.monitor_every,
            title=title,
            position=position,
        )
        run.write_json("summary.json", {"conditions": [one.name for one in conditions]})
    for index, condition in enumerate(conditions):
        own = RunDir(folder.parent / condition.name)
        own.start({"condition": asdict(condition), **optimisation}, seed)
        if not own.done:
            rows = [{"step": row["step"], **row["runs"][index]} for row in run.rows()]
            _leave(own, rows, run.read_json(_APART))


def _leave(own: RunDir, rows: list[dict[str, Any]], apart: dict[str, Any]) -> None:
    """What one condition leaves behind, from its rows."""
    own.write_rows(rows)
    width = read_card(CARD).config["d_model"]
    own.write_json("developmental_trajectory.json", developmental_trajectory(rows, width))
    last = {key: rows[-1][key] for key in ("step", "vdi_mean")}
    own.write_json("summary.json", {**last, "trained_apart": apart})


@dataclass(frozen=True)
class ConditionRun:
    """The log rows and the developmental trajectory of one condition and seed."""

    rows: list[dict[str, Any]]
    trajectory: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "ConditionRun":
        """Read a condition's folder.

        Raises:
            RunError: it is not finished, or damaged.
        """
        run = RunDir(folder)
        trajectory, summary, config = (
            run.read_json(name)
            for name in ("developmental_trajectory.json", "summary.json", "config.json")
        )
        return cls(run.rows(), trajectory, summary, config)

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

    def final(self, key: str = "vdi") -> float:
        """Mean over heads and the last ten log rows, up to the published early stop or the end."""
        return float(self._until(self.stopped, key).mean())

    def moved(self, key: str = "vdi") -> float:
        """How far :meth:`final` is from the same mean at two thirds of its steps."""
        return abs(self.final(key) - float(self._until(2 * self.stopped // 3, key).mean()))

    def _until(self, step: int, key: str) -> np.ndarray:
        """The mean over heads at the last ten log rows up to a step."""
        kept = [np.mean(row[key]) for row in self.rows if row["step"] <= step]
        return np.array(kept[-LAST:])

    @property
    def accuracy(self) -> float:
        """On held-out pairs, where :meth:`final` is read."""
        return [row["test_accuracy"] for row in self.rows if row["step"] <= self.stopped][-1]

    def weight(self, term: str) -> float:
        """A term's weight in the loss."""
        return 1.0 if term == "task" else self.config["config"]["condition"]["losses"][term]

    def largest_gradient(self, term: str, kind: str = "gradient_norms") -> float:
        """The largest gradient norm of a term, as weighted in the loss, over monitor checkpoints.

        0 for a term that was never computed.
        """
        largest = max(row[kind].get(term, 0.0) for row in self.rows if kind in row)
        return largest * self.weight(term)

    @property
    def chance_rate(self) -> float:
        """How often the heads' spread is below the window's threshold by chance."""
        spreads = [row["vdi_spread"] for row in self.rows]
        return chance_crossing_rate(spreads, [row["vdi_mean"] for row in self.rows])
