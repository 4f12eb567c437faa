"""Scaling a signal and adding noise to it is algebra; each reading here has a closed form."""

import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.training import disturbed_scores, read_signal, rescaled_accuracy, scaled
from probekit.training.separability.sedation import (
    noise_range,
    noisy_points,
    ratio_spreads,
    scores_by_setting,
    setting_key,
    spread_at_equal,
)

SIZES = {"d_model": 16, "d_head": 4, "d_mlp": 16, "n_ctx": 8, "d_vocab": 11}
THERE = 3


@pytest.fixture(scope="module")
def model():
    return pk.load("interleaved", seed=0, **SIZES)


@pytest.fixture(scope="module")
def examples():
    drawn = torch.randint(0, 11, (40, 9), generator=torch.Generator().manual_seed(0))
    return drawn[:, :-1], drawn[:, 1:]


def final_of(model, tokens, items=()):
    with torch.no_grad(), pk.attach(model, *items, pk.Record("ln_final")) as run:
        model(tokens)
    return run["record"].values


def test_a_signal_is_its_norm_and_its_spreads(model, examples) -> None:
    x = final_of(model, examples[0]).double()
    signal = read_signal(model, examples[0], THERE)
    assert signal.norm == pytest.approx(x.square().sum(-1).sqrt().mean().item(), rel=1e-6)
    around = x - x.reshape(-1, 16).mean(0)
    assert signal.spread == pytest.approx(around.std().item(), rel=1e-5)
    around = x[:, THERE] - x[:, THERE].mean(0)
    assert signal.spread_there == pytest.approx(around.std().item(), rel=1e-5)


def test_every_way_scales_by_the_same_factor(model, examples) -> None:
    x, signal = final_of(model, examples[0]), read_signal(model, examples[0], THERE)
    factor = 0.3
    target = factor * signal.norm
    mean, there = x.mean((0, 1)), x[:, THERE].mean(0)
    one = x.clone()
    one[:, THERE] = there + factor * (x[:, THERE] - there)
    expected = {
        "none": x,
        "norm": factor * x,
        "each vector": factor * x[:, THERE].norm(dim=-1).mean() * x / x.norm(dim=-1, keepdim=True),
        "variance": mean + factor * (x - mean),
        "variance there": one,
        "noise divided": x,
    }
    for way, result in expected.items():
        found = final_of(model, examples[0], scaled(signal, way, target, 0.0))
        torch.testing.assert_close(found, result, rtol=1e-4, atol=1e-5)


def test_all_ways_see_the_same_noise_and_divided_noise_is_larger(model, examples) -> None:
    signal = read_signal(model, examples[0], THERE)

    def added(way, sigma):
        clean, noisy = (
            final_of(model, examples[0], scaled(signal, way, signal.norm / 4, s, seed=7))
            for s in (0.0, sigma)
        )
        return noisy - clean

    noise = added("none", 0.5)
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    for way in ("norm", "each vector", "variance", "variance there"):
        torch.testing.assert_close(added(way, 0.5), noise, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(added("noise divided", 0.5), 4 * noise, rtol=1e-3, atol=1e-5)


def test_without_an_offset_the_argmax_depends_on_the_ratio_alone(examples) -> None:
    model = pk.load("interleaved", seed=1, **SIZES)
    with torch.no_grad():
        weights(model)["head.bias"].zero_()
    tokens, labels = examples
    settings = [(way, a, a / 4) for way in ("norm", "noise divided") for a in (1.0, 2.0, 8.0)]
    found = scores_by_setting(model, tokens, labels, settings, there=THERE, draws=2)
    accuracies = [value for *_, value in noisy_points(found, ["norm", "noise divided"])]
    assert len(accuracies) == 6
    assert len(set(accuracies)) == 1


def test_scores_are_those_of_the_logits_with_labels_at_the_end(model, examples) -> None:
    tokens, labels = examples
    logits = model(tokens)
    right = (logits.argmax(-1) == labels).double()
    scores = disturbed_scores(model, [], tokens, labels, there=THERE)
    assert scores["accuracy"] == pytest.approx(right.mean().item())
    assert scores["accuracy_there"] == pytest.approx(right[:, THERE].mean().item())
    last = disturbed_scores(model, [], tokens, labels[:, -1:])
    assert last["accuracy"] == last["accuracy_there"] == pytest.approx(right[:, -1].mean().item())
    own = logits.gather(-1, labels[..., None])[..., 0]
    others = logits.scatter(-1, labels[..., None], -torch.inf).amax(-1)
    assert scores["margin_there"] == pytest.approx((own - others)[:, THERE].mean().item(), rel=1e-4)


def test_a_position_without_a_label_is_refused(model, examples) -> None:
    tokens, labels = examples
    with pytest.raises(pk.ProbekitError) as refused:
        disturbed_scores(model, [], tokens, labels[:, -2:], there=THERE)
    assert str(refused.value) == "position 3 has no label: the last 2 of 8 positions have one"


def test_the_algebra_of_a_clean_clamp_is_the_clamp(model, examples) -> None:
    tokens, labels = examples
    signal = read_signal(model, tokens, THERE)
    for target in (0.5, 20.0):
        clamped = disturbed_scores(
            model, scaled(signal, "norm", target, 0.0), tokens, labels, THERE
        )
        expected = rescaled_accuracy(model, tokens, labels, target, THERE)
        assert clamped["accuracy_there"] == pytest.approx(expected, abs=1e-9)


def test_spreads_group_settings_by_ratio_or_by_target() -> None:
    def scores(*values):
        return {"accuracy_there": list(values), "range_there": [0.1, 0.2]}

    found = {
        "norm": {
            "natural": {"1": scores(1.0, 1.0)},
            "4": {"0": scores(1.0, 1.0), "1": scores(0.8, 0.7), "2": scores(0.4, 0.5)},
            "8": {"2": scores(0.75, 0.9)},
        },
    }
    assert ratio_spreads(found, ["norm"]) == pytest.approx([0.05, 0.2])
    assert ratio_spreads(found, ["norm"], at_equal="target") == pytest.approx([0.4, 0.2])
    assert noise_range(found, ["norm"]) == [0.1, 0.2]
    assert str(spread_at_equal(["a", "b"], [1.0, 2.0])) == "nan"
    assert setting_key(2.5) == "2.5"
