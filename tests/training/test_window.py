"""Crystallization windows: gate, persistence, and crossings by chance."""

import math

import pytest
import torch

from probekit.training import Window, chance_crossing_rate, detect_window, head_spread

STEPS = [0, 100, 200, 300, 400, 500]


def test_window_without_persistence_takes_a_mere_crossing():
    spreads = [0.1, 5e-5, 0.1, 0.1, 0.1, 0.1]
    assert detect_window(STEPS, spreads) == Window(100, 100)
    assert detect_window(STEPS, spreads, persistent=True) is None
    assert Window(100, 100).duration == 0


def test_start_and_end_have_their_own_thresholds():
    spreads = [0.1, 9e-4, 5e-4, 9e-5, 2e-5, 1e-5]
    assert detect_window(STEPS, spreads) == Window(100, 300)


def test_what_persists_has_five_later_logs():
    steps = list(range(0, 1000, 100))
    spreads = [0.1, 9e-4, 5e-4, 9e-5, *[1e-5] * 6]
    assert detect_window(steps, spreads, persistent=True) == Window(100, 300)
    assert detect_window(steps[:9], spreads[:9], persistent=True) == Window(100, 300)
    assert detect_window(steps[:8], spreads[:8], persistent=True) is None
    again = [*spreads[:-1], 2e-4]
    assert detect_window(steps, again, persistent=True) is None


def test_in_training_detector_waits_for_the_accuracy():
    spreads = [1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5]
    accuracies = [0.0, 0.5, 0.95, 0.96, 1.0, 1.0]
    assert detect_window(STEPS, spreads) == Window(0, 0)  # heads that agree at initialisation
    assert detect_window(STEPS, spreads, accuracies) == Window(300, 300)
    assert detect_window(STEPS, spreads, [0.5] * 6) is None


def test_no_end_no_window():
    assert detect_window(STEPS, [5e-4] * 6) is None


def test_spread_of_two_heads():
    vdi = torch.tensor([0.6, 0.5], dtype=torch.float64)
    assert head_spread(vdi) == pytest.approx(0.05)  # |v0 - v1| / 2
    assert head_spread(vdi, sample=True) == pytest.approx(0.1 / 2**0.5)


def test_chance_crossings_are_counted_where_nothing_changes():
    means = [0.1 * step for step in range(20)] + [0.5, 0.505] * 10
    spreads = [1e-5] * 20 + [1e-5, 0.1, 9e-5, 1e-4] * 5
    assert chance_crossing_rate(spreads, means) == 0.5
    drifting = [0.01 * step for step in range(40)]
    assert math.isnan(chance_crossing_rate(spreads, drifting))
    assert math.isnan(chance_crossing_rate(spreads[:15], means[:15]))  # too short to tell
    late = drifting[:30] + [0.3] * 10  # the last quarter alone is still
    assert chance_crossing_rate([0.1] * 30 + [1e-5] * 4 + [0.1] * 6, late) == 0.4


def test_heads_that_are_equal_for_good_do_not_cross_by_chance():
    assert math.isnan(chance_crossing_rate([0.1] * 10 + [1e-5] * 30, [0.5] * 40))
