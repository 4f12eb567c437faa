"""The recipes on definitions end to end, of a few words."""

from typing import Any

import pytest

from probekit import recipes

LEXICAL, STABILITY, SCALE = (
    recipes.load(recipes.find(name)) for name in ("lexical", "lexical-stability", "cross-scale")
)


def claims(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {claim["id"]: claim for claim in summary["claims"]}


@pytest.fixture(scope="module")
def minilm_entry(minilm_folder, few_words) -> str:
    return f"minilm={minilm_folder}"


def test_lexical_compares_readers_of_the_same_glosses(tmp_path, minilm_entry) -> None:
    config = LEXICAL.Config(models=(minilm_entry, "t5-small=nowhere"))
    found = claims(recipes.run(LEXICAL, config, "small", tmp_path))
    assert found["003-11"]["verdict"] == "blocked"
    assert "nowhere" in found["003-11"]["reason"]
    assert found["003-12.nouns"]["measured"] > 0.1
    assert abs(found["003-12"]["null"]) < 0.1
    assert found["003-12.pos"]["measured"] > 0.5
    folder = tmp_path / "lexical" / "small"
    assert (folder / "alignment-minilm.png").exists() and (folder / "decay-minilm.png").exists()
    assert "minilm, first sense" in (folder / "report.html").read_text()


def test_stability_sets_seeds_beside_all_pairs(tmp_path, minilm_entry) -> None:
    config = STABILITY.Config(models=(minilm_entry,), seeds=(0, 1, 2))
    found = claims(recipes.run(STABILITY, config, "small", tmp_path))
    assert abs(found["003-15.exact"]["measured"]) < 0.15
    assert found["003-15"]["null"] == 0  # all of fewer words than 2,000 are drawn
    assert (tmp_path / "lexical-stability" / "small" / "stability-minilm.png").exists()


def test_cross_scale_carries_definitions_onto_static_rows(tmp_path, minilm_entry) -> None:
    config = SCALE.Config(pairs=(minilm_entry, SCALE.QWEN), anchors=150, tests=50)
    found = claims(recipes.run(SCALE, config, "small", tmp_path))
    fitted = found["003-36.analogue.fitted"]["measured"]
    assert fitted > found["003-36.analogue.centred"]["measured"]
    assert found["003-36"]["verdict"] == "blocked"
    assert "--pairs" in found["003-36"]["reason"]
    assert (tmp_path / "cross-scale" / "small" / "projection-minilm.png").exists()


def test_presets() -> None:
    assert len(STABILITY.Config.quick().seeds) == 50
    assert SCALE.label("qwen3.5-4b=a>qwen3.5-0.8b=b") == SCALE.QWEN
