"""The recipes on training relaxed blocks end to end, small."""

import json
import math
from dataclasses import replace

import pytest

from probekit import recipes
from probekit.claims import Blocked

TRAINING, SCAN = (recipes.load(recipes.find(name)) for name in ("ep-training", "expressivity"))
SIZES = {"d_model": 8, "length": 4, "batch": 2, "held_out": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    config = TRAINING.Config(
        seeds=(0,), steps=2, low_steps=2, log_every=2, free_steps=8, nudge_steps=3, **SIZES
    )  # fmt: skip
    return config, out, recipes.run(TRAINING, config, "small", out)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    config = SCAN.Config(seeds=(0, 1), asymmetries=(0.0, 1.0), gains=(0.5,), steps=1, **SIZES)
    return config, out, recipes.run(SCAN, config, "small", out)


def test_every_arm_leaves_its_log_and_readings(trained) -> None:
    _, out, _ = trained
    for arm in TRAINING.ARMS:
        folder = out / "ep-training" / "small" / "seed0" / arm.replace(" ", "-")
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [0, 2]
        readings = json.loads((folder / "readings.json").read_text())
        assert readings["loss"] == rows[-1]["loss"]
        assert {"lead", "margin", "abscissa less lead", "largest rise"} <= readings.keys()


def test_arms_differ_in_what_they_say_they_do(trained) -> None:
    """After two steps from the same weights on the same batches."""
    _, out, _ = trained
    root = out / "ep-training" / "small" / "seed0"
    last = {}
    for arm in TRAINING.ARMS:
        file = root / arm.replace(" ", "-") / "metrics.jsonl"
        last[arm] = json.loads(file.read_text().splitlines()[-1])["loss"]
    high = {arm for arm, (rate, _, _) in TRAINING.ARMS.items() if rate == TRAINING.HIGH}
    assert len({last[arm] for arm in high - {"gain cap", "spectral"}}) == len(high) - 2
    assert len({last[arm] for arm in TRAINING.ARMS if arm not in high}) == 4


def test_claims_and_report(trained) -> None:
    _, out, summary = trained
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in TRAINING.CLAIMS}
    report = (out / "ep-training" / "small" / "report.html").read_text()
    assert "Q2: what fixes it?" in report


def test_finished_arms_are_not_trained_again(trained, monkeypatch) -> None:
    config, out, _ = trained
    monkeypatch.setattr(TRAINING, "onset_diagnosis", None)
    monkeypatch.setattr("probekit.dynamics.training.estimate", None)
    TRAINING.run_unit(config, ("jacreg", 0), out / "ep-training" / "small", 0)


def test_the_scan_holds_each_setting(scanned) -> None:
    config, out, summary = scanned
    for name, projection in config.settings.items():
        for seed in config.seeds:
            folder = out / "expressivity" / "small" / f"seed{seed}" / name.replace(" ", "-")
            readings = json.loads((folder / "readings.json").read_text())
            if projection is not None:
                assert readings["r_str of V O"] == pytest.approx(projection.asymmetry, abs=1e-5)
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in SCAN.CLAIMS}
    assert (out / "expressivity" / "small" / "scan.png").exists()


def results(losses: dict[str, float], leads: dict[str, float]) -> dict:
    return {name: {"loss": [loss], "lead": [leads.get(name, 0.0)]} for name, loss in losses.items()}


def test_the_cost_of_symmetry_is_read_at_each_asymmetrys_best_gain() -> None:
    losses = {
        "free": 0.0, "r 0, gain 1": 2.5, "r 1, gain 1": 9.0, "r 0, gain 2": 9.0, "r 1, gain 2": 2.0
    }  # fmt: skip
    assert SCAN.cost(results(losses, {}), "r 0") == [0.5]
    assert SCAN.cost(results(losses, {}), "r 1") == [-0.5]


def test_the_correlation_has_the_sign_of_the_claim() -> None:
    """The lower the loss, the nearer Re mu is to 0."""
    losses = {"free": 9.0, "r 0, gain 1": 1.0, "r 1, gain 1": 2.0, "r 1, gain 2": 3.0}
    leads = {"r 0, gain 1": -0.1, "r 1, gain 1": -0.5, "r 1, gain 2": -0.9}
    found = results(losses, leads)
    assert SCAN.correlations(found) == [pytest.approx(1)]
    assert SCAN.above_shuffles(found, [1.0]) == [pytest.approx(1 - SCAN.shuffled(found)[0])]


def test_the_share_of_artefacts_is_of_seeds_that_lost_rest() -> None:
    rows = [{"regime": "Euler instability"}, {"regime": "stable"}]
    assert TRAINING.euler_share({"none": {"onset": [rows, []]}}) == [0.5]
    with pytest.raises(Blocked, match="lost rest"):
        TRAINING.euler_share({"none": {"onset": [[], []]}})
    readings = {"lead": [-1.0, 0.5], "abscissa less lead": [4.0, 9.0]}
    low, lost = TRAINING.while_stable("exact")({"exact": {"readings": readings}})
    assert low == 4.0 and math.isnan(lost)


def test_presets() -> None:
    for recipe in (TRAINING, SCAN):
        assert len(recipe.Config.quick().seeds) >= 3
        assert replace(recipe.Config.paper(), seeds=()) != replace(recipe.Config.quick(), seeds=())
