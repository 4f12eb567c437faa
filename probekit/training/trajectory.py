"""What the developmental monitor saw over a run, read off its log rows.

A row has ``step, vdi_mean, vdi_spread, test_accuracy``, and ``monitor_vdi`` per head where those
are the training loss's; rows of monitor checkpoints also have ``vdi_by_query`` and
``gaussian_entropy``, those of kill tests ``kill_test``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from .kill_test import compensating_heads, compensation_score
from .monitor import acceleration, detect_snap, saturation_ratio, velocity
from .window import detect_window

#: The write-up calls a layer saturated from this ratio on.
SATURATED = 0.9


def developmental_trajectory(rows: Sequence[Mapping[str, Any]], width: int) -> dict[str, Any]:
    """VDI history, velocity, acceleration, windows, snap, saturation and kill tests, as plain data.

    Args:
        rows: the log, in order.
        width: d_model, for the published saturation ratio.
    """
    log_steps = [row["step"] for row in rows]
    spreads = [row["vdi_spread"] for row in rows]
    accuracies = [row["test_accuracy"] for row in rows]
    monitor = [row for row in rows if "gaussian_entropy" in row and row["step"] > 0]
    steps = [row["step"] for row in monitor]
    means = [
        fmean(row["monitor_vdi"]) if "monitor_vdi" in row else row["vdi_mean"] for row in monitor
    ]
    ratios = [saturation_ratio(row["gaussian_entropy"], width) for row in monitor]
    windows = {
        "in_training": detect_window(log_steps, spreads, accuracies),
        "ungated": detect_window(log_steps, spreads),
        "persistent": detect_window(log_steps, spreads, persistent=True),
    }
    snap = detect_snap(steps, means, [row["vdi_spread"] for row in monitor])
    return {
        "steps": steps,
        "vdi_mean": means,
        "velocity": velocity(steps, means),
        "acceleration": acceleration(steps, means),
        "windows": {name: window and asdict(window) for name, window in windows.items()},
        "snap": snap and asdict(snap),
        "saturation_ratio": ratios,
        "saturated": [s for s, ratio in zip(steps, ratios, strict=True) if ratio >= SATURATED],
        "kill_tests": kill_scores(rows),
    }


def kill_scores(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compensation scores of every kill test, against three baselines.

    ``stale``: as published, the first test's undisturbed reading, never refreshed. ``fresh``: the
    same step's. ``undisturbed``: the published score with no head scaled at all, its control.
    """
    tests = [(row["step"], _responses(row["kill_test"])) for row in rows if "kill_test" in row]
    scores = []
    for step, responses in tests:
        stale, fresh = tests[0][1][1.0], responses[1.0]
        scores.append(
            {
                "step": step,
                "stale": compensation_score(responses, stale),
                "fresh": compensation_score(responses, fresh),
                "undisturbed": compensation_score(dict.fromkeys(responses, fresh), stale),
                "compensating_heads": max(
                    compensating_heads(response, stale, omega)
                    for omega, response in responses.items()
                ),
            }
        )
    return scores


def _responses(stored: Mapping[Any, Any]) -> dict[float, Tensor]:
    return {float(k): torch.as_tensor(v, dtype=torch.float64) for k, v in stored.items()}
