"""The recipe on depth end to end, small."""

import json

import pytest

from probekit import recipes

SMALL = {"modulus": 7, "d_model": 16, "batch": 32, "young_steps": 20, "steps": 20, "vocab": 8}
SMALL |= {"length": 8, "swap_steps": 20, "log_every": 10, "pairs": (0,)}
RECIPE = recipes.load(recipes.find("depth"))
CONFIG = RECIPE.Config(seeds=(0, 1), **SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "depth" / "small", summary


def claim(summary, id_):
    return next(claim for claim in summary["claims"] if claim["id"] == id_)


def test_arms_that_are_one_algorithm_are_not_told_apart(finished) -> None:
    _, summary = finished
    assert claim(summary, "002-P4c.same")["measured"] > 0.05
    gradient = claim(summary, "002-P4c.gradient")
    assert gradient["measured"] < 1e-4 < gradient["null"]
    assert gradient["verdict"] == "reproduced"
    published = claim(summary, "002-P4c.p")
    assert published["measured"] == pytest.approx(0.608, abs=1e-3)
    assert published["null"] == pytest.approx(0.304, abs=1e-3)


def test_the_clamp_scales_margins(finished) -> None:
    _, summary = finished
    assert claim(summary, "002-P2.3.margin")["null"] == 0.6
    loss = claim(summary, "002-P2.3")
    assert loss["measured"] == pytest.approx(loss["null"], abs=2)


def test_every_arm_is_trained_from_the_critical_period(finished) -> None:
    folder, _ = finished
    found = json.loads((folder / "seed1" / "metastability" / "readings.json").read_text())
    assert set(found) == {"young, 4 layers", "young, 2 layers", "arms", "no decay", "two layers"}
    assert list(found["arms"]["logs"]) == list(RECIPE.ARMS)
    starts = {log["accuracy"][0] for log in found["arms"]["logs"].values()}
    assert starts == {found["no decay"]["logs"]["no decay"]["accuracy"][0]}


def test_the_leak_is_found_where_it_is_learned(finished) -> None:
    folder, _ = finished
    for layers in (2, 4):
        found = json.loads((folder / "seed0" / f"swap-{layers}" / "readings.json").read_text())
        assert found["leak"]["words"]
        assert found["accuracy"]["A"] > 1 / 8


def test_claims_and_report_are_there(finished) -> None:
    folder, summary = finished
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in RECIPE.CLAIMS}
    assert (folder / "report.html").stat().st_size > 50_000
    assert {file.stem for file in folder.glob("*.png")} == {"trajectories", "survival", "swaps"}


def test_finished_work_is_not_redone_and_readings_are_remade_from_the_weights(finished) -> None:
    folder, _ = finished
    for unit in (("metastability", 0), ("swap-2", 0)):
        path = folder / f"seed{unit[1]}" / unit[0] / "readings.json"
        before, when = path.read_text(), path.stat().st_mtime_ns
        RECIPE.run_unit(CONFIG, unit, folder, 0)
        assert path.stat().st_mtime_ns == when
        path.unlink()
        RECIPE.run_unit(CONFIG, unit, folder, 0)
        assert path.read_text() == before
