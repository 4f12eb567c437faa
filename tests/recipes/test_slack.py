"""The recipe on slack end to end, small; who is compared with whom."""

import json

import pytest

from probekit import recipes

SMALL = {
    "modulus": 7,
    "width": 16,
    "batch": 16,
    "warm_up": 4,
    "steps": 8,
    "deep_warm_ups": (2, 4),
    "deep_steps": (4, 8),
    "vocab": 8,
    "length": 6,
    "stream_width": 16,
    "stream_steps": 8,
    "log_every": 2,
}
RECIPE = recipes.load(recipes.find("slack"))
CONFIG = RECIPE.Config(seeds=(0, 1), **SMALL)
ROWS = [f"warm-up {warm_up}, {steps} steps" for steps in (4, 8) for warm_up in (2, 4)]
BASIS_FREE = ("linear CKA", "aligned cosine", "wrong logits", "agreement")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "slack" / "small", summary


def found(folder, arm, seed=1):
    return json.loads((folder / f"seed{seed}" / arm / "found.json").read_text())


def test_the_anchor_in_other_bases_is_the_anchor(finished) -> None:
    folder, _ = finished
    alike = found(folder, "young")["alike"]
    assert alike["anchor"]["cosine"] == pytest.approx(1.0)
    for name in ("anchor, rotated", "anchor, permuted"):
        assert abs(alike[name]["cosine"]) < 0.9
        assert alike[name]["accuracy"] == alike["anchor"]["accuracy"]
        for what in BASIS_FREE:
            assert alike[name][what] == pytest.approx(1.0, abs=1e-4)
    for name in ("no penalty", "other seed", "untrained"):
        assert alike[name]["linear CKA"] < 0.9999
    # After 12 steps the start still shows, where it was the same.
    assert alike["no penalty"]["linear CKA"] > alike["other seed"]["linear CKA"]


def test_logs_end_where_networks_are_compared(finished) -> None:
    folder, _ = finished
    for arm, anchor in (("young", ["anchor"]), ("mature", []), ("streams", [])):
        one = found(folder, arm)
        last = "8" if arm == "young" else "4"
        assert set(one["curves"]) - {"anchor"} == set(one["cosines"])
        for name, curve in one["curves"].items():
            assert curve[last] == pytest.approx(one["alike"][name]["accuracy"])
        for name, curve in one["cosines"].items():
            assert curve[last] == pytest.approx(one["alike"][name]["cosine"], abs=1e-5)
        assert [name for name in one["curves"] if name == "anchor"] == anchor


def test_branches_begin_at_the_mature_network(finished) -> None:
    folder, _ = finished
    for arm in ("mature", "streams"):
        cosines = found(folder, arm)["cosines"]
        assert all(curve["0"] == pytest.approx(1.0) for curve in cosines.values())
        assert len({curve["4"] for curve in cosines.values()}) == 4


def test_short_rows_are_the_long_anchors_as_they_were(finished) -> None:
    folder, _ = finished
    one = found(folder, "deep")
    assert list(one) == ["untrained", *ROWS]
    for name in ROWS:
        steps = "4" if name in ROWS[:2] else "8"
        row = one[name]
        assert list(row["cosines"]["probe"])[-1] == steps
        for network in ("anchor", "probe"):
            accuracy = row["alike"][network]["accuracy"]
            assert row["curves"][network][steps] == pytest.approx(accuracy)
        assert row["cosines"]["probe"][steps] == pytest.approx(
            row["alike"]["probe"]["cosine"], abs=1e-5
        )
    for early, late in (ROWS[:2], ROWS[2:]):
        assert one[early]["curves"] != one[late]["curves"]


def test_claims_and_report_are_there(finished) -> None:
    folder, summary = finished
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in RECIPE.CLAIMS}
    assert (folder / "report.html").stat().st_size > 50_000
    figures = {file.stem for file in folder.glob("*.png")}
    assert figures == {"learning", "similarity", "depth"}


def test_finished_work_is_not_redone_and_readings_come_from_the_weights(finished) -> None:
    folder, _ = finished
    logs = sorted(folder.glob("seed1/young/**/metrics.jsonl"))
    before = [file.stat().st_mtime_ns for file in logs]
    readings = folder / "seed1" / "young" / "found.json"
    text = readings.read_text()
    RECIPE.run_unit(CONFIG, ("young", 1), folder, 0)
    readings.unlink()
    RECIPE.run_unit(CONFIG, ("young", 1), folder, 0)
    assert [file.stat().st_mtime_ns for file in logs] == before
    assert readings.read_text() == text
