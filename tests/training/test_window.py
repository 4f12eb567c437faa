"""Crystallization windows: gate, persistence, and crossings by chance."""

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
    assert detect_window(STEPS, spreads, persistent=True) == Window(100, 300)


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


def test_chance_crossing_rate_counts():
    assert chance_crossing_rate([1e-5, 0.1, 9e-5, 1e-4]) == 0.5
    assert chance_crossing_rate([]) == 0.0
