"""Noise downstream of a reading cannot change it; its own part has a closed form."""

import math

import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.training import falling_share, noisy_logit_scores, scores_under_noise

SIZES = {"d_model": 16, "d_head": 4, "d_mlp": 16, "n_ctx": 8, "d_vocab": 11}
SIGMAS = (0.0, 0.5, 2.0)


@pytest.fixture(scope="module")
def model():
    return pk.load("interleaved", seed=0, **SIZES)


@pytest.fixture(scope="module")
def examples():
    drawn = torch.randint(0, 11, (200, 9), generator=torch.Generator().manual_seed(0))
    return drawn[:, :-1], drawn[:, 1:]


def test_lengths_before_the_noise_stay_and_after_it_add_in_squares(model, examples) -> None:
    found = scores_under_noise(model, *examples, "ln_final", SIGMAS, draws=2)
    for name in ("residual", "final"):
        assert len({scores[name] for scores in found.values()}) == 1
    assert found["0"]["read"] == found["0"]["final"]
    for sigma in SIGMAS[1:]:  # an untrained norm has length 4 everywhere
        expected = math.sqrt(16 + 16 * sigma**2)
        assert found[f"{sigma:g}"]["read"] == pytest.approx(expected, rel=0.02)


def test_upstream_the_next_norm_sets_the_length(model, examples) -> None:
    found = scores_under_noise(model, *examples, "0.ln1", SIGMAS, draws=1)
    for scores in found.values():  # gain 1, offset 0
        assert scores["residual"] == pytest.approx(4.0, rel=1e-4)
    assert found["0"]["margin"] != found["2"]["margin"]


def test_noisy_logits_read_as_noise_at_the_final_norm(model, examples) -> None:
    network = scores_under_noise(model, *examples, "ln_final", SIGMAS, draws=4)
    logits = noisy_logit_scores(model, *examples, SIGMAS, draws=4, seed=0)
    assert logits["0"]["margin"] == pytest.approx(network["0"]["margin"], abs=1e-5)
    assert logits["0"]["accuracy"] == network["0"]["accuracy"]
    for sigma in ("0.5", "2"):  # 6,400 margins with a deviation below 4
        assert logits[sigma]["margin"] == pytest.approx(network[sigma]["margin"], abs=0.15)


def test_it_leaves_the_model_alone(model, examples) -> None:
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    scores_under_noise(model, *examples, "0.ln1", SIGMAS, draws=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


def test_falling_counts_steps_down() -> None:
    assert falling_share([3.0, 2.0, 1.0]) == 1
    assert falling_share([1.0, 1.0]) == 0
