"""The recipe on gradients of equilibrium propagation end to end, small."""

import json

import pytest

from probekit import recipes

SMALL = {
    "d_model": 16,
    "n_heads": 2,
    "length": 4,
    "vocab": 9,
    "step_size": 0.2,  # half the steps
    "nudge_steps": 40,
    "marks": (5, 20, 40),
    "free_steps": (8, 30),
    "betas": (0.02, 0.05),
}
RECIPE = recipes.load(recipes.find("ep-gradients"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, RECIPE.Config(seeds=(0, 1), **SMALL), "small", out)
    return out / "ep-gradients" / "small", summary


def test_the_correction_is_what_makes_it_right(finished) -> None:
    folder, summary = finished
    measured = {claim["id"]: claim["measured"] for claim in summary["claims"]}
    assert measured["001-G1"] > 0.99 > measured["001-G2"]
    assert measured["001-G3.law"] < 1e-2
    for seed in (0, 1):
        found = json.loads((folder / f"seed{seed}" / "readings.json").read_text())
        assert set(found) == {"estimators", "depth", "free", "ceiling"}
        assert found["free"]["30"]["residual"] < found["free"]["8"]["residual"]


def test_claims_report_and_figures(finished) -> None:
    folder, summary = finished
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in RECIPE.CLAIMS}
    assert "Q3: is there a structural ceiling of EP?" in (folder / "report.html").read_text()
    assert {file.stem for file in folder.glob("*.png")} == {"cosines", "residual"}


def test_more_seeds_redo_nothing_and_readings_are_remade(finished) -> None:
    folder, _ = finished
    path = folder / "seed1" / "readings.json"
    before = path.read_text()
    path.unlink()
    RECIPE.run_unit(RECIPE.Config(seeds=(0, 1), **SMALL), 1, folder, 0)
    assert path.read_text() == before


def test_presets() -> None:
    assert len(RECIPE.Config.quick().seeds) >= 3 and len(RECIPE.Config.paper().seeds) == 10
