"""Swaps by name: a network with its own weights is itself, and names mean what they say."""

import torch

import probekit as pk
from probekit.training import (
    InterleavedTask,
    accuracy,
    permuted_twin,
    read_activations,
    similarities,
    similarity,
    swap_accuracies,
    weight_swaps,
)

TASK = InterleavedTask(12, 8, held_out=40)
SIZES = {"d_model": 16, "d_head": 4, "d_mlp": 16, **TASK.config}


def models(*seeds):
    return [pk.load("interleaved", seed=seed, **SIZES) for seed in seeds]


def logits(model, item):
    with torch.no_grad(), pk.attach(model, item):
        return model(TASK.validation()[0])


def test_a_network_swapped_with_itself_is_itself():
    model, same = models(0, 0)
    own = accuracy(model, *TASK.validation())
    right = model(TASK.validation()[0]).argmax(-1) == TASK.validation()[1]
    assert own == float(right.double().mean())
    donors = {name: {"same": same} for name in weight_swaps(model, 0)}
    found = swap_accuracies(model, *TASK.validation(), donors, seed=0)
    assert found == {name: {"same": own} for name in donors}


def test_the_published_rows_are_not_what_they_are_called():
    model, donor = models(0, 1)
    swaps = weight_swaps(model, 0)
    three_quarters_of_q = pk.SwapWeights(donor, ("Q",), heads=(0, 1, 2))
    all_three = pk.SwapWeights(donor, ("Q", "K", "V"))
    first = pk.SwapWeights(donor, ("Q", "K"), heads=(0,))
    for name, meant in (
        ("published, 1 of 4", three_quarters_of_q),
        ("published, 4 of 4", all_three),
        ("QK, 1 of 4", first),
    ):
        assert torch.equal(logits(model, swaps[name](donor)), logits(model, meant))
    swapped = logits(model, swaps["published, 1 of 4"](donor))
    assert not torch.equal(swapped, logits(model, swaps["QK, 1 of 4"](donor)))


def test_names_follow_the_number_of_heads():
    (model,) = models(0)
    assert list(weight_swaps(model, 0))[:5] == [
        *(f"published, {k} of 4" for k in (1, 2, 4)),
        *(f"QK, {k} of 4" for k in (1, 2)),
    ]
    two = pk.load("interleaved", seed=0, **{**SIZES, "n_heads": 2, "d_head": 8})
    assert list(weight_swaps(two, 0))[:4] == [
        "published, 1 of 2",
        "published, 2 of 2",
        "QK, 1 of 2",
        "QK",
    ]


def test_a_permuted_network_differs_in_its_native_basis_only():
    (model,) = models(0)
    tokens, _ = TASK.validation()
    own = read_activations(model, tokens)
    twin = read_activations(permuted_twin(model, 5), tokens)
    assert own.pattern.shape == (40, 4, 8, 8)
    assert own.residual.shape == (40, 8, 16)
    found = similarity(own, twin)
    assert found.pop("residual") < 0.5
    assert all(abs(value - 1) < 1e-5 for value in found.values())
    assert all(abs(value - 1) < 1e-9 for value in similarity(own, own).values())


def test_similarities_hold_the_model_against_itself_elsewhere():
    model, other = models(0, 1)
    tokens, _ = TASK.validation()
    nothing = weight_swaps(model, 0)["QK"](model)
    found = similarities(model, {"other": other, "same": model}, tokens, nothing, seed=0)
    assert list(found) == ["other", "same", "hybrid", "untrained", "other inputs"]
    assert found["same"] == found["hybrid"]
    for name in ("other", "untrained", "other inputs"):
        assert all(value < 0.999 for value in found[name].values())
    shifted = read_activations(model, torch.cat([tokens[-1:], tokens[:-1]]))
    assert found["other inputs"] == similarity(read_activations(model, tokens), shifted)
