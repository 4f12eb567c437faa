"""Finite differences, the snap detector, and the Gaussian entropy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probekit.training import (
    Snap,
    acceleration,
    detect_snap,
    gaussian_entropy,
    largest_acceleration,
    saturation_ratio,
    velocity,
)

STEPS = [500 * k for k in range(1, 20)]
unit_interval = st.lists(st.floats(0, 1), min_size=19, max_size=19)


@given(unit_interval)
def test_differences_are_numpys(values):
    assert velocity(STEPS, values) == pytest.approx(np.diff(values) / 500, abs=1e-15)
    assert acceleration(STEPS, values) == pytest.approx(np.diff(values, 2) / 500**2, abs=1e-15)


@given(unit_interval)
def test_no_trajectory_sampled_every_500_steps_can_snap(values):
    assert detect_snap(STEPS, values, [0.0] * 19) is None
    bound = largest_acceleration(500)
    assert max(map(abs, acceleration(STEPS, values))) <= bound * (1 + 1e-9)


def test_differences_on_uneven_steps_are_per_step():
    steps, values = [0, 1, 3, 7], [0.0, 1.0, 2.0, 8.0]
    assert velocity(steps, values) == [1.0, 0.5, 1.5]
    # Each change of the velocity, over the interval that ends where the change is seen.
    assert acceleration(steps, values) == [-0.5 / 2, 1.0 / 4]


def test_largest_acceleration_is_reached_by_a_spike():
    assert min(acceleration([0, 500, 1000], [0.0, 1.0, 0.0])) == -largest_acceleration(500)


def test_snap_is_found_where_sampling_allows_it():
    steps, values = list(range(6)), [0.0, 0.0, 0.5, 0.5, 0.5, 0.5]
    # The velocity falls from 0.5 to 0 at step 3: acceleration -0.5, settled, spread falls by 0.1.
    assert detect_snap(steps, values, [0.1] * 3 + [0.0] * 3) == Snap(3, -0.5, 1.0)
    assert detect_snap(steps[:4], values[:4], [0.0] * 4) is None  # fewer than five samples


def test_snap_confidence_follows_the_published_formula():
    steps, values = [0, 1, 2, 3, 4], [0.0, 0.001, 0.002, 0.001, 0.0]
    found = detect_snap(steps, values, [0.3, 0.3, 0.3, 0.1, 0.1])
    assert found is not None and found.step == 3
    assert found.confidence == pytest.approx(0.002 / 0.01 * 0.5 * (1 + 0.2))


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        ([0.0, 0.0, 0.1, 0.0, 0.0, 0.0], 0.5),  # settled from the snap on: what led up to it is not
        ([0.0, 0.0, 0.1, 0.0, 0.05, 0.05], 0.2),  # moves by 0.05 right after it, then rests
    ],
)
def test_snap_confidence_asks_whether_the_values_settle_from_the_snap_on(values, factor):
    # The velocity goes from 0.01 to -0.01 within ten steps.
    found = detect_snap([0, 10, 20, 30, 40, 50], values, [0.3, 0.3, 0.3, 0.1, 0.1, 0.1])
    assert found is not None and found.step == 30
    assert found.acceleration == pytest.approx(-0.002)
    assert found.confidence == pytest.approx(0.002 / 0.01 * factor * (1 + 0.2))


def test_gaussian_entropy_of_independent_normals():
    scales = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    x = torch.randn(200_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # (1/2) log2 of the product of variances, a dimension; sampling error about 1/sqrt(n).
    assert gaussian_entropy(x * scales) == pytest.approx(math.log2(0.5 * 1 * 4) / 3, abs=0.01)


def test_saturation_ratio_has_the_published_capacity():
    assert 1 / saturation_ratio(1.0, 64) == pytest.approx(110.7, abs=0.05)
