"""The recipe on training a modulator end to end, small."""

import json

import pytest
import torch
from families import tiny_t5
from transformers import T5ForConditionalGeneration

import probekit as pk
from probekit import recipes
from probekit.modulators import load_modulator
from probekit.training.modulator_study import seed_share, start_share

pytestmark = pytest.mark.slow
RECIPE = recipes.load(recipes.find("lerp-training"))
SMALL = {"examples": 45, "encoder_examples": 23, "epochs": 2, "silenced_steps": 60}
CONFIG = RECIPE.Config(starts=(0.01, 0.1), seeds=(0, 1), **SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, wordnet, minilm_folder):
    def tiny():
        return pk.wrap(T5ForConditionalGeneration(tiny_t5(vocab_size=7_000)).eval())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RECIPE, "random_t5_small", tiny)
        out = tmp_path_factory.mktemp("runs")
        config = RECIPE.Config(**vars(CONFIG) | {"encoders": (f"minilm={minilm_folder}",)})
        summary = recipes.run(RECIPE, config, "small", out)
    return out / "lerp-training" / "small", {claim["id"]: claim for claim in summary["claims"]}


def readings(folder, kind, host="t5-wordnet"):
    return json.loads((folder / host / kind / "readings.json").read_text())


def test_alpha_stays_within_reach_of_its_start(finished) -> None:
    folder, claims = finished
    run = readings(folder, "repaired-from-0.1-seed-1")
    assert run["at"] == [0, 1, 11, 20]  # 10 batches an epoch, read at 0 of each and at the end
    assert run["sum of rates"] == pytest.approx(10e-3 * 1.5)
    assert len(run["alpha"]) == len(run["band"]) == 4
    assert run["band"][0] == pytest.approx([0.1, 0.1]) == run["alpha"][0]
    assert claims["003-27"]["verdict"] == "not reproduced"
    assert claims["003-27"]["null"] < 0.0105
    for name in ("reach", "within", "start"):
        assert claims[f"003-27.{name}"]["verdict"] == "reproduced"
    assert claims["003-27.within"]["n"] == 2 + 2 * 2 + 2  # published, repaired, masked


def test_the_published_loss_needs_no_encoder(finished) -> None:
    folder, claims = finished
    found = readings(folder, "pretrained")["host"]
    assert found["repaired"]["silenced"] > found["repaired"]["encoder"]
    assert claims["003-28"]["measured"] < 0.1 < 2 < claims["003-28"]["null"]


def test_units_leave_a_modulator_and_a_page(finished) -> None:
    folder, _ = finished
    kind = folder / "t5-wordnet" / "repaired-from-0.1-seed-0" / "training"
    module = load_modulator(kind / "modulator")
    ends = readings(folder, "repaired-from-0.1-seed-0")["alpha"][-1]
    assert module.alpha.tolist() == pytest.approx(ends)
    zero = ~module.geometry.detach().any(-1)
    assert zero.sum() > 0  # rows of no word that was met
    names = {"alpha", "ends", "loss"}
    drawn = {f"{name}-{host}" for name in names for host in ("t5-wordnet", "minilm")}
    assert {file.stem for file in folder.glob("*.png")} == drawn | {"silenced-t5-wordnet"}
    assert "where alpha ends" in (folder / "report.html").read_text()


def test_shares_of_starts_and_seeds() -> None:
    by_start = {0.1: [[0.1, 0.1], [0.1, 0.1]], 0.5: [[0.5, 0.5], [0.5, 0.5]]}
    assert start_share(by_start) == pytest.approx(1) and seed_share(by_start) == pytest.approx(0)
    logits = torch.tensor([[[0.0, 1.0]], [[2.0, 3.0]]])  # between 1^2 a value, within 0.5^2
    ends = {float(i): torch.sigmoid(each).tolist() for i, each in enumerate(logits)}
    assert start_share(ends) == pytest.approx(1 / 1.25, abs=1e-6)


def test_a_host_that_is_not_to_be_had_blocks_its_claims(tmp_path, wordnet, minilm_folder) -> None:
    sizes = SMALL | {"hosts": ("t5-small=nowhere",), "encoders": (f"minilm={minilm_folder}",)}
    config = RECIPE.Config(**vars(CONFIG) | sizes | {"starts": (0.01, 0.1), "epochs": 1})
    found = recipes.run(RECIPE, config, "small", tmp_path)["claims"]
    by_id = {claim["id"]: claim for claim in found}
    assert by_id["003-28"]["verdict"] == "blocked" and "nowhere" in by_id["003-28"]["reason"]
    assert by_id["003-27.within"]["verdict"] != "blocked"
