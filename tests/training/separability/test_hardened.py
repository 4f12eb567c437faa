"""Training under noise resumes to the same numbers; readings with, without and below a signal."""

import numpy as np
import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import (
    LastLabel,
    ModularTask,
    Optimisation,
    Task,
    fit_hardened,
    injure,
    noise_accuracies,
    pair_similarities,
    silence,
)
from probekit.training.separability.hybrids import accuracy

TASK = LastLabel(ModularTask("sequence", 5, 0.5, seed=0, held_out=12))
SIZES = {"d_model": 16, "d_head": 4, "d_mlp": 16, **TASK.config}
ADAM = Optimisation(4, 8, 1e-2, log_every=2)


def load(seed=0):
    return pk.load("interleaved", seed=seed, **SIZES)


#: A stop saves a checkpoint at every log.
MORE = {"title": "test", "position": 0, "stop": lambda: False}


def train(folder, sites, sigma, seed=0):
    model = load()
    fit_hardened(RunDir(folder), model, TASK, ADAM, seed, sites, sigma, **MORE)
    return {name: tensor.detach().clone() for name, tensor in weights(model).items()}


def distance(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_the_last_label_of_a_sequence_is_always_padding() -> None:
    tokens, labels = TASK.batch(np.random.default_rng(0), 9)
    assert isinstance(TASK, Task)
    assert labels.tolist() == [[7]] * 9  # p + 2
    assert tokens.shape == (9, 15)
    whole = TASK.task.validation()
    assert torch.equal(TASK.validation()[0], whole[0])
    assert torch.equal(TASK.validation()[1], whole[1][:, -1:])


def test_noise_acts_in_training_and_each_seed_has_its_own(tmp_path) -> None:
    clean, noisy, other = (
        train(tmp_path / name, ["0.ln1"], sigma, seed)
        for name, sigma, seed in [("clean", 0.0, 0), ("noisy", 1.0, 0), ("other", 1.0, 1)]
    )
    assert distance(clean, noisy) > 1e-3
    assert distance(noisy, other) > 1e-3


def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path, monkeypatch) -> None:
    calls = 0
    drawn = pk.Noise.edit

    def killed(self, x, at):
        nonlocal calls
        calls += 1
        if calls == 4:  # after the checkpoint at step 2
            raise KeyboardInterrupt
        return drawn(self, x, at)

    whole = train(tmp_path / "whole", ["0.ln1"], 1.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pk.Noise, "edit", killed)
        fit_hardened(RunDir(tmp_path / "cut"), load(), TASK, ADAM, 0, ["0.ln1"], 1.0, **MORE)
    assert distance(train(tmp_path / "cut", ["0.ln1"], 1.0), whole) == 0


def test_accuracies_are_means_over_draws_at_all_sites() -> None:
    model = load()
    tokens, labels = TASK.validation()
    sites = ["0.ln1", "ln_final"]
    found = noise_accuracies(model, tokens, labels, sites, (0.0, 1.5), 3)
    assert list(found) == ["0", "1.5"]
    assert found["0"] == accuracy(model, tokens, labels)
    each = [
        accuracy(model, tokens, labels, *[pk.Noise(1.5, site, seed) for site in sites])
        for seed in range(3)
    ]
    assert found["1.5"] == pytest.approx(sum(each) / 3)


def test_what_comes_before_the_noise_acts_before_it() -> None:
    model = load()
    tokens, _ = TASK.validation()
    alone = silence("0.ln1"), pk.Noise(2.0, "0.ln1", 0)
    with torch.no_grad(), pk.attach(model, *alone):
        predicted = model(tokens)[:, -1:].argmax(-1)

    def found(*before):
        return noise_accuracies(model, tokens, predicted, ["0.ln1"], [2.0], 1, *before)["2"]

    assert found(silence("0.ln1")) == 1
    assert found() < 1


def test_silence_deletes_the_input() -> None:
    model = load()
    tokens, _ = TASK.validation()

    def logits(tokens):
        with torch.no_grad(), pk.attach(model, silence("0.ln1"), pk.Noise(1.0, "0.ln1", 0)):
            return model(tokens)

    assert torch.equal(logits(tokens), logits(tokens.roll(1, 0)))


def test_as_loud_is_the_hardened_networks_ratio() -> None:
    networks = {"baseline": load(), "hardened": load()}
    with torch.no_grad():
        weights(networks["hardened"])["layers.0.ln1.weight"].mul_(4)
    tokens, labels = TASK.validation()
    found = injure(networks, tokens, labels, "0.ln1", (0.0, 2.0), 2)
    assert found["length"]["baseline"] == pytest.approx(4.0, rel=1e-4)
    assert found["length"]["hardened"] == pytest.approx(16.0, rel=1e-4)
    expected = noise_accuracies(networks["baseline"], tokens, labels, ["0.ln1"], [0.5], 2)
    assert found["as loud"]["2"] == expected["0.5"]
    assert found["as loud"]["0"] == found["noise"]["baseline"]["0"]["accuracy"]
    assert list(found["alone"]["baseline"]) == ["2"]
    assert set(found["leak"]) == set(networks)


def test_a_permuted_network_is_itself_and_unlike() -> None:
    networks = {"baseline": load(1), "hardened": load(0), "another baseline": load(0)}
    found = pair_similarities(networks, TASK.validation()[0], seed=0)
    same, permuted = (
        found[pair] for pair in ("hardened, baseline of its start", "hardened, itself permuted")
    )
    assert same["residual"] == pytest.approx(1, abs=1e-5)
    assert permuted["attention by head"] == pytest.approx(1, abs=1e-4)
    assert abs(permuted["residual"]) < 0.6
    assert permuted["linear CKA"] == pytest.approx(1, abs=1e-4)
    assert found["two baselines"] == pytest.approx(found["hardened, baseline"])
