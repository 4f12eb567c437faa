"""The recipe on optimizer resets end to end, small."""

import json

import pytest

from probekit import recipes

SMALL = {"modulus": 5, "width": 8, "most_steps": 10, "steps": (4, 3)}
RECIPE = recipes.load(recipes.find("optimizer-reset"))
CONFIG = RECIPE.Config(seeds=(0, 1), **SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "optimizer-reset" / "small", summary


def found(folder, depth, seed=0):
    return json.loads((folder / f"seed{seed}" / depth / "readings.json").read_text())


def test_arms_differ_by_what_they_say(finished) -> None:
    folder, _ = finished
    for depth, steps in (("1-layer", 4), ("4-layers", 3)):
        one = found(folder, depth)
        assert all(len(one[arm]["accuracy"]) == steps + 1 for arm in RECIPE.ARMS)
        starts = {one[arm]["accuracy"][0] for arm in RECIPE.ARMS if arm != "kick"}
        assert len(starts) == 1
        first = {arm: one[arm]["step_share"][1] for arm in RECIPE.ARMS}
        closed = one["first step"]["closed form"]
        assert first["reset"] == pytest.approx(closed, rel=1e-2)
        assert first["low lr"] == pytest.approx(closed / 10, rel=1e-2)
        assert first["warm-up"] == pytest.approx(closed / RECIPE.WARM_UP, rel=1e-2)
        assert first["control"] < 0.9 * closed


def test_claims_and_report_are_there(finished) -> None:
    folder, summary = finished
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in RECIPE.CLAIMS}
    assert (folder / "report.html").stat().st_size > 50_000
    assert {file.stem for file in folder.glob("*.png")} == {"accuracy", "steps"}


def test_more_seeds_redo_nothing_and_readings_are_remade(finished) -> None:
    folder, _ = finished
    files = sorted(folder.glob("seed*/**/*.json*"))
    before = [file.stat().st_mtime_ns for file in files]
    more = RECIPE.Config(seeds=(0, 1, 2), **SMALL)
    recipes.run(RECIPE, more, "small", folder.parent.parent)
    assert [file.stat().st_mtime_ns for file in files] == before
    path = folder / "seed1" / "4-layers" / "readings.json"
    text = path.read_text()
    path.unlink()
    RECIPE.run_unit(CONFIG, ("4 layers", 1), folder, 0)
    assert path.read_text() == text
