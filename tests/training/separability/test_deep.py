"""Swaps by depth are the swaps they say, and a clamp is the noise divided."""

import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.training import InterleavedTask, accuracy
from probekit.training.separability.deep import (
    deep_swaps,
    in_chances,
    margin_ratios,
    noise_losses,
    sedation_at,
)

TASK = InterleavedTask(8, 8, held_out=60)
TOKENS, LABELS = TASK.validation()


def load(seed):
    sizes = {"n_layers": 3, "d_model": 16, "d_head": 4, "d_mlp": 24, **TASK.config}
    return pk.load("modular-deep-2", seed=seed, **sizes)


def test_every_swap_is_by_layers_and_parts() -> None:
    model, donor = load(0), load(1)
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    found = deep_swaps(model, donor, TOKENS, LABELS, seed=5)
    names = ["QKV, all layers", "QK, all layers", "V, all layers", "QKV, first 1", "QKV, first 2"]
    assert list(found) == names
    assert all(list(row) == ["B", "permuted A", "random", "zero"] for row in found.values())
    by_hand = load(0)
    with torch.no_grad():
        for name, tensor in weights(by_hand).items():
            if name.startswith(("layers.0", "layers.1")) and any(
                f".attn.{part}." in name for part in "qkv"
            ):
                tensor.copy_(weights(donor)[name])
    assert found["QKV, first 2"]["B"] == accuracy(by_hand, TOKENS, LABELS)
    assert all(torch.equal(weights(model)[name], tensor) for name, tensor in before.items())


def test_a_clamp_reads_as_divided_noise_where_the_read_out_has_no_offset() -> None:
    model = load(0)
    torch.nn.init.zeros_(weights(model)["head.bias"])
    found = sedation_at(model, TOKENS, LABELS, 0.6, 5.0)
    assert found["clamped"]["accuracy"] == found["clean"]["accuracy"]
    assert found["clamped"]["margin"] / found["clean"]["margin"] == pytest.approx(0.6, rel=1e-4)
    clamped, divided = found["clamped, noise"], found["noise divided"]
    assert clamped["accuracy"] == divided["accuracy"] != found["noise"]["accuracy"]
    assert clamped["margin"] == pytest.approx(0.6 * divided["margin"], rel=1e-4)


def test_readings_of_gathered_tables() -> None:
    scores = {"clamped": {"margin": [3.0, 2.0]}, "clean": {"margin": [6.0, 8.0]}}
    assert margin_ratios(scores) == [0.5, 0.25]
    found = {
        "swaps": {"V, all layers": {"B": [0.5, 0.25]}},
        "chance": [0.25, 0.25],
        "sedation": {"noise": {"accuracy": [0.75]}, "noise divided": {"accuracy": [0.5]}},
    }
    assert in_chances(found, "V", "B") == [2, 1]
    assert noise_losses(found, "noise divided") == [25]
