"""The recipe on hardening end to end, small."""

import json

import pytest

from probekit import recipes

SMALL = {"modulus": 7, "width": 16, "mlp": 16, "batch": 16, "steps": 12, "vocab": 8, "length": 8}
RECIPE = recipes.load(recipes.find("hardening"))
CONFIG = RECIPE.Config(seeds=(0,), repeated_steps=12, draws=1, examples=24, **SMALL)
DONORS = {"hardened", "hardened, same start", "another baseline", "permuted", "random", "zero"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "hardening" / "small", summary


def found(folder, name, seed=0):
    return json.loads((folder / f"seed{seed}" / name / "readings.json").read_text())


def test_every_part_and_donor_is_measured_with_noise_and_without(finished) -> None:
    folder, _ = finished
    swaps = found(folder, "transfer")["swaps"]
    assert list(swaps) == ["0", "2"]
    for table in swaps.values():
        assert list(table) == list(RECIPE.PARTS)
        assert all(set(row) == DONORS for row in table.values())


def test_layer_0_precedes_the_noise(finished) -> None:
    folder, _ = finished
    for network in ("trained", "untrained"):
        one = found(folder, "rerouting")[network]
        assert all(c == pytest.approx(1, abs=1e-9) for c in one["similarity"]["layer 0"].values())
        assert one["d"]["entropy, layer 0"] == 0
        assert one["similarity"]["layer 1"]["by head and query"] < 1 - 1e-6


def test_the_noise_alone_lengthens_a_stream(finished) -> None:
    folder, _ = finished
    assert found(folder, "rerouting")["trained"]["d"]["amplitude, noise alone"] > 2


def test_claims_and_report_are_there(finished) -> None:
    folder, summary = finished
    assert {one["id"] for one in summary["claims"]} == {one.id for one in RECIPE.CLAIMS}
    assert all(one["n"] == 1 for one in summary["claims"])
    assert (folder / "report.html").stat().st_size > 50_000
    assert {file.stem for file in folder.glob("*.png")} == {"transfer", "rerouting"}


def test_finished_work_is_not_redone_and_readings_are_remade_alike(finished) -> None:
    folder, _ = finished
    path = folder / "seed0" / "rerouting" / "readings.json"
    before, when = path.read_text(), path.stat().st_mtime_ns
    RECIPE.run_unit(CONFIG, ("rerouting", 0), folder, 0)
    assert path.stat().st_mtime_ns == when
    path.unlink()  # as if killed after training
    RECIPE.run_unit(CONFIG, ("rerouting", 0), folder, 0)
    assert path.read_text() == before


def test_quick_has_three_seeds_and_paper_the_published_sizes() -> None:
    assert len(RECIPE.Config.quick().seeds) >= 3
    paper = RECIPE.Config.paper()
    assert (paper.modulus, paper.width, paper.mlp, paper.batch) == (113, 128, 512, 512)
