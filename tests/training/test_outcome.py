"""Slopes, intervals, nulls and the rules that name an outcome."""

import math

import numpy as np
import pytest
from scipy import stats

import probekit as pk
from probekit.training import classify_outcome, saturation_of_targets, t_interval, target_slope

TARGETS = (0.45, 0.50, 0.55, 0.60, 0.65)
CALM = np.zeros((3, 5))


def _noise(scale: float = 0.002) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, (3, 5))


def test_the_slope_is_least_squares_within_each_seed() -> None:
    finals = 0.3 + 0.4 * np.array(TARGETS) + _noise()
    slope = target_slope(TARGETS, finals)
    expected = [stats.linregress(TARGETS, row).slope for row in finals]
    np.testing.assert_allclose(slope.per_seed, expected)
    interval = stats.ttest_1samp(expected, 0).confidence_interval()
    np.testing.assert_allclose(slope.interval, (interval.low, interval.high))


def test_shuffled_targets_centre_on_no_slope() -> None:
    slope = target_slope(TARGETS, np.array(TARGETS) + _noise())
    assert slope.shuffled[0] < 0 < slope.shuffled[1] < slope.mean
    assert slope.p < 0.01
    assert target_slope(TARGETS, np.full((3, 5), 0.45)).p == 1


def test_all_ways_of_shuffling_are_taken_where_they_are_few() -> None:
    slope = target_slope((0.0, 1.0), np.array([[0.0, 1.0]]))
    assert slope.p == 1  # one of two orders, and its mirror image is as steep
    assert slope.interval == (-math.inf, math.inf)


def test_a_t_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        low, high = t_interval(generator.normal(1, 2, 5))
        inside += low <= 1 <= high
    assert abs(inside / 400 - 0.95) < 0.035


@pytest.mark.parametrize(
    ("finals", "moved", "untreated", "outcome"),
    [
        (np.array(TARGETS), CALM, 0.5, "tracks its target"),
        (np.minimum(TARGETS, 0.55), CALM, 0.5, "ceiling"),
        (np.full(5, 0.45), CALM, 0.45, "no effect"),
        (np.full(5, 0.45), CALM, 0.55, "forced attractor"),
        (0.4 + 0.3 * np.array(TARGETS), CALM, 0.5, "partial"),
        (np.array(TARGETS), CALM + 0.026, 0.5, "unstable"),
        (np.array(TARGETS), CALM + 0.024, 0.5, "tracks its target"),
        (np.array(TARGETS) + 0.04, CALM, 0.5, "tracks its target"),
        (np.array(TARGETS) + 0.06, CALM, 0.5, "partial"),  # parallel, and nowhere near
        (0.25 + 0.45 * np.array(TARGETS), CALM, 0.5, "partial"),
        (0.5 - 0.5 * np.array(TARGETS), CALM, 0.5, "partial"),
        (0.45 + 0.13 * np.array(TARGETS), CALM, 0.9, "forced attractor"),
        # The upper half is followed 0.7 times as well as the lower.
        (np.array([0.45, 0.50, 0.55, 0.585, 0.62]), CALM, 0.5, "tracks its target"),
    ],
)
def test_outcomes_are_named_by_rule(finals, moved, untreated, outcome) -> None:
    noise = np.random.default_rng(1).normal(0, 1e-3, 3)
    values = finals + _noise(1e-3)
    named = classify_outcome(TARGETS, values, moved, np.full(3, untreated) + noise)
    assert named == outcome


def test_a_fifth_of_the_runs_may_still_move() -> None:
    finals, moved = np.array(TARGETS) + _noise(1e-3), CALM.copy()
    moved[:, 2] = 0.5
    assert classify_outcome(TARGETS, finals, moved, np.full(3, 0.5)) == "tracks its target"
    moved[0, 0] = 0.5
    assert classify_outcome(TARGETS, finals, moved, np.full(3, 0.5)) == "unstable"


def test_a_ceiling_and_a_track_are_sure_over_seeds() -> None:
    finals = np.array(TARGETS) + np.zeros((3, 1))
    finals[0, 2:] = 0.55  # one seed hits a ceiling, two do not
    assert classify_outcome(TARGETS, finals, CALM, np.full(3, 0.5)) != "ceiling"
    steep = np.array([[2.9], [0.1], [0.1]]) * (np.array(TARGETS) - 0.55) + 0.55
    assert classify_outcome(TARGETS, steep, CALM, np.full(3, 0.5)) == "partial"
    alone = finals[1:2]
    assert classify_outcome(TARGETS, alone, CALM[:1], np.full(1, 0.5)) == "partial"


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_one_algorithm_has_no_effect_whatever_the_rounding(seeds) -> None:
    generator = np.random.default_rng(0)
    for _ in range(40):
        untreated = generator.uniform(0.4, 0.5, seeds)
        finals = np.repeat(untreated[:, None], 5, axis=1) * (1 + 1e-16)
        moved = np.full((seeds, 5), 0.03)
        assert classify_outcome(TARGETS, finals, moved, untreated) == "no effect"


def test_a_sampled_p_is_never_zero() -> None:
    slope = target_slope(TARGETS, np.array(TARGETS) + _noise(1e-6))
    assert slope.p >= 1 / 2001


def test_saturation_is_the_upper_slope_over_the_lower() -> None:
    assert saturation_of_targets(TARGETS, np.array([TARGETS])) == pytest.approx(1)
    assert saturation_of_targets(TARGETS, np.minimum([TARGETS], 0.55)) == pytest.approx(0)
    assert math.isnan(saturation_of_targets(TARGETS, np.full((2, 5), 0.4)))
    assert math.isnan(saturation_of_targets((0.4, 0.6), np.array([[0.4, 0.6]])))


def test_one_target_has_no_slope() -> None:
    with pytest.raises(pk.ProbekitError, match="two different targets at least"):
        target_slope((0.5, 0.5), np.zeros((3, 2)))
