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
    ("finals", "tails", "untreated", "outcome"),
    [
        (np.array(TARGETS), CALM, 0.5, "tracks its target"),
        (np.minimum(TARGETS, 0.55), CALM, 0.5, "ceiling"),
        (np.full(5, 0.45), CALM, 0.45, "no effect"),
        (np.full(5, 0.45), CALM, 0.55, "forced attractor"),
        (0.4 + 0.3 * np.array(TARGETS), CALM, 0.5, "partial"),
        (np.array(TARGETS), CALM + 0.05, 0.5, "unstable"),
    ],
)
def test_outcomes_are_named_by_rule(finals, tails, untreated, outcome) -> None:
    noise = np.random.default_rng(1).normal(0, 1e-3, 3)
    values = finals + _noise(1e-3)
    named = classify_outcome(TARGETS, values, tails, np.full(3, untreated) + noise)
    assert named == outcome


def test_one_algorithm_has_no_effect_to_the_bit() -> None:
    finals = np.repeat(np.array([[0.42], [0.45], [0.50]]), 5, axis=1)
    assert classify_outcome(TARGETS, finals, CALM, finals[:, 0]) == "no effect"


def test_saturation_is_the_upper_slope_over_the_lower() -> None:
    assert saturation_of_targets(TARGETS, np.array([TARGETS])) == pytest.approx(1)
    assert saturation_of_targets(TARGETS, np.minimum([TARGETS], 0.55)) == pytest.approx(0)
    assert math.isnan(saturation_of_targets(TARGETS, np.full((2, 5), 0.4)))


def test_one_target_has_no_slope() -> None:
    with pytest.raises(pk.ProbekitError, match="two different targets at least"):
        target_slope((0.5, 0.5), np.zeros((3, 2)))
