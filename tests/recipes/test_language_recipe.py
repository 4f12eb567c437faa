"""The recipe on language end to end, small."""

import json

import pytest

from probekit import recipes
from probekit.training.separability.language_arms import LANGUAGE_ARMS

SMALL = {
    "layers": 1,
    "width": 16,
    "heads": 2,
    "vocab": 300,
    "length": 8,
    "critical_steps": 6,
    "steps": 6,
    "batch": 8,
    "windows": 40,
}
RECIPE = recipes.load(recipes.find("language"))
CONFIG = RECIPE.Config(seeds=(0, 1), **SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "language" / "small", summary


def readings(folder, mask, seed=0):
    return json.loads((folder / f"seed{seed}" / mask / "readings.json").read_text())


def claim(summary, name):
    return next(claim for claim in summary["claims"] if claim["id"] == name)


def test_every_arm_is_read_under_both_masks(finished) -> None:
    folder, _ = finished
    for mask in RECIPE.MASKS:
        one = readings(folder, mask)
        for what in ("by position", "random text", "cosine", "leak"):
            assert tuple(one[what]) == LANGUAGE_ARMS
        assert all(len(shares) == 8 for shares in one["by position"].values())
        assert one["critical"] is None  # 6 steps do not get there


def test_the_detached_penalty_has_no_gradient(finished) -> None:
    folder, summary = finished
    for mask in RECIPE.MASKS:
        gradients = readings(folder, mask)["gradients"]
        assert gradients["detached"] == 0 < gradients["attached"]
    found = claim(summary, "002-P5.detached")
    assert found["verdict"] == "reproduced" and found["null"] > 0


def test_copying_is_right_everywhere_but_at_the_last_position(finished) -> None:
    _, summary = finished
    found = claim(summary, "002-P5")
    assert 7 / 8 <= found["null"] <= 1 - 0.5 / 8
    assert found["verdict"] == "not reproduced"  # of an untrained network


def test_arms_of_one_loss_differ_by_their_batches_alone(finished) -> None:
    folder, _ = finished
    log = (folder / "seed0" / "causal" / "arms" / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    first, end = rows[0]["accuracy"], rows[-1]["loss"]
    assert len(set(first)) == 1
    assert len(set(end)) == 4  # the penalised ones too: they learn


def test_claims_and_report_are_there(finished) -> None:
    folder, summary = finished
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in RECIPE.CLAIMS}
    assert len({claim.id for claim in RECIPE.CLAIMS}) == len(RECIPE.CLAIMS)
    assert (folder / "report.html").stat().st_size > 50_000
    assert {file.stem for file in folder.glob("*.png")} == {"learning", "positions", "cosines"}


def test_more_seeds_redo_nothing(finished) -> None:
    folder, _ = finished
    files = sorted(folder.glob("seed*/**/*.json*"))
    before = [file.stat().st_mtime_ns for file in files]
    RECIPE.run_unit(CONFIG, ("causal", 1), folder, 0)
    assert [file.stat().st_mtime_ns for file in files] == before


def test_readings_are_remade_from_the_weights(finished) -> None:
    folder, _ = finished
    path = folder / "seed1" / "causal" / "readings.json"
    before = path.read_text()
    path.unlink()
    RECIPE.run_unit(CONFIG, ("causal", 1), folder, 0)
    assert path.read_text() == before
