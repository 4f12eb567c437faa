"""Experiments of several conditions and seeds: their units of work, their runs, their tables.

A recipe names the conditions and the claims; this is what all of them do in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .condition_runs import ConditionRun
from .conditions import Condition, Schedule, train_conditions
from .outcome import classify_outcome, saturation_of_targets, target_slope

#: (stack, seed): what one process trains side by side
Unit = tuple[str, int]
Results = dict[str, list[ConditionRun]]


@dataclass(frozen=True)
class Experiment:
    """Stacks of conditions by name; the conditions of a stack train side by side."""

    stacks: Mapping[str, Sequence[Condition]]

    def units(self, seeds: Sequence[int]) -> list[Unit]:
        """A stack of one seed each."""
        return [(stack, seed) for stack in self.stacks for seed in seeds]

    def run(self, unit: Unit, run_dir: Path, schedule: Schedule, position: int) -> None:
        """Train one unit; goes on from its last checkpoint."""
        stack, seed = unit
        train_conditions(
            run_dir / f"seed{seed}" / f"{stack}-stack",
            self.stacks[stack],
            seed,
            schedule,
            title=f"{stack}, seed {seed}",
            position=position,
        )

    def collect(self, seeds: Sequence[int], run_dir: Path) -> Results:
        """Every condition's runs, one a seed.

        Raises:
            RunError: a run is missing or damaged.
        """
        return {
            condition.name: [
                ConditionRun.read(run_dir / f"seed{seed}" / condition.name) for seed in seeds
            ]
            for conditions in self.stacks.values()
            for condition in conditions
        }


def final_values(
    results: Results, names: Sequence[str], key: str, *, early_stop: bool = True
) -> np.ndarray:
    """Final values ``[seed, condition]``."""
    columns = [[run.final(key, early_stop=early_stop) for run in results[n]] for n in names]
    return np.array(columns).T


def slope_row(
    title: str, values: Sequence[float], results: Results, names: Sequence[str], key: str
) -> dict[str, Any]:
    """How final VDI depends on a swept number: the slope, its interval, and its null.

    Args:
        values: the swept numbers, ascending.
        names: the condition of each.
        key: which VDI, ``"vdi"`` or ``"vdi_visible"``.
    """
    finals = final_values(results, names, key)
    slope = target_slope(values, finals)
    accuracy = [run.rows[-1]["test_accuracy"] for name in names for run in results[name]]
    return {
        "arm": title,
        "final VDI": ", ".join(f"{value:.3f}" for value in finals.mean(0)),
        "slope": slope.mean,
        "95 % interval": f"{slope.interval[0]:.3f} to {slope.interval[1]:.3f}",
        "if shuffled": f"{slope.shuffled[0]:.3f} to {slope.shuffled[1]:.3f}",
        "p": slope.p,
        "accuracy": float(np.mean(accuracy)),
    }


def target_row(
    title: str,
    targets: Sequence[float],
    results: Results,
    names: Sequence[str],
    control: str,
    key: str,
) -> dict[str, Any]:
    """:func:`slope_row` on targets, with the saturation and the outcome by rules.

    Args:
        control: the condition without the terms.
    """
    finals, untreated = final_values(results, names, key), final_values(results, [control], key)
    tails = np.array([[run.tail(key) for run in results[name]] for name in names]).T
    return {
        **slope_row(title, targets, results, names, key),
        "high / low": saturation_of_targets(targets, finals),
        "without terms": float(untreated.mean()),
        "outcome": classify_outcome(targets, finals, tails, untreated[:, 0]),
    }


def gradient_rows(results: Results, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """The gradient check: each term's largest norm over seeds and checkpoints, a row a condition.

    First as the term stood in the loss, then what it would have been on attached patterns.
    """
    rows: list[dict[str, Any]] = []
    for name, title in titles.items():
        row: dict[str, Any] = {"condition": title}
        for term in ("task", "convergence", "set_point"):
            row[f"|grad {term}|"] = max(run.largest_gradient(term) for run in results[name])
        for term in ("convergence", "set_point"):
            kind = "attached_gradient_norms"
            row[f"{term}, if attached"] = max(
                run.largest_gradient(term, kind) for run in results[name]
            )
        rows.append(row)
    return rows


def without_gradient(results: Results, names: Sequence[str]) -> bool:
    """Whether no set-point or convergence term had any gradient at any checkpoint."""
    return not any(
        run.largest_gradient(term)
        for name in names
        for run in results[name]
        for term in ("convergence", "set_point")
    )
