"""The recipes on weights end to end: the real MiniLM, and a small random T5 in shards."""

import math
from typing import Any

import pytest

from probekit import recipes
from probekit.claims import decide
from probekit.errors import CardError
from probekit.pretrained import checkpoint_folder
from probekit.terrain.batteries import mean_positive, scores_beyond

BATTERY, XXL = (
    recipes.load(recipes.find(name)) for name in ("weight-battery", "weight-battery-xxl")
)


def claims(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {claim["id"]: claim for claim in summary["claims"]}


@pytest.fixture(scope="module")
def battery(tmp_path_factory, minilm_folder):
    out = tmp_path_factory.mktemp("runs")
    config = BATTERY.Config(models=(f"minilm={minilm_folder}",), windows=1)
    summary = recipes.run(BATTERY, config, "small", out)
    return out / "weight-battery" / "small", claims(summary)


def test_what_untrained_weights_read_too_is_explained(battery) -> None:
    _, found = battery
    for id_ in ("003-19", "003-21", "003-22"):
        assert found[id_]["verdict"] == "explained by null"
    assert found["003-18"]["null"] == pytest.approx(1, abs=1e-5)
    assert found["003-18.scale"]["null"] == pytest.approx(0.0797, abs=1e-3)
    assert found["003-16"]["null"] == pytest.approx(1 / 4, abs=0.02)  # n / 4 of a square matrix
    assert found["003-19.score"]["measured"] > 0.5 > found["003-19.score"]["null"]
    assert found["003-10"]["verdict"] == found["003-38"]["verdict"] == "blocked"


def test_a_models_published_share_is_held_against_its_own_twin() -> None:
    def share(value: float) -> list[dict[str, Any]]:
        return [{"sparsity_pooled": [{"type": "q", "stack": "all", "below_0.1": value}]}]

    shares = {"t5-small": 0.9368, "t5-base": 0.98, "bert-large": 0.9905, "dinov2-large": 0.9999}
    results = {m: {"pretrained": share(value), "twin": share(1)} for m, value in shares.items()}
    claims = {claim.id: claim for claim in BATTERY.CLAIMS}
    found = {model: decide(claims[f"003-18.{model}"], results, "") for model in shares}
    assert {model: found[model]["measured"] for model in shares} == shares
    assert [found[model]["verdict"] for model in shares] == [
        "reproduced",
        "not reproduced",
        "reproduced",
        "explained by null",
    ]


def test_the_page_has_the_tables_and_the_picture(battery) -> None:
    folder, _ = battery
    assert (folder / "battery-minilm.png").exists()
    text = (folder / "report.html").read_text()
    assert "query-key circuits" in text and "log10_condition" in text


def test_without_shards_the_random_ones_still_say_what_chance_reads(tmp_path) -> None:
    config = XXL.Config(models=("t5-v1_1-xxl=nowhere",), d_model=128)
    found = claims(recipes.run(XXL, config, "small", tmp_path))
    cross = found["003-20.xxl"]
    assert cross["verdict"] == "blocked" and "t5-v1_1-xxl=FOLDER" in cross["reason"]
    assert cross["null"] == pytest.approx(0.5, abs=0.02)
    assert found["003-18.xxl"]["null"] == pytest.approx(0.9998, abs=1e-3)
    folder = tmp_path / "weight-battery-xxl" / "small"
    assert (folder / "battery-t5-v1_1-xxl.png").exists()
    assert not list(folder.rglob("*.safetensors"))


def test_a_folder_of_shards_is_streamed(tmp_path) -> None:
    model = XXL.transformers.T5ForConditionalGeneration(XXL.Config(d_model=64).random_config())
    model.save_pretrained(tmp_path / "shards")
    config = XXL.Config(models=(f"t5-v1_1-xxl={tmp_path / 'shards'}",), d_model=64)
    found = claims(recipes.run(XXL, config, "small", tmp_path))
    assert found["003-20.xxl"]["n"] == 2
    assert found["003-21.xxl"]["verdict"] == "explained by null"


def test_shards_that_are_not_there_are_named(tmp_path) -> None:
    with pytest.raises(CardError, match=r"t5-v1_1-xxl=FOLDER"):
        checkpoint_folder(f"t5-v1_1-xxl={tmp_path}")


def test_heads_of_cross_attention_have_no_score_and_do_not_count() -> None:
    rows = [{"score": score, "score_null": 0.0, "score_null_sd": 0.1} for score in (0.5, 0.1, None)]
    assert scores_beyond({"qk": rows}, 3.0) == 0.5
    assert math.isnan(scores_beyond({"qk": rows[2:]}, 3.0))
    assert math.isnan(mean_positive({"published_qk": []}))
