"""What the monitor makes of a log that was written by hand."""

import math
from typing import Any

import pytest

from probekit.training import developmental_trajectory, kill_scores

WIDTH = 2
#: Bits that the published ratio calls 1: width/2 log2(1 + 1/0.1).
CAPACITY = math.log2(11)


def _row(step: int, spread: float, accuracy: float = 1.0, **monitored: Any) -> dict[str, Any]:
    return {
        "step": step,
        "vdi_mean": 0.5 + step / 10_000,
        "vdi_spread": spread,
        "test_accuracy": accuracy,
        **monitored,
    }


def _log(spreads: list[float], accuracies: list[float]) -> dict[str, Any]:
    rows = [_row(100 * k, *pair) for k, pair in enumerate(zip(spreads, accuracies, strict=True))]
    return developmental_trajectory(rows, WIDTH)


def test_the_monitor_starts_after_step_0_and_sees_its_own_checkpoints() -> None:
    rows = [_row(100 * k, 0.1) for k in range(16)]
    for step, ratio in ((0, 0.95), (500, 0.899), (1000, 0.901), (1500, 0.2)):
        rows[step // 100]["gaussian_entropy"] = ratio * CAPACITY
    seen = developmental_trajectory(rows, WIDTH)
    assert seen["steps"] == [500, 1000, 1500]
    assert seen["vdi_mean"] == pytest.approx([0.55, 0.6, 0.65])
    assert seen["velocity"] == pytest.approx([1e-4, 1e-4])
    assert seen["saturation_ratio"] == pytest.approx([0.899, 0.901, 0.2])
    assert seen["saturated"] == [1000]


def test_the_three_windows_are_gated_ungated_and_persistent() -> None:
    crossing, parted, together = 5e-5, 0.1, 2e-5
    seen = _log(
        [parted, crossing, parted, crossing, parted] + 8 * [together],
        [0.5, 0.9, 0.94, 0.96, 1.0] + 8 * [1.0],
    )
    assert seen["windows"] == {
        "in_training": {"start": 300, "end": 300},  # the first crossing above 95 %
        "ungated": {"start": 100, "end": 100},
        "persistent": {"start": 500, "end": 500},
    }


def test_heads_that_never_agree_have_no_window() -> None:
    nothing = {"in_training": None, "ungated": None, "persistent": None}
    assert _log([0.1] * 4, [1.0] * 4)["windows"] == nothing


def test_a_snap_is_looked_for_among_the_monitors_checkpoints() -> None:
    rows = [_row(step, 0.0, gaussian_entropy=0.0) for step in range(7)]
    for row, mean in zip(rows, [0.9, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5], strict=True):
        row["vdi_mean"] = mean  # from 0 to 0.5 between steps 2 and 3, at rest from then on
    snap = developmental_trajectory(rows, WIDTH)["snap"]
    assert snap == {"step": 4, "acceleration": -0.5, "confidence": 1.0}


def _test(step: int, responses: dict[float, tuple[float, float, float]]) -> dict[str, Any]:
    """A log row of a layer of three heads, the first of which is scaled."""
    return {"step": step, "kill_test": {str(o): [list(v)] for o, v in responses.items()}}


def test_a_kill_test_is_scored_against_three_baselines() -> None:
    rest = (0.5, 0.5, 0.5)
    first = _test(500, {0.5: rest, 1.0: rest, 1.5: rest})
    second = _test(
        1500,
        {
            0.5: (0.1, 0.7, 0.8),
            1.0: (0.1, 0.6, 0.6),  # both other heads have drifted by 0.1
            1.5: (0.1, 0.6, 0.4),
        },
    )
    before, after = kill_scores([first, _row(1000, 0.1), second])
    assert before == {
        "step": 500,
        "stale": 0.0,
        "fresh": 0.0,
        "undisturbed": 0.0,
        "compensating_heads": 0,
    }
    assert after == {
        "step": 1500,
        "stale": pytest.approx((0.2 + 0.3 + 0.1 + 0.1) / 4),
        "fresh": pytest.approx((0.1 + 0.2 + 0.0 + 0.2) / 4),
        "undisturbed": pytest.approx(0.1),
        "compensating_heads": 2,
    }


def test_heads_compensate_against_the_stale_baseline() -> None:
    rest = (0.5, 0.5, 0.5)
    drifted = (0.5, 0.6, 0.6)  # at rest, but elsewhere than at the first test
    tests = [_test(at, dict.fromkeys((0.5, 1.0, 1.5), v)) for at, v in ((1, rest), (3, drifted))]
    last = kill_scores(tests)[-1]
    assert last["fresh"] == 0
    assert last["compensating_heads"] == 2  # up while a head is scaled down, as published
