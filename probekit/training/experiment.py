"""Experiments of several conditions and seeds: their units of work, their runs, their tables.

A recipe names the conditions and the claims; this is what all of them do in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .condition_runs import ConditionRun, train_conditions
from .conditions import Condition, Schedule
from .outcome import classify_outcome, saturation_of_targets, t_interval, target_slope

#: (stack, seed): what one process trains side by side
Unit = tuple[str, int]
Results = dict[str, list[ConditionRun]]
#: The arms, and which VDI is read in each: normalised as its losses normalise.
ARMS = {"published": "vdi", "corrected": "vdi_visible"}


@dataclass(frozen=True)
class ExperimentConfig(Schedule):
    """A schedule and its seeds: what the recipes' configs have in common."""

    seeds: tuple[int, ...] = (0, 1, 2)  # each trains every condition in both arms

    @classmethod
    def paper(cls) -> "ExperimentConfig":
        """All seeds, all steps."""
        return cls()


@dataclass(frozen=True)
class Experiment:
    """Conditions in two arms (:func:`two_arms`); those with two timescales train side by side."""

    pairs: Sequence[tuple[Condition, Condition]]

    @property
    def stacks(self) -> dict[str, list[Condition]]:
        """The conditions that train side by side: of an arm, and of one optimizer's shape."""
        stacks: dict[str, list[Condition]] = {}
        for arm, conditions in zip(ARMS, zip(*self.pairs, strict=True), strict=True):
            for one in conditions:
                name = arm if one.slow is not None else one.name
                stacks.setdefault(name, []).append(one)
        return stacks

    def names(self, arm: str) -> list[str]:
        """The names of an arm's conditions."""
        return [pair[list(ARMS).index(arm)].name for pair in self.pairs]

    def units(self, config: ExperimentConfig) -> list[Unit]:
        """A stack of one seed each."""
        return [(stack, seed) for stack in self.stacks for seed in config.seeds]

    def run_unit(self, config: ExperimentConfig, unit: Unit, run_dir: Path, position: int) -> None:
        """Train one unit; goes on from its last checkpoint."""
        stack, seed = unit
        train_conditions(
            run_dir / f"seed{seed}" / f"{stack}-stack",
            self.stacks[stack],
            seed,
            config,
            title=f"{stack}, seed {seed}",
            position=position,
        )

    def collect(self, config: ExperimentConfig, run_dir: Path) -> Results:
        """Every condition's runs, one a seed.

        Raises:
            RunError: a run is missing or damaged.
        """
        return {
            name: [ConditionRun.read(run_dir / f"seed{seed}" / name) for seed in config.seeds]
            for arm in ARMS
            for name in self.names(arm)
        }


def final_values(results: Results, names: Sequence[str], arm: str) -> np.ndarray:
    """Final values ``[seed, condition]``, as the arm reads VDI."""
    return np.array([[run.final(ARMS[arm]) for run in results[name]] for name in names]).T


def slope_row(
    arm: str, values: Sequence[float], results: Results, names: Sequence[str]
) -> dict[str, Any]:
    """How an arm's final VDI depends on a swept number: the slope, its interval, and its null.

    Args:
        values: the swept numbers, ascending.
        names: the condition of each.
    """
    finals = final_values(results, names, arm)
    slope = target_slope(values, finals)
    accuracy = [run.accuracy for name in names for run in results[name]]
    return {
        "arm": arm,
        "final VDI": ", ".join(f"{value:.3f}" for value in finals.mean(0)),
        "slope": slope.mean,
        "95 % interval": f"{slope.interval[0]:.3f} to {slope.interval[1]:.3f}",
        "if shuffled": f"{slope.shuffled[0]:.3f} to {slope.shuffled[1]:.3f}",
        "p": slope.p,
        "accuracy": float(np.mean(accuracy)),
    }


