"""Gaussian orthants with a closed form, and networks that answer a constant."""

import math

import pytest
import torch
from scipy.stats import norm

import probekit as pk
from probekit.hooked.model import weights
from probekit.training import constant_predictor, constant_survival, gap_survival
from probekit.training.separability.hybrids import accuracy

SIZES = {"d_model": 16, "d_head": 4, "d_mlp": 16, "n_ctx": 8, "d_vocab": 11}
ERROR = 4 / (2 * math.sqrt(20_000))  # four deviations of the share of draws


@pytest.fixture(scope="module")
def model():
    return pk.load("interleaved", seed=0, **SIZES)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(0, 11, (60, 8), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("gap", "length", "sigma"), [(1.0, 2.0, 0.5), (1.0, 2.0, 3.0), (-1.0, 1.0, 1.0)]
)
def test_one_other_class_is_the_normal_distribution(gap, length, sigma) -> None:
    direction = length * torch.eye(5)[:1]
    found = gap_survival(torch.tensor([gap]), direction, sigma)
    assert found == pytest.approx(norm.cdf(gap / (sigma * length)), abs=ERROR)


def test_two_other_classes_are_an_orthant_of_the_plane() -> None:
    gaps = torch.tensor([1.0, 0.5])
    independent = gap_survival(gaps, torch.eye(2), 1.0)
    assert independent == pytest.approx(norm.cdf(1.0) * norm.cdf(0.5), abs=ERROR)
    sixty = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])  # 1/4 + arcsin(1/2) / (2 pi)
    assert gap_survival(torch.zeros(2), sixty, 7.0) == pytest.approx(1 / 3, abs=ERROR)


def test_without_noise_a_gap_survives_and_its_negative_does_not() -> None:
    assert gap_survival(torch.tensor([0.1, 3.0]), torch.eye(2), 0.0) == 1
    assert gap_survival(torch.tensor([-0.1, 3.0]), torch.eye(2), 0.0) == 0


def test_where_the_input_does_not_count_the_network_is_its_constant(tokens) -> None:
    model, label = pk.load("interleaved", seed=1, **SIZES), 4
    own = weights(model)
    with torch.no_grad():  # the final norm gives its offset, whatever comes in
        own["ln_out.weight"].zero_()
        own["ln_out.bias"].normal_(generator=torch.Generator().manual_seed(2))
        own["head.bias"][label] += 3
        own["head.bias"] -= own["head.weight"] @ own["ln_out.bias"]
    found = constant_survival(model, tokens, label, (0.0, 2.0))
    assert found["constant logits"]["0"] == 1
    labels = torch.full((len(tokens), 1), label)
    network = [
        accuracy(model, tokens, labels, pk.Noise(2.0, "ln_final", seed)) for seed in range(20)
    ]
    expected = found["constant logits"]["2"]
    assert 0.2 < expected < 0.9
    # 1,200 draws of the network
    assert sum(network) / 20 == pytest.approx(expected, abs=4 / (2 * math.sqrt(1_200)) + ERROR)
    assert found["offset alone"]["2"] != expected


def test_offset_alone_reads_no_network(model, tokens) -> None:
    other = pk.load("interleaved", seed=3, **SIZES)
    with torch.no_grad():
        for name in ("head.weight", "head.bias"):
            weights(other)[name].copy_(weights(model)[name])
    one, two = (constant_survival(each, tokens, 4, (1.0,)) for each in (model, other))
    assert one["offset alone"] == two["offset alone"]
    assert one["constant logits"] != two["constant logits"]


def test_a_constant_predictor_has_the_margin_and_nothing_else(model, tokens) -> None:
    label = 7
    certain = pk.load("interleaved", seed=0, **SIZES)
    with torch.no_grad():
        weights(certain)["head.bias"][label] += 5
    twin = constant_predictor(certain, tokens, label, seed=9)
    fresh = pk.random_twin(certain, 9)
    changed = [
        name
        for name, tensor in weights(twin).items()
        if not torch.equal(tensor, weights(fresh)[name])
    ]
    assert changed == ["head.bias"]

    @torch.no_grad()
    def margin(network):
        logits = network(tokens)[:, -1]
        others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
        return float((logits[:, label] - others.max(1).values).mean())

    assert margin(twin) == pytest.approx(margin(certain), abs=1e-4)
