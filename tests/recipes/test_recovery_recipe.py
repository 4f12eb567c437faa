"""The recipe on recovery end to end, small."""

import json

import pytest

from probekit import recipes

SMALL = {
    "modulus": 5,
    "width": 8,
    "batch": 8,
    "most_steps": 10,
    "steps": 10,
    "log_every": 5,
}
RECIPE = recipes.load(recipes.find("recovery"))
CONFIG = RECIPE.Config(seeds=(0, 1), **SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "recovery" / "small", summary


def found(folder, seed=0):
    return json.loads((folder / f"seed{seed}" / "readings.json").read_text())


def test_undamaged_arms_begin_as_the_grown_network_ended(finished) -> None:
    folder, _ = finished
    one = found(folder)
    grown = [
        json.loads(r) for r in (folder / "seed0/grown/metrics.jsonl").read_text().split("\n")[:-1]
    ]
    undamaged = (
        RECIPE.UNDAMAGED,
        RECIPE.REPLICATE,
        RECIPE.KEPT,
        "wd 0.1, n = 0",
        "clip 1.0, n = 0",
    )
    for arm in undamaged:
        assert one[arm]["first step"][0] == one[arm]["log"]["0"] == grown[-1]["accuracy"][0]


def test_every_arm_is_there_with_what_the_claims_read(finished) -> None:
    folder, summary = finished
    arms = [
        *RECIPE.ARMS,
        RECIPE.KEPT,
        *(f"{g}, {a}" for g in RECIPE.GENTLER for a in RECIPE.COMPARED),
    ]
    one = found(folder, seed=1)
    assert [*one] == ["reached", *arms]
    assert all([*one[arm]["log"]] == ["0", "5", "10"] for arm in arms)
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in RECIPE.CLAIMS}
    undamaged = next(claim for claim in summary["claims"] if claim["id"] == "002-X1.undamaged")
    finals = [found(folder, seed)[RECIPE.UNDAMAGED]["final"] for seed in (0, 1)]
    assert undamaged["measured"] == pytest.approx(sum(finals) / 2)
    assert (folder / "report.html").stat().st_size > 50_000
    assert {file.stem for file in folder.glob("*.png")} == {"recovery", "ends"}


def test_more_seeds_redo_nothing_and_readings_are_remade(finished) -> None:
    folder, _ = finished
    files = sorted(folder.glob("seed*/**/*.json*"))
    before = [file.stat().st_mtime_ns for file in files]
    recipes.run(RECIPE, RECIPE.Config(seeds=(0, 1, 2), **SMALL), "small", folder.parent.parent)
    assert [file.stat().st_mtime_ns for file in files] == before
    path = folder / "seed1" / "readings.json"
    text = path.read_text()
    path.unlink()
    RECIPE.run_unit(CONFIG, 1, folder, 0)
    assert path.read_text() == text
