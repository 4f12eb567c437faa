"""The recipe on injury end to end, small."""

import json

import pytest

from probekit import recipes

SMALL = {"steps": 12, "sum_steps": 12, "sum_modulus": 7, "sum_width": 16, "draws": 1}
RECIPE = recipes.load(recipes.find("injury"))
CONFIG = RECIPE.Config(seeds=(0,), examples=30, **SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "injury" / "small", summary


def found(folder, name, seed=0):
    return json.loads((folder / f"seed{seed}" / name / "readings.json").read_text())


def claim(summary, name):
    return next(one for one in summary["claims"] if one["id"] == name)


def test_an_offset_survives_what_no_network_was_trained_for(finished) -> None:
    folder, summary = finished
    one = found(folder, "constant")
    assert set(one["noise"]) == {"baseline", "hardened", "another baseline", "untrained, offset"}
    clean = one["noise"]["untrained, offset"]["0"]
    assert clean["margin"] == pytest.approx(one["noise"]["baseline"]["0"]["margin"], abs=1e-3)
    assert "untrained, offset" not in found(folder, "sum")["noise"]
    assert claim(summary, "002-A2.hardened")["null"] is not None


def test_the_clamped_network_has_its_nulls_beside_it(finished) -> None:
    folder, _ = finished
    sedated = found(folder, "constant")["sedated"]
    assert set(sedated) == {"hardened", "constant logits", "offset alone"}
    assert all(list(row) == ["0", "1", "2", "3", "4", "5"] for row in sedated.values())


def test_claims_and_report_are_there(finished) -> None:
    folder, summary = finished
    assert {one["id"] for one in summary["claims"]} == {one.id for one in RECIPE.CLAIMS}
    assert all(one["n"] == 1 and one["null"] is not None for one in summary["claims"])
    assert (folder / "report.html").stat().st_size > 50_000
    assert {file.stem for file in folder.glob("*.png")} == {"injury", "similarity"}


def test_finished_work_is_not_redone_and_readings_are_remade_alike(finished) -> None:
    folder, _ = finished
    path = folder / "seed0" / "sum" / "readings.json"
    before, when = path.read_text(), path.stat().st_mtime_ns
    RECIPE.run_unit(CONFIG, ("sum", 0), folder, 0)
    assert path.stat().st_mtime_ns == when
    path.unlink()  # as if killed after training
    RECIPE.run_unit(CONFIG, ("sum", 0), folder, 0)
    assert path.read_text() == before


def test_the_published_network_is_that_of_the_card_at_width_32() -> None:
    model = RECIPE.Config().load("constant", 0)
    assert (model.cfg.d_model, model.cfg.d_mlp, model.cfg.n_ctx) == (32, 32, 15)
    assert len(RECIPE.Config.quick().seeds) >= 3
