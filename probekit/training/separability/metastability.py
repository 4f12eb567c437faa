"""Runs that generalise, collapse and come back: their logs, read, and exact tests of arms.

The write-up's phase 4 compares arms by the share of runs that are "stable", which are those whose
last log is good (:func:`~probekit.training.time_to_stability`), and by collapses.

Source: "The Conservation of Separability", phase 4 (metastability, lambda sweep, factorial).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..stability import (
    collapse_count,
    fisher_exact,
    permutation_p,
    time_to_generalisation,
    time_to_stability,
)

GOOD = 0.90  # accuracy of a good log


@dataclass(frozen=True)
class Stability:
    """What the write-up reads of a log of validation accuracies.

    Attributes:
        collapses: logs below .50 after one of .95 or more, each time.
        generalised: the first step with .95; None where there is none.
        settled: the step from which all later logs are .90 or more, over the last; None likewise.
        good: share of the logs from then on with .90 or more, the rate at which a run without
            memory is "stable"; None likewise.
        final: the last accuracy.
    """

    collapses: int
    generalised: int | None
    settled: float | None
    good: float | None
    final: float

    @property
    def stable(self) -> bool:
        """Whether the last log was good."""
        return self.settled is not None


def read_stability(steps: Sequence[int], accuracies: Sequence[float]) -> Stability:
    """Read one run's log."""
    generalised = time_to_generalisation(steps, accuracies)
    settled = time_to_stability(steps, accuracies, at=GOOD)
    later = [
        accuracy
        for step, accuracy in zip(steps, accuracies, strict=True)
        if generalised is not None and step >= generalised
    ]
    return Stability(
        collapse_count(accuracies),
        generalised,
        None if settled is None else settled / steps[-1],
        float(np.mean(np.array(later) >= GOOD)) if later else None,
        accuracies[-1],
    )


@dataclass(frozen=True)
class Arms:
    """The runs of every arm, in one order of seeds."""

    runs: Mapping[str, Sequence[Stability]]

    @classmethod
    def read(cls, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> "Arms":
        """From the logs of :func:`train_arms`, a list of runs an arm."""
        return cls(
            {
                arm: [read_stability(log["steps"], log["accuracy"]) for log in own]
                for arm, own in logs.items()
            }
        )

    def stable(self, *arms: str) -> float:
        """The share of stable runs."""
        return float(np.mean([run.stable for arm in arms for run in self.runs[arm]]))

    def good(self, *arms: str) -> float:
        """The mean share of good logs of runs that generalise: the null of :meth:`stable`."""
        shares = [run.good for arm in arms for run in self.runs[arm] if run.good is not None]
        return float(np.mean(shares)) if shares else float("nan")

    def collapsing(self, arm: str) -> list[float]:
        """The share of runs that collapse once at least, as a list of one."""
        return [float(np.mean([run.collapses > 0 for run in self.runs[arm]]))]

    def differ_in(self, what: str, arm: str, *others: str) -> list[float]:
        """The p of :meth:`differ` of an arm with others together, as a list of one.

        Args:
            what: ``"stable"`` (are they fewer elsewhere?) or ``"collapses"`` (are they more?): NaN
                where the difference goes the other way.
        """
        rest = [run for other in others for run in self.runs[other]]
        both = Arms({"arm": self.runs[arm], "rest": rest})
        if what == "stable":
            better = both.stable("arm") > both.stable("rest")
        else:
            better = both.collapses("arm") < both.collapses("rest")
        return [both.differ("arm", "rest")[what] if better else float("nan")]

    def collapses(self, arm: str) -> float:
        """Collapses a run."""
        return float(np.mean([run.collapses for run in self.runs[arm]]))

    def differ(self, one: str, other: str) -> dict[str, float]:
        """p of Fisher's exact test of stable runs, and of permutations of the other readings."""
        first, second = self.runs[one], self.runs[other]
        counts = [(sum(run.stable for run in arm), len(arm)) for arm in (first, second)]
        collapses = [[float(run.collapses) for run in arm] for arm in (first, second)]
        last = [[run.final for run in arm] for arm in (first, second)]
        return {
            "stable": fisher_exact(*counts),
            "collapses": permutation_p(*collapses),
            "last accuracy": permutation_p(*last),
        }

    def least_p(self, arm: str, *others: str) -> list[float]:
        """The least p of :meth:`differ` of an arm with others, as a list of one."""
        return [min(p for other in others for p in self.differ(arm, other).values())]

    def rows(self) -> list[dict[str, Any]]:
        """What was read, a row an arm."""
        return [
            {
                "arm": name,
                "stable": f"{sum(run.stable for run in runs)} of {len(runs)}",
                "good logs": f"{self.good(name):.2f}",
                "collapses": ", ".join(str(run.collapses) for run in runs),
                "last accuracy": ", ".join(f"{run.final:.2f}" for run in runs),
                "settled at, of the run": ", ".join(
                    "-" if run.settled is None else f"{run.settled:.2f}" for run in runs
                ),
            }
            for name, runs in self.runs.items()
        ]

    def tests(self, arm: str, others: Mapping[str, str]) -> list[dict[str, Any]]:
        """p values of an arm with each other, which come with a word on what sets them apart."""
        return [
            {"arms": f"{arm} and {other}", "differ in": words}
            | {f"p, {what}": f"{p:.2f}" for what, p in self.differ(arm, other).items()}
            for other, words in others.items()
        ]


#: Stable runs as published, of two arms each.
PUBLISHED = {
    "4.2c, λ = 0 and 0.05": ((4, 8), (2, 8)),
    "4.2c, λ = 0 and both others": ((4, 8), (4, 16)),
    "4.2d, cross-entropy and anchor without penalty": ((3, 6), (4, 6)),
    "4.2, anchor and probe": ((2, 5), (2, 5)),
}


def published_tests() -> list[dict[str, str]]:
    """Fisher's exact test, two-sided, of what was published (which printed .31 for the first)."""
    return [
        {"arms": arms, "stable": f"{a[0]} of {a[1]}, {b[0]} of {b[1]}", "p": f"{p:.2f}"}
        for arms, (a, b) in PUBLISHED.items()
        for p in [fisher_exact(a, b)]
    ]
