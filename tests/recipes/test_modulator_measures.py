"""Measures of the recipes on modulators, on results written by hand, and controls of ``talk``."""

import math

import numpy as np
import pytest
import torch

import probekit as pk
from probekit import recipes
from probekit.claims import decide
from probekit.modulators import LerpModulator

LERP, PHASE, TALK, FIELD = (
    recipes.load(recipes.find(name))
    for name in ("lerp", "phase-boundary", "talk", "field-modulator")
)
PRINTED = (0.29154, 0.29514)


def module_with_rows(tokens: list[int]) -> LerpModulator:
    module = LerpModulator(d_model=6, n_layers=2, vocab=20, d_geometry=4, alpha=0.2)
    rows = torch.randn(len(tokens), 4, generator=torch.Generator().manual_seed(0))
    module.set_geometry(rows, tokens, zero_others=True)
    return module


def test_talks_controls_deal_out_every_row_that_there_is() -> None:
    """Of tokens that only definitions have too, which the table had no row for at the start."""
    tokens = [2, 3, 5, 7, 11, 13, 17, 19]
    module = module_with_rows(tokens)
    found = TALK.controls(module, torch.tensor([5, 7, 5]), 3)
    assert list(found) == ["trained", "words alone", "permuted", "shrink only"]
    assert {item.site for item in found.values()} == {"encoder.resid_pre"}
    assert found["trained"] == pk.Lerp(module, site="encoder.resid_pre")
    dealt = found["permuted"].module.geometry
    order = np.random.default_rng(3).permutation(8)
    for place, token in enumerate(tokens):
        assert torch.equal(dealt[token], module.geometry[tokens[order[place]]])
    assert not dealt[[0, 1, 4, 6]].any()
    words = found["words alone"].module.geometry
    assert torch.equal(words[[5, 7]], module.geometry[[5, 7]])
    assert words.any(-1).nonzero()[:, 0].tolist() == [5, 7]
    assert found["shrink only"].form == "shrink-only"


def said(alpha: float, nll: float, kl: float, edits: int) -> dict[str, float]:
    counts = {"levenshtein": edits, "hamming": edits}
    return {"alpha": alpha, "nll": nll, "original_nll": 1.0, "kl": kl, **counts}


def test_talks_means_are_over_prompts_at_one_alpha() -> None:
    own = [said(0.01, 1.5, 0.2, 0), said(0.01, 2.5, 0.4, 3), said(0.5, 9.0, 7.0, 3)]
    shrunk = [said(0.01, 1.25, 0.1, 0), said(0.01, 1.25, 0.1, 0)]
    results = {"host": {"pretrained": [{"trained": own, "shrink only": shrunk}]}}
    assert TALK.mean_of(TALK.stranger, 0.01, "trained")(results) == [1.0]
    assert TALK.mean_of(TALK.stranger, 0.01, "shrink only")(results) == [0.25]
    assert TALK.mean_of(TALK.unchanged, 0.01, "trained")(results) == [0.5]
    assert math.isnan(TALK.mean_of(TALK.stranger, 0.3, "trained")(results)[0])
    shrunk[0]["alpha"] = own[2]["alpha"] = 0.29154
    assert TALK.further("trained", "shrink only")(results) == pytest.approx([6.9])
    own[2]["alpha"] = 0.5
    row = TALK.sweep_row(results["host"]["pretrained"], "trained", 0.5)
    assert row["NLL less the original's"] == "8.000" and row["KL (nats a token)"] == "7.000"


def test_gains_of_fields_are_paired_by_seed_and_chance_has_no_sign() -> None:
    nlls = {"published": (3.0, 3.5), "constant": (3.2, 3.6), "room": (5.0, 5.0)}
    results = {arm: [{"lemma_nll": nll} for nll in each] for arm, each in nlls.items()}
    results["none"] = {"lemma_nll": 4.0}
    assert FIELD.over("published", "constant")(results) == pytest.approx([0.2, 0.1])
    assert FIELD.over("room", "none")(results) == pytest.approx([-1.0, -1.0])
    assert FIELD.chance("constant")(results) == pytest.approx([0.4, 0.4])
    claim = next(claim for claim in FIELD.CLAIMS if claim.id == "003-34.trained")
    assert decide(claim, results, "")["verdict"] == "explained by null"  # seeds differ by more


