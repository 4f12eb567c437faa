"""Does a run keep what it learned, and do two arms of runs differ? Classifiers and exact tests.

The classifiers read a log of accuracies; their thresholds are the published ones, and arguments
where the write-up has two (.95, .50 and .90 for modular addition, .30, .15 and .25 for text). A
log every k steps sees what lasts k steps: rates at different spacings do not compare.

A handful of runs an arm tells little apart: 4 of 8 against 2 of 8 is p = .61. Set
:func:`seeds_needed` beside every comparison, and the same test of two arms that are one algorithm.

Source: "The Conservation of Separability", phases 4 and 6.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import scipy
from jaxtyping import Float

from ..checks import check_finite, check_share
from ..errors import ProbekitError

Recovery = Literal["stable", "collapse-recover", "irreversible", "partial"]
#: A drop is an accuracy this far below the best of the five logs before it.
DROP, DROP_LOGS = 0.30, 5
_MOST_SEEDS = 200
_PERMUTATIONS = 100_000


def collapse_count(accuracies: Sequence[float], *, below: float = 0.50, after: float = 0.95) -> int:
    """How often a log below ``below`` follows one from ``after`` on; the next such log re-arms.

    Example:
        >>> collapse_count([0.1, 0.96, 0.4, 0.3, 0.9, 0.2, 0.95, 0.49])
        2
    """
    count, armed = 0, False
    for accuracy in accuracies:
        if armed and accuracy < below:
            count += 1
        armed = accuracy >= after or (armed and accuracy >= below)
    return count


def time_to_generalisation(
    steps: Sequence[int], accuracies: Sequence[float], *, at: float = 0.95
) -> int | None:
    """The first logged step with accuracy ``at`` or more; None where there is none.

    Raises:
        ProbekitError: not one accuracy a step, or steps that do not increase.
    """
    check_log(steps, accuracies)
    reached = (step for step, one in zip(steps, accuracies, strict=True) if one >= at)
    return next(reached, None)


def time_to_stability(
    steps: Sequence[int], accuracies: Sequence[float], *, at: float = 0.90
) -> int | None:
    """The step from which every later log is ``at`` or more, as published; or None.

    It exists exactly where the last log is ``at`` or more, so that a "stable" run is one whose
    last log was good: the published 19,500 of 20,000 steps are 1 to 5 good logs at the end.

    Raises:
        ProbekitError: not one accuracy a step, or steps that do not increase.
    """
    check_log(steps, accuracies)
    since = None
    for step, accuracy in zip(reversed(steps), reversed(accuracies), strict=True):
        if accuracy < at:
            break
        since = step
    return since


def first_drop(steps: Sequence[int], accuracies: Sequence[float]) -> int | None:
    """The first step more than .30 below the best of the five logs before it; or None.

    Raises:
        ProbekitError: not one accuracy a step, or steps that do not increase.
    """
    check_log(steps, accuracies)
    for i in range(1, len(steps)):
        if accuracies[i] < max(accuracies[max(0, i - DROP_LOGS) : i]) - DROP:
            return steps[i]
    return None


def classify_recovery(accuracies: Sequence[float]) -> Recovery:
    """How a run fares after damage, as published: has it dropped, and where does it end?

    stable            no drop (:func:`first_drop`), which a run that never learned is too
    irreversible      a drop, and the last log below .50
    collapse-recover  a drop, and the last log .90 or more
    partial           a drop, and the last log between

    The .90 is ours, the write-up's bound of stability; it names none here. It had no control
    without damage, and its undamaged runs end as low as the damaged.

    Raises:
        ProbekitError: no accuracies.
    """
    if not accuracies:
        raise ProbekitError("classify_recovery needs one logged accuracy at least; given none")
    if first_drop(range(len(accuracies)), accuracies) is None:
        return "stable"
    if accuracies[-1] < 0.50:
        return "irreversible"
    return "collapse-recover" if accuracies[-1] >= 0.90 else "partial"


def fisher_exact(first: tuple[int, int], second: tuple[int, int]) -> float:
    """p of Fisher's exact test, two-sided: do two arms have one rate?

    The sum of the probabilities, given both totals, of all tables that are no likelier than this.

    Args:
        first, second: (successes, runs) of each arm.

    Raises:
        ProbekitError: counts that are no successes among runs.

    Example:
        >>> round(fisher_exact((4, 8), (2, 8)), 2)
        0.61
    """
    for successes, runs in (first, second):
        if not 0 <= successes <= runs or runs < 1:
            raise ProbekitError(
                f"an arm is (successes, runs), successes from 0 to runs and one run at least; "
                f"given {first} and {second}"
            )
    table = [[successes, runs - successes] for successes, runs in (first, second)]
    test: Any = scipy.stats.fisher_exact(table)
    return float(test.pvalue)


def permutation_p(first: Sequence[float], second: Sequence[float]) -> float:
    """p of the permutation test of ``|mean - mean|``: are two arms draws of one distribution?

    The share of the ways to deal the values to the arms whose means are at least as far apart:
    exact up to 100,000 ways (9 against 9), beyond them that many drawn ones with seed 0. No p is
    below one over the number of ways, twice that for arms of one size: .1 for 3 against 3.

    Raises:
        ProbekitError: fewer than two values in an arm, or one that is not finite.
    """
    if min(len(first), len(second)) < 2 or not np.isfinite([*first, *second]).all():
        raise ProbekitError(
            f"permutation_p needs two finite values an arm at least, not {[*first]} and "
            f"{[*second]}; leave out runs without a value"
        )
    scale = np.abs([*first, *second]).max() or 1.0

    def apart(x: np.ndarray, y: np.ndarray, axis: int) -> Any:
        # Rounded, or ties would differ by how they were summed.
        return np.abs(x.mean(axis) - y.mean(axis)).round(12)

    test = scipy.stats.permutation_test(
        [np.asarray(arm, dtype=float) / scale for arm in (first, second)],
        apart,
        alternative="greater",
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def fisher_power(p: float, q: float, runs: int, level: float = 0.05) -> float:
    """How often :func:`fisher_exact` of two arms of ``runs`` seeds is at most ``level``.

    Exact: the sum over all pairs of counts, each with its probability under rates p and q. At p =
    q it is the true level of the test, which is below the nominal one.

    Raises:
        ProbekitError: rates or a level outside [0, 1], or no runs.
    """
    for name, value in (("p", p), ("q", q), ("level", level)):
        check_share(name, value)
    if runs < 1:
        raise ProbekitError(f"runs must be 1 at least, not {runs}; give the seeds of one arm")
    counts = np.arange(runs + 1)
    # Not scipy.stats.binom.pmf, which overflows at rates that are no normal numbers.
    ways = scipy.special.comb(runs, counts)
    x, y = (ways * rate**counts * (1 - rate) ** (runs - counts) for rate in (p, q))
    return float(x @ (_fisher_table(runs) <= level) @ y)


def seeds_needed(p: float, q: float, power: float = 0.8, level: float = 0.05) -> int:
    """The fewest seeds an arm with which Fisher's test tells rate p from q that often.

    Power does not rise with every seed, as counts are whole: one seed more may have slightly less.

    Raises:
        ProbekitError: rates outside [0, 1], power or level not between 0 and 1, or rates so close
            that 200 seeds an arm do not suffice.
    """
    for name, value in (("power", power), ("level", level)):
        check_finite(name, value)
        if not 0 < value < 1:
            raise ProbekitError(f"{name} must lie between 0 and 1, such as 0.8, not {value}")
    for runs in range(1, _MOST_SEEDS + 1):
        if fisher_power(p, q, runs, level) >= power:
            return runs
    raise ProbekitError(
        f"{_MOST_SEEDS} seeds an arm do not tell {p} from {q} with power {power}; compare rates "
        "further apart, or a real-valued outcome with permutation_p"
    )


def check_log(steps: Sequence[int], values: Sequence[float]) -> None:
    """Refuse a log whose steps do not increase, or that has not one value a step."""
    if len(steps) != len(values) or any(b <= a for a, b in pairwise(steps)):
        raise ProbekitError(
            f"a log needs increasing steps with one value each, not {len(values)} values at steps "
            f"{[*steps]}"
        )


def _fisher_table(runs: int) -> Float[np.ndarray, "first second"]:
    """Two-sided p of all pairs of counts.

    Arms of one size: given the total, counts (a, b) and (b, a) are equally likely, and the less
    so the further apart. So p is twice the tail of the smaller count, and 1 where they are equal.
    """
    first, second = np.meshgrid(np.arange(runs + 1), np.arange(runs + 1), indexing="ij")
    tail = scipy.stats.hypergeom.cdf(np.minimum(first, second), 2 * runs, first + second, runs)
    return np.where(first == second, 1.0, np.minimum(1.0, 2 * tail))
