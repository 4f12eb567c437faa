"""The recipes on definitions end to end, of a few words."""

import itertools
import json
from typing import Any

import pytest

from probekit import recipes

LEXICAL, STABILITY, SCALE, LERP, PHASE = (
    recipes.load(recipes.find(name))
    for name in ("lexical", "lexical-stability", "cross-scale", "lerp", "phase-boundary")
)
FEW: dict[str, Any] = {"anchors": 40, "width": 8, "nodes": 30, "pairs": 1_000}


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


def test_lerp_sets_a_modulator_beside_its_parts(tmp_path, minilm_entry) -> None:
    config = LERP.Config(models=(minilm_entry, "t5-small=nowhere"), **FEW)
    found = claims(recipes.run(LERP, config, "small", tmp_path))
    assert found["003-24"]["verdict"] == "explained by null"
    assert 0.999 < found["003-24"]["measured"] < found["003-24"]["null"] < 1
    assert found["003-26"]["measured"] > found["003-26"]["null"] > 0
    assert abs(found["003-25.held-out"]["null"]) < 0.2 < found["003-25"]["null"]
    folder = tmp_path / "lerp" / "small"
    assert (folder / "controls-minilm.png").exists() and (folder / "geometry-minilm.png").exists()
    assert "nowhere" in (folder / "report.html").read_text()


def test_phase_boundary_bends_every_curve_and_resumes(tmp_path, minilm_entry, monkeypatch) -> None:
    monkeypatch.setattr(PHASE, "DEALS", (1, 2))
    config = PHASE.Config(models=(minilm_entry,), alphas=(0.0, 0.1, 0.9), **FEW)
    found = claims(recipes.run(PHASE, config, "small", tmp_path))
    folder = tmp_path / "phase-boundary" / "small"
    curve = json.loads((folder / "minilm" / "shrink-only-42" / "readings.json").read_text())
    assert curve["alphas"] == [0, 0.01, 0.1, *PHASE.PRINTED, 0.5, 0.9]
    assert curve["preservation"][0] == pytest.approx(1)
    assert curve["preservation"] == sorted(curve["preservation"], reverse=True)
    assert found["003-30.preservation"]["null"] == pytest.approx(curve["preservation"][5])
    bend = PHASE.bends_of(curve)["preservation"]
    assert bend["low"] <= bend["at"] <= bend["high"]
    assert found["003-30.t5"]["verdict"] == "blocked"
    assert (folder / "phase-minilm.png").exists() and (folder / "controls-minilm.png").exists()
    assert found["003-30.matched.words"]["measured"] in (1 / 3, 2 / 3, 1)
    results = PHASE.collect(config, folder)
    rows = PHASE.rows_of(results)["minilm: modulated less control, 95 % intervals"]
    shown = {row["less"]: row["pearson"] for row in rows if row["alpha"] == PHASE.PRINTED[0]}
    assert shown.keys() >= {"shrink-only", "permuted", "zero unmatched"}
    for kind, cell in shown.items():
        own, low, high = (
            float(number) for number in cell.translate(str.maketrans("[],", "   ")).split()
        )
        here = (PHASE.at("pearson", PHASE.PRINTED[0], each) for each in ("modulated", kind))
        one, other = (measure(results)[0] for measure in here)
        expected = one - other
        assert own == pytest.approx(expected, rel=0.06, abs=1e-9) and low <= own <= high
    before = (folder / "minilm" / "shrink-only-42" / "readings.json").stat().st_mtime_ns
    assert claims(recipes.run(PHASE, config, "small", tmp_path)) == found
    assert (folder / "minilm" / "shrink-only-42" / "readings.json").stat().st_mtime_ns == before


def test_presets() -> None:
    near = [alpha for alpha in PHASE.Config.quick().alphas if abs(alpha - 0.29154) < 0.02]
    assert {0.29154, 0.29514} < set(near)
    assert max(b - a for a, b in itertools.pairwise(near)) < 0.015  # a boundary there would be seen
    assert set(PHASE.Config.paper().alphas) > set(PHASE.Config.quick().alphas)
    assert LERP.Config.paper().anchors == 3_000
    assert len(STABILITY.Config.quick().seeds) == 50
    assert SCALE.label("qwen3.5-4b=a>qwen3.5-0.8b=b") == SCALE.QWEN