def curve(values: list[float], at: float = 0.4, sharper: bool = True) -> dict[str, object]:
    bend = {"at": at, "sharper": sharper, "low": 0.3, "high": 0.5}
    readings = {"alphas": [0.0, 0.01, *PRINTED, 0.5], "bends": {"pearson": bend}}
    return readings | {name: values for name in ("pearson", "nouns", "preservation")}


def test_readings_along_alpha() -> None:
    results = {
        "minilm": {
            "pretrained": [curve([0.40, 0.41, 0.45, 0.43, 0.50])],
            "shrink-only": [curve([0.40, 0.41, 0.42, 0.42, 0.44], sharper=False)],
        }
    }
    assert PHASE.at("pearson", 0.5)(results) == [0.5]
    assert PHASE.at("pearson", 0.5, less=0.01)(results) == pytest.approx([0.09])
    assert PHASE.at("pearson", 0.5, "shrink-only", less=0.01)(results) == pytest.approx([0.03])
    assert PHASE.best("pearson")(results) == pytest.approx([0.50 / 0.40])
    assert PHASE.best("pearson", "shrink-only")(results) == pytest.approx([0.44 / 0.40])
    assert PHASE.apart("pearson")(results) == pytest.approx([0.02])
    assert PHASE.bend("pearson")(results) == [0.4]
    assert PHASE.spread("pearson")(results) == pytest.approx([0.2])
    assert math.isnan(PHASE.bend("pearson", "shrink-only")(results)[0])  # a smooth curve


def test_the_numbers_of_t5_small_are_read_of_it_alone() -> None:
    own = {
        "alphas": [0.0, 0.01, 0.5],
        "pearson": [0.0734, 0.099, 0.185],
        "gradient": [0.01, 0.022, 0.076],
        "preservation": [1.0, 0.9998, 0.176],
    }
    flat = {name: [0.25] * 3 for name in own} | {"alphas": own["alphas"]}
    t5 = {"pretrained": [own], "permuted": [flat], "shrink-only": [flat]}
    results = {"minilm": {kind: [flat] for kind in t5}, "t5-small": t5}
    rows = {
        claim.id.removeprefix("003-"): decide(claim, results, "")
        for claim in PHASE.CLAIMS
        if ".t5" in claim.id or claim.id.endswith(".best")
    }
    assert {id_: (row["measured"], row["null"]) for id_, row in rows.items()} == {
        "12.t5": (0.099, 0.0734),
        "13.t5": (0.022, 0.01),
        "30.t5": (0.185, 0.25),
        "30.t5-gradient": (0.076, 0.25),
        "30.t5-preservation": (0.176, 0.25),
        "30.best": (0.185 / 0.0734, 1),
    }
    assert {row["verdict"] for row in rows.values()} == {"reproduced"}


def test_a_surely_higher_reading_is_so_in_resampled_definitions() -> None:
    noise = np.random.default_rng(0).normal(size=(200, 1)) * 0.01
    own, other = curve([0.4, 0.4, 0.45, 0.4, 0.4]), curve([0.4, 0.4, 0.42, 0.4, 0.4])
    own["resampled"] = {"pearson": np.array(own["pearson"]) + noise}
    other["resampled"] = {"pearson": np.array(other["pearson"]) + 0 * noise}
    results = {"minilm": {"pretrained": [own], "permuted": [other]}}
    found = PHASE.surely("pearson", "modulated", "permuted")(results)
    assert found == pytest.approx([0.03 + np.quantile(noise, 0.025)])
    turned = PHASE.surely("pearson", "permuted", "modulated")(results)
    assert turned == pytest.approx([-0.03 - np.quantile(noise, 0.975)])


def test_deals_are_counted_with_the_kind_itself() -> None:
    deals = {name: [0.40, 0.41, 0.46, 0.45] for name in PHASE.MEASURES}
    own = curve([0.0, 0.0, 0.45, 0.0, 0.0])
    results = {"minilm": {"pretrained": [own], "deals": [deals]}}
    assert PHASE.as_high("pearson", "modulated")(results) == [3 / 5]  # .46, .45 and itself
    assert list(PHASE.curves_of(results["minilm"])) == ["modulated"]


def test_what_lerp_reads_at_alpha_and_gains() -> None:
    curves = {"modulated": {"pearson": [0.4, 0.43]}, "permuted": {"pearson": [0.4, 0.39]}}
    results = {"minilm": {"pretrained": [{"curves": curves}]}}
    assert LERP.modulated("pearson")(results) == [0.43]
    assert LERP.gain("pearson")(results) == pytest.approx([0.03])
    assert LERP.gain("pearson", "permuted")(results) == pytest.approx([-0.01])
