"""Does a controlled quantity follow its target? Slopes with intervals, and a verdict by rules.

Seeds, not runs, are what is independent: a slope is taken within each seed and the interval is
Student's t over seeds. The null is the same slope with targets shuffled within each seed.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float

from ..errors import ProbekitError

#: A slope below this, in absolute value, follows nothing; above the second it follows its target.
FLAT, FOLLOWS = 0.15, 0.5
#: Of the runs: from more than this share that still move, the sweep counts as unstable.
UNSTABLE = 0.2
#: Finals that differ by less are equal: what summing in another order changes.
_ROUNDING = 1e-9
#: Shuffles are enumerated up to this many, and drawn beyond.
_SHUFFLES = 2000

Outcome = str
OUTCOMES = ("unstable", "tracks its target", "ceiling", "forced attractor", "no effect", "partial")


@dataclass(frozen=True)
class Slope:
    """A slope of final values on targets: mean over seeds, its 95 % interval, and its null.

    ``shuffled`` is the central 95 % of the same mean slope with targets shuffled within seeds,
    ``p`` the share of shuffles with a slope at least as large in absolute value.
    """

    mean: float
    interval: tuple[float, float]
    per_seed: tuple[float, ...]
    shuffled: tuple[float, float]
    p: float


def target_slope(
    targets: Sequence[float], finals: Float[np.ndarray, "seed target"], seed: int = 0
) -> Slope:
    """The slope of final values on targets, by least squares within each seed.

    The interval is infinite with a single seed.

    Raises:
        ProbekitError: fewer than two different targets, or another number of columns.
    """
    x = np.asarray(targets, dtype=float)
    if finals.shape[1:] != x.shape or len(set(targets)) < 2:
        raise ProbekitError(
            f"{finals.shape} values for targets {tuple(targets)}; give a column a target, and two "
            "different targets at least"
        )
    slopes = _slopes(x, finals)
    null = np.array([_slopes(x, shuffled).mean() for shuffled in _shuffles(finals, seed)])
    low, high = np.quantile(null, [0.025, 0.975])
    at_least = (np.abs(null) >= abs(slopes.mean()) - 1e-12).sum()
    drawn = len(null) == _SHUFFLES  # then the true order is one more
    return Slope(
        float(slopes.mean()),
        t_interval(slopes),
        tuple(map(float, slopes)),
        (float(low), float(high)),
        float((at_least + drawn) / (len(null) + drawn)),
    )


def t_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean; infinite for a single value."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return -math.inf, math.inf
    half = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * scipy.stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def saturation_of_targets(
    targets: Sequence[float], finals: Float[np.ndarray, "seed target"]
) -> float:
    """Slope over the upper half of the targets over that of the lower half, means over seeds.

    1 where high targets are followed as well as low ones, 0 where the value has hit a ceiling.
    NaN where the lower half follows nothing (a slope below 0.15), or of fewer than three targets.
    """
    if len(targets) < 3:
        return math.nan
    lower, upper = (slopes.mean() for slopes in _half_slopes(targets, finals))
    return float(upper / lower) if lower > FLAT else math.nan


def classify_outcome(
    targets: Sequence[float],
    finals: Float[np.ndarray, "seed target"],
    moved: Float[np.ndarray, "seed target"],
    untreated: Float[np.ndarray, " seed"],
) -> Outcome:
    """One of :data:`OUTCOMES`, by these rules in this order. "Surely" is a 95 % interval.

    no effect           every final is that of its seed without the term, to rounding
    unstable            more than a fifth of the runs moved, over the last third of training, by
                        more than half the distance between neighbouring targets
    ceiling             the lower half of the targets is followed (slope > 0.5, surely above 0),
                        the upper surely less than half as well
    tracks its target   mean slope above 0.5, surely above 0, and finals closer to their targets
                        than neighbouring targets are to each other (mean over runs)
    partial             a slope of 0.15 or more that is neither
    no effect, again    flat, and not surely different from the same seeds without the term
    forced attractor    flat, and elsewhere than without the term

    Args:
        targets: ascending.
        finals: final values.
        moved: how far each run moved over the last third of training.
        untreated: final values of the same seeds without the loss terms.
    """
    x = np.asarray(targets, dtype=float)
    spacing, slope = np.diff(x).mean(), target_slope(targets, finals)
    if np.allclose(finals, untreated[:, None], rtol=0, atol=_ROUNDING):
        return "no effect"
    if (moved > spacing / 2).mean() > UNSTABLE:
        return "unstable"
    if len(targets) > 2:
        lower, upper = _half_slopes(targets, finals)
        followed = lower.mean() > FOLLOWS and t_interval(lower)[0] > 0
        if followed and t_interval(upper - lower / 2)[1] < 0:
            return "ceiling"
    near = np.abs(finals - x).mean() < spacing
    if slope.mean > FOLLOWS and slope.interval[0] > 0 and near:
        return "tracks its target"
    if abs(slope.mean) >= FLAT:
        return "partial"
    low, high = t_interval(finals.mean(1) - untreated)
    return "no effect" if low <= 0 <= high else "forced attractor"


def _half_slopes(
    targets: Sequence[float], finals: Float[np.ndarray, "seed target"]
) -> tuple[Float[np.ndarray, " seed"], Float[np.ndarray, " seed"]]:
    """Slopes over the lower and the upper half of the targets, the middle one in both."""
    x = np.asarray(targets, dtype=float)
    below, above = (len(x) + 1) // 2, len(x) // 2
    return _slopes(x[:below], finals[:, :below]), _slopes(x[above:], finals[:, above:])


def _slopes(x: np.ndarray, y: Float[np.ndarray, "seed target"]) -> Float[np.ndarray, " seed"]:
    centred = x - x.mean()
    return (y - y.mean(1, keepdims=True)) @ centred / (centred**2).sum()


def _shuffles(finals: np.ndarray, seed: int) -> list[np.ndarray]:
    """``finals`` with each seed's values shuffled: all ways if they are few, else a sample."""
    n_seeds, n_targets = finals.shape
    orders = [list(order) for order in itertools.permutations(range(n_targets))]
    if len(orders) ** n_seeds <= _SHUFFLES:
        ways = itertools.product(orders, repeat=n_seeds)
        return [np.take_along_axis(finals, np.array(way), 1) for way in ways]
    generator = np.random.default_rng(seed)
    return [generator.permuted(finals, axis=1) for _ in range(_SHUFFLES)]
