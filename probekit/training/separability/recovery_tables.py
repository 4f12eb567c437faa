"""What became of arms of runs: shares and exact tests, with the null that each is held against.

``runs`` is by arm what :func:`~probekit.training.train_recoveries` found, every number a list over
seeds. Arms of one seed share the network that they began with, so that exact tests, which take all
runs as independent, read too small a p; a p above .05 stands all the same.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ...errors import ProbekitError
from ..stability import fisher_exact, permutation_p, seeds_needed
from ..tables import interval_rows, interval_text

Runs = Mapping[str, Mapping[str, Any]]
GOOD, BAD = 0.90, 0.50  # final accuracy of a run that recovered, and that did not
COMPARED = ("final", "gini", "max share")
_SPLITS = 20_000


def share_of_kind(runs: Runs, arms: Sequence[str], kind: str) -> list[float]:
    """Of the arms' runs, those that :func:`classify_recovery` calls ``kind``; a seed each."""
    return list(np.mean([[one == kind for one in runs[arm]["kind"]] for arm in arms], axis=0))


def median_first_drop(runs: Runs, arms: Sequence[str], clock: float = 1.0) -> list[float]:
    """The median first drop over the arms that drop, in steps * ``clock``, a seed each; or NaN.

    With lr * wd as the clock, runs compare in which weights decay at other rates.
    """
    steps = np.array([runs[arm]["first drop"] for arm in arms], dtype=float)
    found = [own[~np.isnan(own)] for own in steps.T]
    return [clock * float(np.median(own)) if len(own) else np.nan for own in found]


def mean_final(runs: Runs, arms: Sequence[str]) -> list[float]:
    """Mean final accuracy over the arms, a seed each."""
    return list(np.mean([runs[arm]["final"] for arm in arms], axis=0))


def final_difference(runs: Runs, arm: str, other: str) -> list[float]:
    """Final accuracy of an arm less that of another, a seed each."""
    return list(np.subtract(runs[arm]["final"], runs[other]["final"]))


def first_step_loss(runs: Runs, arm: str) -> list[float]:
    """Accuracy before the first step less that after it, a seed each."""
    return [before - after for before, after in runs[arm]["first step"]]


def recovered_and_not(
    runs: Runs, arms: Sequence[str], what: str
) -> tuple[list[float], list[float]]:
    """A number of every run of the arms: of those that end at .50 or more, and those below."""
    each = [pair for arm in arms for pair in zip(runs[arm]["final"], runs[arm][what], strict=True)]
    return [value for end, value in each if end >= BAD], [v for end, v in each if end < BAD]


def difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Of the means; NaN without a value in both."""
    return float(np.mean(first) - np.mean(second)) if first and second else np.nan


def least_significant(
    first: Sequence[float], second: Sequence[float], level: float = 0.05
) -> float:
    """What ``|mean - mean|`` has to exceed to be significant: its quantile under shuffled labels.

    Over all ways to deal the values to two groups of these sizes, or 20,000 drawn ones with seed 0
    where they are more.

    Raises:
        ProbekitError: a group without a value.
    """
    if not (first and second):
        raise ProbekitError(
            f"least_significant needs a value a group, not {len(first)} and {len(second)}"
        )
    values = np.array([*first, *second], dtype=float)
    n, size = len(values), len(first)
    if n <= 16:
        dealt = np.array(list(combinations(range(n), size)))
    else:
        rng = np.random.default_rng(0)
        dealt = rng.permuted(np.tile(np.arange(n), (_SPLITS, 1)), axis=1)[:, :size]
    sums = values[dealt].sum(1)
    apart = np.abs(sums / size - (values.sum() - sums) / (n - size))
    return float(np.quantile(apart, 1 - level))


def recovered_difference(
    runs: Runs, arms: Sequence[str], what: str
) -> tuple[list[float], list[float]]:
    """Mean of the runs that recovered less that of the others, and :func:`least_significant`.

    Each a list of one, for a claim; NaN where all recovered or none did.
    """
    groups = recovered_and_not(runs, arms, what)
    chance = [least_significant(*groups)] if all(groups) else [np.nan]
    return [difference(*groups)], chance


def ended_well(runs: Runs, arms: Sequence[str]) -> tuple[int, int]:
    """(runs that end at .90 or more, runs) of the arms."""
    ends = [end >= GOOD for arm in arms for end in runs[arm]["final"]]
    return sum(ends), len(ends)


def ended_alike(runs: Runs, first: Sequence[str], second: Sequence[str]) -> float:
    """p of Fisher's exact test: do two groups of arms end well equally often?"""
    return fisher_exact(ended_well(runs, first), ended_well(runs, second))


def ends_rows(runs: Runs, published: Mapping[str, float]) -> list[dict[str, str]]:
    """A row an arm: final accuracies, published means, and how often each kind occurs."""
    kinds = ("stable", "collapse-recover", "partial", "irreversible")
    return [
        {
            "arm": arm,
            "final": interval_text(found["final"]),
            "published": f"{published[arm]:.3f}" if arm in published else "",
            "by seed": " ".join(f"{end:.2f}" for end in found["final"]),
            **{kind: str(list(found["kind"]).count(kind)) for kind in kinds},
            "collapses": str(sum(found["collapses"])),
        }
        for arm, found in runs.items()
    ]


def first_step_rows(runs: Runs) -> list[dict[str, str]]:
    """A row an arm: accuracy before and after the first step."""
    both = {arm: zip(*found["first step"], strict=True) for arm, found in runs.items()}
    return interval_rows(
        {arm: dict(zip(("before", "after"), each, strict=True)) for arm, each in both.items()},
        "arm",
    )


def dominance_rows(runs: Runs) -> list[dict[str, str]]:
    """A row an arm: how unequal the heads are at the end."""
    return interval_rows(
        {arm: {what: found[what] for what in ("gini", "max share")} for arm, found in runs.items()},
        "arm",
    )


def exact_rows(
    runs: Runs, pairs: Mapping[str, tuple[Sequence[str], Sequence[str]]]
) -> list[dict[str, str]]:
    """A row a pair of groups of arms: how many end well, Fisher's p, and p of other readings.

    ``seeds needed`` is for these rates: runs a group for Fisher's test to tell them (power .8).
    """
    rows = []
    for name, sides in pairs.items():
        counts = [ended_well(runs, arms) for arms in sides]
        rates = [good / n for good, n in counts]
        rows.append(
            {
                "groups": name,
                "end at .90 or more": " against ".join(f"{good} of {n}" for good, n in counts),
                "Fisher p": f"{ended_alike(runs, *sides):.3f}",
                "seeds needed": _needed(*rates),
                **{f"permutation p, {what}": _shuffled(runs, sides, what) for what in COMPARED},
            }
        )
    return rows


def _shuffled(runs: Runs, sides: Sequence[Sequence[str]], what: str) -> str:
    first, second = ([v for arm in arms for v in runs[arm][what]] for arms in sides)
    return f"{permutation_p(first, second):.3f}"


def _needed(p: float, q: float) -> str:
    try:
        return str(seeds_needed(p, q)) if p != q else "no number"
    except ProbekitError:
        return "more than 200"
