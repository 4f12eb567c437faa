"""The recipe end to end, small; and what its claims say of runs whose course is known."""

from pathlib import Path
from typing import Any

import pytest

from probekit import recipes
from probekit.claims import decide
from probekit.training import DriftRun

RECIPE: Any = recipes.load(recipes.find("temporal-order"))
SMALL = {
    "seeds": (0, 1),
    "modular_steps": 50,
    "modular_width": 16,
    "modulus": 11,
    "modular_batch": 16,
    "modular_log_every": 5,
    "steps": 60,
    "vocab": 8,
    "length": 10,
    "width": 16,
    "batch": 16,
    "log_every": 10,
    "lr": 1e-2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, RECIPE.Config(**SMALL), "small", out)
    return out / "temporal-order" / "small", summary


def test_every_arm_leaves_its_folder(finished):
    folder, summary = finished
    for arm in RECIPE.ARMS:
        run = DriftRun.read(folder / "seed1" / arm)
        assert run.steps == list(range(0, 51, 5)) if arm == "modular" else list(range(0, 61, 10))
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in RECIPE.CLAIMS}
    assert (folder / "report.html").stat().st_size > 50_000
    assert {path.stem for path in folder.glob("*.png")} == {"order", "drift"}


def test_only_the_arm_without_a_mask_sees_the_answer(finished):
    folder, _ = finished
    results = RECIPE.collect(RECIPE.Config(**SMALL), folder)
    found = {arm: [leak["found"] for leak in leaks] for arm, leaks in results.leaks.items()}
    assert found == {
        "modular": [False, False],
        "bidirectional": [True, True],
        "causal": [False, False],
    }


def test_finished_work_is_not_redone(finished):
    folder, summary = finished
    logs = [path / "metrics.jsonl" for path in folder.glob("seed*/*")]
    before = [log.stat().st_mtime_ns for log in logs]
    again = recipes.run(RECIPE, RECIPE.Config(**SMALL), "small", folder.parents[1])
    assert [log.stat().st_mtime_ns for log in logs] == before
    assert again == summary


def moving(drifts: dict[str, float], log_every: int, grok: int) -> DriftRun:
    """Parts that jump by so much at the first log and rest; accuracy 1 from step ``grok`` on."""

    def row(i: int) -> dict[str, Any]:
        parts = {part: {"drift": size * float(i > 0)} for part, size in drifts.items()}
        step = i * log_every
        return {"step": step, "accuracy": [float(step >= grok)], "parts": parts}

    return DriftRun([row(i) for i in range(51)])


def verdicts(drifts: dict[str, float], grok: int) -> dict[str, str]:
    runs = {"modular": [moving(drifts, 100, grok)], "bidirectional": [moving(drifts, 50, 600)]}
    results = RECIPE.Results(RECIPE.Config(), runs, {})
    return {claim.id: decide(claim, results, "")["verdict"] for claim in RECIPE.CLAIMS}


def test_what_holds_for_the_mlp_as_well_says_nothing_of_geometry():
    alike = verdicts({"QKV": 10.0, "MLP": 10.0}, grok=3_500)
    assert alike["002-2"] == "reproduced"
    assert alike["002-2-stable"] == alike["002-2-order"] == "explained by null"
    assert alike["002-2-interleaved"] == "explained by null"


def test_an_early_onset_of_function_is_not_the_published_order():
    assert verdicts({"QKV": 10.0, "MLP": 10.0}, grok=1_200)["002-2-order"] == "not reproduced"


def test_a_jump_that_stays_has_no_onset_by_the_rule():
    assert verdicts({"QKV": 10.0, "MLP": 10.0}, grok=3_500)["002-2-onset"] == "explained by null"
