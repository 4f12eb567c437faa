"""The recipe on stroke end to end, small."""

import json

import pytest

from probekit import recipes

SMALL = {"vocab": 8, "length": 8, "width": 16, "steps": 60, "batch": 16, "draws": 2}
RECIPE = recipes.load(recipes.find("stroke"))
CONFIG = RECIPE.Config(seeds=(0, 1), **SMALL)
SIGMAS = ["0", "0.3", "1", "2", "3"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "stroke" / "small", summary


def found(folder, arm, seed=0):
    return json.loads((folder / f"seed{seed}" / arm / "readings.json").read_text())


def test_the_norm_upstream_of_the_noise_is_constant_to_the_last_bit(finished) -> None:
    folder, summary = finished
    for arm in RECIPE.ARMS:
        one = found(folder, arm)
        for readings in (one["noise"]["final norm"], one["untrained"]):
            assert list(readings) == SIGMAS
            assert len({scores["residual"] for scores in readings.values()}) == 1
            assert len({scores["read"] for scores in readings.values()}) == 5
    claim = next(claim for claim in summary["claims"] if claim["id"] == "002-A1.amplitude")
    assert claim["measured"] == claim["null"] == 0
    assert claim["verdict"] == "explained by null"


def test_without_noise_both_places_and_the_logits_read_alike(finished) -> None:
    folder, _ = finished
    for arm in RECIPE.ARMS:
        one = found(folder, arm)
        first, second = (readings["0"] for readings in one["noise"].values())
        assert first == second
        assert one["logits"]["0"]["accuracy"] == first["accuracy"]


def test_the_second_norm_sets_the_length(finished) -> None:
    folder, _ = finished
    one = found(folder, "bidirectional")
    for scores in one["noise"]["attention's norm"].values():
        assert scores["residual"] == pytest.approx(one["length of the second norm"], rel=0.03)


def test_claims_and_report_are_there(finished) -> None:
    folder, summary = finished
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in RECIPE.CLAIMS}
    assert (folder / "report.html").stat().st_size > 50_000
    assert {file.stem for file in folder.glob("*.png")} == {"stroke", "upstream"}


def test_more_seeds_redo_nothing(finished) -> None:
    folder, _ = finished
    files = sorted(folder.glob("seed*/**/*.json*"))
    before = [file.stat().st_mtime_ns for file in files]
    more = RECIPE.Config(seeds=(0, 1, 2), **SMALL)
    recipes.run(RECIPE, more, "small", folder.parent.parent)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert found(folder, "causal", seed=2)["noise"]


def test_readings_are_remade_from_the_weights(finished) -> None:
    folder, _ = finished
    path = folder / "seed1" / "causal" / "readings.json"
    before = path.read_text()
    path.unlink()
    RECIPE.run_unit(CONFIG, ("causal", 1), folder, 0)
    assert path.read_text() == before
