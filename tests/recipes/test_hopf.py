"""The recipe on the bifurcation end to end, small."""

import json

import pytest

from probekit import recipes

SMALL = {
    "rotor_width": 8,
    "rotor_length": 1,
    "time": 16.0,
    "orbit_steps": 20,
    "planted": 20,  # ten of each of two regimes: stable alone would be the null's too
    "d_model": 16,
    "length": 3,
    "knobs": (1.0, 4.0),
    "alphas": (1.0, 0.0),
}
RECIPE = recipes.load(recipes.find("hopf"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, RECIPE.Config(seeds=(0,), **SMALL), "small", out)
    return out / "hopf" / "small", summary


def verdicts(summary):
    return {claim["id"]: claim["verdict"] for claim in summary["claims"]}


def test_what_holds_at_any_size(finished) -> None:
    _, summary = finished
    found = verdicts(summary)
    for claim in ("D1.upper", "D1.eig", "D3", "D4", "D4.random", "D5", "D6"):
        assert found[f"001-{claim}"] == "reproduced", claim


def test_readings_are_there(finished) -> None:
    folder, _ = finished
    for what in RECIPE.MEASURES:
        assert json.loads((folder / "seed0" / what / "readings.json").read_text())


def test_report_figures_and_answers(finished) -> None:
    folder, _ = finished
    page = (folder / "report.html").read_text()
    assert "Q1: is it a Hopf bifurcation?" in page and "conjecture" in page
    names = {file.name for file in folder.iterdir()}
    assert {"traces.png", "sweep.png", "phase.png", "eigenvalues.png", "eigenvalues.gif"} <= names


def test_a_second_run_redoes_nothing(finished) -> None:
    folder, summary = finished
    files = sorted(folder.glob("seed*/**/*.json"))
    before = [file.stat().st_mtime_ns for file in files]
    again = recipes.run(RECIPE, RECIPE.Config(seeds=(0,), **SMALL), "small", folder.parent.parent)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert again["claims"] == summary["claims"]


def test_presets() -> None:
    quick, paper = RECIPE.Config.quick(), RECIPE.Config.paper()
    assert len(quick.seeds) >= 3 and len(paper.seeds) == 10 and quick.planted == 100
