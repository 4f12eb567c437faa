"""Conditions side by side: as if each were alone, and the same after an interruption."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probekit.training import (
    Condition,
    ConditionRun,
    Homeostasis,
    Schedule,
    condition_runs,
    train_conditions,
)
from probekit.training.side_by_side import SideBySide

SCHEDULE = Schedule(steps=30, batch=16, lr=1e-2, log_every=10, monitor_every=10)
LIVE = {"attached": True, "rows": "visible"}
CORRECTED = [
    Condition("low", Homeostasis(0.3, 0.2, target=0.4, **LIVE), layout="leak-free", complete=True),
    Condition(
        "high",
        Homeostasis(0.3, 5.0, target=0.9, **LIVE),
        slow=0.5,
        layout="leak-free",
        complete=True,
    ),
]
PUBLISHED = [Condition(f"{target}", Homeostasis(0.3, 0.2, target=target)) for target in (0.4, 0.6)]


def _train(folder: Path, conditions: list[Condition]) -> dict[str, ConditionRun]:
    train_conditions(folder / "stack", conditions, 0, SCHEDULE, title="", position=0)
    return {one.name: ConditionRun.read(folder / one.name) for one in conditions}


def test_a_run_in_a_stack_is_the_run_alone(tmp_path: Path) -> None:
    together = _train(tmp_path / "together", CORRECTED)
    for condition in CORRECTED:
        alone = _train(tmp_path / condition.name, [condition])[condition.name]
        for key in ("vdi", "vdi_visible", "monitor_vdi"):
            np.testing.assert_allclose(
                together[condition.name].series(key)[1], alone.series(key)[1], atol=1e-5
            )
    low, high = (together[name].series("vdi")[1] for name in ("low", "high"))
    assert np.abs(low - high).max() > 1e-3


def test_terms_without_gradient_are_one_computation_and_logged_against_their_targets(
    tmp_path: Path,
) -> None:
    together = _train(tmp_path / "together", PUBLISHED)
    for condition in PUBLISHED:
        alone = _train(tmp_path / condition.name, [condition])[condition.name]
        assert together[condition.name].rows == alone.rows
    first, second = together.values()
    assert first.rows[-1]["vdi"] == second.rows[-1]["vdi"]
    assert first.rows[-1]["losses"]["set_point"] != second.rows[-1]["losses"]["set_point"]


def test_the_published_grouping_leaves_its_parameters_where_they_were() -> None:
    published = SideBySide(PUBLISHED, 0, SCHEDULE)
    corrected = SideBySide(CORRECTED, 0, SCHEDULE)
    for stacked, still in (
        (published, {"ln_out.weight", "ln_out.bias", "head.weight"}),
        (corrected, set()),
    ):
        before = {name: p.detach().clone() for name, p in stacked.stack.parameters.items()}
        for step in range(3):
            stacked.update(step)
        after = stacked.stack.parameters
        assert {name for name in before if after[name].equal(before[name])} == still


@pytest.mark.parametrize("at", [5, 10, 17, 29])
def test_an_interrupted_run_ends_with_the_same_files(tmp_path: Path, monkeypatch, at: int) -> None:
    _train(tmp_path / "whole", CORRECTED)
    update = SideBySide.update

    def interrupted(self: Any, step: int) -> None:
        if step == at:
            raise KeyboardInterrupt
        update(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(SideBySide, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _train(tmp_path / "broken", CORRECTED)
    _train(tmp_path / "broken", CORRECTED)
    for name in ("low", "high"):
        for file in ("metrics.jsonl", "summary.json", "developmental_trajectory.json"):
            whole, broken = (tmp_path / kind / name / file for kind in ("whole", "broken"))
            assert broken.read_text() == whole.read_text()


def test_finished_work_is_not_redone(tmp_path: Path, monkeypatch) -> None:
    _train(tmp_path, PUBLISHED)
    left = {path: path.read_bytes() for path in tmp_path.glob("*/*")}
    monkeypatch.setattr(condition_runs, "SideBySide", None)
    _train(tmp_path, PUBLISHED)
    shutil.rmtree(tmp_path / PUBLISHED[0].name)  # a condition's own folder is written again
    _train(tmp_path, PUBLISHED)
    assert {path: path.read_bytes() for path in tmp_path.glob("*/*")} == left
