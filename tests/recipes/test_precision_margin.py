"""The recipe on precision and margins end to end, small."""

import json
import math

import pytest

from probekit import recipes

SMALL = {
    "width": 16,
    "epochs": 1,
    "updates": 6,
    "wide_updates": 6,
    "batch": 2_048,
    "examples": 20,
    "leak_free_moduli": (7, 11),
    "leak_free_width": 16,
    "leak_free_updates": 6,
}
RECIPE = recipes.load(recipes.find("precision-margin"))
CONFIG = RECIPE.Config(seeds=(0,), **SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "precision-margin" / "small", summary


def rows(folder, arm, modulus, seed=0):
    log = (folder / f"seed{seed}" / arm / f"p{modulus}" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in log.splitlines()]


def test_equal_epochs_are_more_updates_for_larger_moduli(finished) -> None:
    folder, _ = finished
    assert [CONFIG.epochs_end(p) for p in RECIPE.MODULI] == [1, 1, 1, 4, 13]
    assert [RECIPE.Config().epochs_end(p) for p in RECIPE.MODULI] == [5, 10, 70, 500, 2_015]
    assert [row["step"] for row in rows(folder, "sequence", 227)] == [*range(14)]
    assert [row["step"] for row in rows(folder, "sequence", 7)] == [*range(7)]


def test_only_the_vocabulary_differs_in_its_arm(finished) -> None:
    folder, _ = finished
    for p in RECIPE.EMBEDDED:
        one, other = (json.loads((folder / f"seed0/{arm}/p{p}/config.json").read_text())
                      for arm in ("sequence", "vocabulary"))  # fmt: skip
        same = {key: one["config"][key] for key in ("task", "steps", "batch", "lr")}
        assert same == {key: other["config"][key] for key in same}


def test_amplitude_is_the_square_root_of_the_width(finished) -> None:
    folder, summary = finished
    for arm, width in (("sequence", 16), ("wide", 32)):
        first = rows(folder, arm, 113)[0]
        assert first["norm"][0] == pytest.approx(math.sqrt(width), rel=1e-3)
        assert first["gain"][0] == pytest.approx(1, rel=1e-3)
    energy = next(c for c in summary["claims"] if c["id"] == "002-A4.energy")
    assert energy["verdict"] == "explained by null"


def test_claims_and_report_are_there(finished) -> None:
    folder, summary = finished
    found = {claim["id"]: claim for claim in summary["claims"]}
    assert set(found) == {claim.id for claim in RECIPE.CLAIMS}
    assert len(found) == len(RECIPE.CLAIMS)
    assert found["002-A4.leak-free"]["observed"] == 0  # six updates teach no sums
    assert (folder / "report.html").stat().st_size > 50_000
    assert {file.stem for file in folder.glob("*.png")} == {"modulus", "updates"}


def test_a_second_run_redoes_nothing_and_reads_the_same(finished) -> None:
    folder, summary = finished
    files = sorted(folder.glob("seed*/**/*.json*"))
    before = [file.stat().st_mtime_ns for file in files]
    again = recipes.run(RECIPE, CONFIG, "small", folder.parent.parent)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert again["claims"] == summary["claims"]