def target_row(
    arm: str, targets: Sequence[float], results: Results, names: Sequence[str], control: str
) -> dict[str, Any]:
    """:func:`slope_row` on targets, with the saturation and the outcome by rules.

    Args:
        control: the condition without the terms.
    """
    finals, untreated = (final_values(results, each, arm) for each in (names, [control]))
    moved = np.array([[run.moved(ARMS[arm]) for run in results[name]] for name in names]).T
    return {
        **slope_row(arm, targets, results, names),
        "high / low": saturation_of_targets(targets, finals),
        "without terms": float(untreated.mean()),
        "moved in the last third": float(np.mean(moved)),
        "off target": float(np.abs(finals - np.array(targets)).mean()),
        "outcome": classify_outcome(targets, finals, moved, untreated[:, 0]),
    }


def by_arm(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of arms turned: a row a quantity, a column an arm."""
    return [
        {"": quantity, **{row["arm"]: _cell(row[quantity]) for row in rows}}
        for quantity in rows[0]
        if quantity != "arm"
    ]


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def condition_rows(results: Results, names: Sequence[str]) -> list[dict[str, Any]]:
    """The conditions of one arm over their seeds."""
    return [_condition_row(name.partition("-")[2], results[name]) for name in names]


def _condition_row(name: str, runs: Sequence[ConditionRun]) -> dict[str, Any]:
    """Values, windows, and what chance and no disturbance give."""
    finals = np.array([run.final() for run in runs])
    low, high = t_interval(finals)
    windows = [run.trajectory["windows"] for run in runs]
    kills = [run.trajectory["kill_tests"][-1] for run in runs if run.trajectory["kill_tests"]]
    return {
        "condition": name,
        "final VDI": float(finals.mean()),
        "95 % interval": f"{low:.3f} to {high:.3f}",
        "VDI / ln(visible)": float(np.mean([run.final("vdi_visible") for run in runs])),
        "accuracy": float(np.mean([run.accuracy for run in runs])),
        "windows": ", ".join(_words(each["in_training"]) for each in windows),
        "persistent": ", ".join(_words(each["persistent"]) for each in windows),
        "crossings by chance": ", ".join(f"{run.chance_rate:.2f}" for run in runs),
        "kill test: stale, undisturbed, fresh": " / ".join(
            f"{np.mean([test[baseline] for test in kills]):.3g}"
            for baseline in ("stale", "undisturbed", "fresh")
            if kills
        ),
    }


def _words(window: dict[str, int] | None) -> str:
    return f"{window['start']} to {window['end']}" if window else "-"


def gradient_rows(results: Results) -> list[dict[str, Any]]:
    """The gradient check: each term's largest norm over seeds and checkpoints, a row a condition.

    Terms are weighted as in the loss: first as they stood there, then as they would on attached
    patterns. Compensation was never computed.
    """
    live = "attached_gradient_norms"
    return [
        {
            "condition": name,
            **{
                f"|grad {term}|": max(run.largest_gradient(term) for run in runs)
                for term in ("task", "convergence", "set_point", "compensation")
            },
            **{
                f"{term}, if attached": max(run.largest_gradient(term, live) for run in runs)
                for term in ("convergence", "set_point")
            },
        }
        for name, runs in results.items()
    ]


def apart_rows(results: Results) -> list[dict[str, Any]]:
    """Whether conditions without a gradient of their own are one algorithm: trained apart."""
    apart = [run.summary["trained_apart"] for runs in results.values() for run in runs]
    return [
        {
            "compared": "conditions that differ in terms without a gradient only",
            "steps": apart[0]["steps"],
            "largest difference of any parameter": max(
                each["largest_difference"] for each in apart
            ),
        }
    ]


def without_gradient(results: Results, names: Sequence[str]) -> bool:
    """Whether no set-point or convergence term had any gradient at any checkpoint."""
    return not any(
        run.largest_gradient(term)
        for name in names
        for run in results[name]
        for term in ("convergence", "set_point")
    )
