"""What a finished condition left behind: the early stop, final values, tails, gradients."""

import json
from typing import Any

import numpy as np
import pytest

from probekit.training import ConditionRun

#: Two heads around a mean that rises until step 2900 and jumps after it.
MEANS = {step: 0.4 + 1e-4 * step if step <= 2900 else 0.9 for step in range(0, 5001, 100)}


def _run(window: dict[str, int] | None) -> ConditionRun:
    rows = [
        {"step": step, "vdi": [mean - 0.1, mean + 0.1], "test_accuracy": step / 5000}
        for step, mean in MEANS.items()
    ]
    return ConditionRun(rows, {"windows": {"in_training": window}})


def test_the_early_stop_ends_the_final_value_and_not_the_run() -> None:
    run = _run({"start": 500, "end": 1500})
    assert run.stopped == 2500  # a thousand steps after the end of the window
    assert run.final() == pytest.approx(0.4 + 1e-4 * np.mean(range(1600, 2501, 100)))
    assert run.accuracy == 0.5
    assert run.rows[-1]["step"] == 5000
    assert json.dumps(run.rows)


def test_without_a_window_or_with_a_late_one_the_run_ends_at_its_end() -> None:
    for window in (None, {"start": 100, "end": 4500}):
        run = _run(window)
        assert (run.stopped, run.accuracy) == (5000, 1.0)
        assert run.final() == pytest.approx(0.9)


def test_it_moved_from_two_thirds_of_its_steps_on() -> None:
    run = _run({"start": 500, "end": 1500})
    at_two_thirds = 0.4 + 1e-4 * np.mean(range(700, 1601, 100))
    assert run.moved() == pytest.approx(run.final() - at_two_thirds)
    assert run.moved() == pytest.approx(0.09)
    falling = [{**row, "vdi": [-value for value in row["vdi"]]} for row in run.rows]
    assert ConditionRun(falling, run.trajectory).moved() == pytest.approx(0.09)


def test_a_series_has_the_steps_at_which_it_was_logged() -> None:
    run = ConditionRun([{"step": 0, "x": 1.0}, {"step": 10}, {"step": 20, "x": 2.0}], {})
    steps, values = run.series("x")
    assert (steps, values.tolist()) == ([0, 20], [1.0, 2.0])


def test_the_largest_gradient_is_weighted_and_over_the_checkpoints_that_measured_it() -> None:
    measured = [(0, 2.0, 0.3), (2, 5.0, 0.7), (3, 1.0, 0.1)]
    rows: list[dict[str, Any]] = [
        {
            "step": step,
            "gradient_norms": {"task": task},
            "attached_gradient_norms": {"set_point": set_point},
        }
        for step, task, set_point in measured
    ]
    rows.insert(1, {"step": 1})
    config = {"config": {"condition": {"losses": {"set_point": 0.2, "convergence": 0.3}}}}
    run = ConditionRun(rows, {}, config=config)
    assert run.largest_gradient("task") == 5.0
    assert run.largest_gradient("set_point", "attached_gradient_norms") == pytest.approx(0.14)
    assert run.largest_gradient("convergence") == 0.0
