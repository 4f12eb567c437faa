"""The recipe end to end, small: the same mechanism at fifty times the decay."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import probekit as pk
from probekit import recipes
from probekit.claims import decide
from probekit.training import DriftRun

RECIPE: Any = recipes.load(recipes.find("drift"))
#: lr * weight decay is 0.05 a step, so that Q and K are gone after some two hundred.
SMALL = {
    "seeds": (0, 1),
    "modulus": 11,
    "d_model": 16,
    "steps": 200,
    "batch": 16,
    "lr": 1e-2,
    "weight_decay": 5.0,
    "log_every": 20,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, RECIPE.Config(**SMALL), "small", out)
    return out / "drift" / "small", summary


def run_of(folder: Path, arm: str, seed: int = 0) -> DriftRun:
    return DriftRun.read(folder / f"seed{seed}" / arm)


def test_both_arms_start_alike_and_only_one_decays(finished):
    folder, _ = finished
    decay, without = run_of(folder, "decay"), run_of(folder, "no-decay")
    assert decay.part("QK", "norm")[0] == without.part("QK", "norm")[0]
    assert decay.part("QK", "norm")[-1] < 0.1 < without.part("QK", "norm")[-1]
    moved, beyond = (without.part("QK", what) for what in ("velocity", "beyond_decay"))
    assert moved.tolist() == beyond.tolist()


def test_what_is_gone_is_displaced_by_one_and_attends_uniformly(finished):
    folder, summary = finished
    claim = next(c for c in summary["claims"] if c["id"] == "002-2B-displacement")
    assert claim["measured"] == pytest.approx(1, abs=0.02)
    assert claim["null"] == pytest.approx(1 - 0.95**200)
    assert claim["verdict"] == "explained by null"
    assert run_of(folder, "decay").entropy[-1] == pytest.approx(np.ones(4), abs=1e-3)


def test_what_was_not_reached_is_not_claimed(finished):
    _, summary = finished
    claims = {claim["id"]: claim for claim in summary["claims"]}
    assert claims.keys() == {claim.id for claim in RECIPE.CLAIMS}
    assert claims["002-2B-frozen"]["observed"] == 0  # no log at step 4,000
    assert claims["002-2B-frozen"]["verdict"] == "not reproduced"


def test_the_report_and_the_figures_are_there(finished):
    folder, _ = finished
    assert (folder / "report.html").stat().st_size > 50_000
    names = {"velocity", "norm", "displacement", "attention", "heads", "rule"}
    assert {path.stem for path in folder.glob("*.png")} == names


def test_finished_work_is_not_redone(finished):
    folder, summary = finished
    log = folder / "seed0" / "decay" / "metrics.jsonl"
    before = log.stat().st_mtime_ns
    again = recipes.run(RECIPE, RECIPE.Config(**SMALL), "small", folder.parents[1])
    assert log.stat().st_mtime_ns == before
    assert again == summary
    with pytest.raises(pk.RunError, match="another config"):
        other = RECIPE.Config(**{**SMALL, "lr": 1e-3})
        recipes.run(RECIPE, other, "small", folder.parents[1])


def decaying(rate: float, still: float) -> Any:
    """Results of made-up runs: accuracy 1 from 3,500 on, |QK| falls by ``rate`` a step from there.

    OV has velocity ``still`` throughout.
    """

    def row(step: int) -> dict[str, Any]:
        norm = 9.0 * math.exp(-rate * max(0, step - 3_500))
        before = 9.0 * math.exp(-rate * max(0, step - 3_600))
        qk = {"norm": norm, "velocity": before - norm, "displacement": 1 - norm / 9, "drift": 8.0}
        parts = {"QK": qk, "QKV": qk, "OV": {"velocity": still}}
        heads = {"entropy": [[1.0, 0.5]], "head_norm": [[norm, 2.0]]}  # the second is used
        return {"step": step, "accuracy": [float(step >= 3_500)], "parts": parts, **heads}

    return DriftRun([row(step) for step in range(0, 9_001, 100)])


def verdicts(decay: float, without: float) -> dict[str, str]:
    runs = {"decay": [decaying(decay, 0.1)], "no-decay": [decaying(without, 0.1)]}
    results = RECIPE.Results(RECIPE.Config(), runs)
    return {claim.id: decide(claim, results, "")["verdict"] for claim in RECIPE.CLAIMS}


def test_verdicts_follow_the_rate_of_decay():
    found = verdicts(1e-3, 0.0)
    for name in ("002-2B", "002-2B-heads", "002-2B-displacement", "002-2B-order", "002-2-stable"):
        assert found[name] == "explained by null", name
    assert found["002-2B-flat"] == "reproduced"
    assert verdicts(1.2e-3, 0.0)["002-2B"] == "not reproduced"
    assert verdicts(1.2e-3, 0.0)["002-2B-heads"] == "not reproduced"
    assert verdicts(1e-3, 2e-4)["002-2B-flat"] == "not reproduced"
    assert verdicts(1e-4, 1e-4)["002-2B-flat"] == "explained by null"


def test_a_seed_without_a_uniform_head_says_nothing_of_such_heads():
    used = decaying(1e-3, 0.1)
    for row in used.rows:
        row["entropy"] = [[0.5, 0.5]]
    runs = {"decay": [decaying(1e-3, 0.1), used], "no-decay": [decaying(0.0, 0.1)] * 2}
    results = RECIPE.Results(RECIPE.Config(), runs)
    assert RECIPE.uniform_rates(results) == pytest.approx([1])
    runs["decay"] = [used, used]
    assert np.isnan(RECIPE.uniform_rates(results)).all()


@pytest.mark.parametrize(("steps", "late"), [(25_000, 7_000), (9_000, 7_000), (6_000, 5_400)])
def test_late_is_as_published_or_the_last_tenth(steps, late):
    config = RECIPE.Config(steps=steps)
    run = decaying(1e-3, 0.1)
    for row in run.rows:
        row["parts"]["QK"] = row["parts"]["QK"] | {"velocity": 0.2 if row["step"] >= late else 9.0}
    runs = {"decay": [run], "no-decay": [run]}
    assert RECIPE.velocity_ratios(RECIPE.Results(config, runs), "decay") == pytest.approx([2.0])


def test_the_slope_is_of_the_published_steps_and_what_follows_is_told_apart():
    """Of a run that decays over these steps, and comes back to five times where it began."""
    long = decaying(1e-3, 0.1)
    long.rows[:] = [row | {"step": 2 * row["step"]} for row in long.rows]  # 0 to 18,000
    for row in long.rows:
        if row["step"] > 15_000:
            row["parts"]["QK"] = row["parts"]["QK"] | {"norm": 45.0, "velocity": 9.0}
    results = RECIPE.Results(RECIPE.Config(seeds=(0,), steps=18_000), {"decay": [long]})
    assert RECIPE.windows(results) == [(8_000, 14_000)]
    assert RECIPE.rates(results, "decay") == pytest.approx([0.5])
    assert RECIPE.displacements(results) == pytest.approx([1 - math.exp(-3.5)])
    assert RECIPE.velocity_ratios(results, "decay")[0] < 10  # 90 at the logs beyond the plot
    assert RECIPE.returns(results, "decay") == pytest.approx([5 * math.exp(4)])
