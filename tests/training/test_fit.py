"""Fitting a stack, or one model, is the plain training loop; killed anywhere it ends the same."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import probekit as pk
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import InterleavedTask, ModularTask, Optimisation, Stack, fit, margins

SEQUENCES = InterleavedTask(20, 12, held_out=30)
SUMS = ModularTask(modulus=11, fraction=0.5)
OPTIMISATION = Optimisation(steps=20, batch=16, weight_decay=0.1, clip=0.5, log_every=5)


def models(task, seeds=(0, 1)):
    # A bias of the keys has no gradient but rounding's, which Adam would make large.
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 24, "attention_bias": False, **task.config}
    return [pk.load("interleaved", seed=seed, **sizes) for seed in seeds]


def run_fit(folder, model, task, seeds=(0, 1), **more):
    fit(RunDir(folder), model, task, OPTIMISATION, list(seeds), title="", position=0, **more)
    return RunDir(folder).rows()


def by_hand(model, task, seed, frozen=()):
    """PyTorch's own loop on the same batches."""
    trained = [p for name, p in weights(model).items() if name not in frozen]
    optimizer = torch.optim.AdamW(trained, 1e-3, weight_decay=0.1)
    for step in range(20):
        tokens, labels = task.batch(np.random.default_rng([seed, 0, step]), 16)
        logits = model(tokens)[:, -labels.shape[1] :]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.5)
        optimizer.step()
    return weights(model)


@pytest.mark.parametrize("task", [SEQUENCES, SUMS])
def test_each_run_is_trained_as_it_would_be_alone(tmp_path, task):
    stack = Stack(models(task))
    rows = run_fit(tmp_path / "stack", stack, task)
    assert [row["step"] for row in rows] == [0, 5, 10, 15, 20]
    for run, (model, single) in enumerate(zip(models(task), models(task), strict=True)):
        expected = by_hand(model, task, seed=run)
        run_fit(tmp_path / f"single{run}", single, task, [run])
        for name, tensor in expected.items():
            torch.testing.assert_close(stack.parameters[name][run], tensor, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(weights(single)[name], tensor, rtol=1e-3, atol=1e-5)
        logits = model(task.validation()[0])[:, -task.validation()[1].shape[1] :]
        right = (logits.argmax(-1) == task.validation()[1]).double().mean()
        assert rows[-1]["accuracy"][run] == pytest.approx(float(right), abs=1e-6)
        loss = F.cross_entropy(logits.flatten(0, 1), task.validation()[1].flatten())
        assert rows[-1]["loss"][run] == pytest.approx(loss.item(), rel=1e-4)


def test_runs_of_one_seed_see_the_same_batches(tmp_path):
    twice = Stack(models(SUMS, seeds=(3, 3)))
    rows = run_fit(tmp_path, twice, SUMS, (5, 5))
    assert all(row["loss"][0] == row["loss"][1] for row in rows)


def test_frozen_parameters_stay_and_the_rest_is_trained(tmp_path):
    stack = Stack(models(SUMS))
    before = {name: p.detach().clone() for name, p in stack.parameters.items()}
    frozen = [name for name in before if ".attn." in name]
    run_fit(tmp_path, stack, SUMS, frozen=frozen)
    same = {name for name, p in stack.parameters.items() if torch.equal(p, before[name])}
    assert same == set(frozen)
    expected = by_hand(models(SUMS)[0], SUMS, 0, frozen)
    for name, tensor in expected.items():
        torch.testing.assert_close(stack.parameters[name][0], tensor, rtol=1e-3, atol=1e-5)


def test_a_penalty_is_added_to_each_runs_loss(tmp_path):
    stack, shares = Stack(models(SUMS)), []

    def shrink(step, tokens, final):
        shares.append((step, tuple(tokens.shape), tuple(final.shape)))
        return torch.tensor([0.0, 10.0]) * final.square().mean((1, 2, 3))

    run_fit(tmp_path / "penalised", stack, SUMS, penalty=shrink)
    assert shares == [(step, (2, 16, 2), (2, 16, 1, 16)) for step in range(20)]
    plain = Stack(models(SUMS))
    run_fit(tmp_path / "plain", plain, SUMS)
    gain = [each.parameters["ln_out.weight"] for each in (stack, plain)]
    torch.testing.assert_close(gain[0][0], gain[1][0], rtol=1e-4, atol=1e-5)
    assert gain[0][1].norm() < gain[1][1].norm()


def noisy(step):
    return [pk.Noise(0.5, "0.ln1", seed=step)]


def test_edits_act_in_training_and_not_in_the_log(tmp_path):
    (edited,), (expected,) = models(SUMS, seeds=(0,)), models(SUMS, seeds=(0,))
    rows = run_fit(tmp_path, edited, SUMS, [0], edits=noisy)
    optimizer = torch.optim.AdamW(weights(expected).values(), 1e-3, weight_decay=0.1)
    for step in range(20):
        tokens, labels = SUMS.batch(np.random.default_rng([0, 0, step]), 16)
        with pk.attach(expected, *noisy(step)):
            loss = F.cross_entropy(expected(tokens)[:, -1], labels[:, 0])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights(expected).values()), 0.5)
        optimizer.step()
    for name, tensor in weights(expected).items():
        torch.testing.assert_close(weights(edited)[name], tensor, rtol=1e-3, atol=1e-5)
    tokens, labels = SUMS.validation()
    clean = F.cross_entropy(edited(tokens)[:, -1], labels[:, 0]).item()
    assert rows[-1]["loss"][0] == pytest.approx(clean, rel=1e-5)


class Interrupted(Exception):
    pass


def _smooth(stack, state):
    def watch(step, row):
        if state["stop"] == step:
            raise Interrupted
        state["mean"].lerp_(stack.parameters["ln_out.weight"].detach(), 0.5)
        return {"mean": state["mean"].mean(1)}

    return watch


@pytest.mark.parametrize("stop", [0, 5, 10, 20])
def test_killed_and_resumed_it_ends_with_the_same_numbers(tmp_path, stop):
    def attempt(folder, stop):
        stack = Stack(models(SUMS))
        mean = torch.zeros(2, 16)
        watch = _smooth(stack, {"mean": mean, "stop": stop})
        return stack, run_fit(folder, stack, SUMS, watch=watch, state={"watched": mean})

    whole, rows = attempt(tmp_path / "whole", None)
    with pytest.raises(Interrupted):
        attempt(tmp_path / "cut", stop)
    resumed, again = attempt(tmp_path / "cut", None)
    assert rows == again
    finished, _ = attempt(tmp_path / "cut", 0)  # done: nothing runs, the weights are read
    for name, tensor in whole.parameters.items():
        assert torch.equal(tensor, resumed.parameters[name])
        assert torch.equal(tensor, finished.parameters[name])


def test_margin_is_the_lead_over_the_best_other():
    logits = torch.tensor([[3.0, 1.0, -2.0], [0.0, 5.0, 4.0]])
    assert margins(logits, torch.tensor([0, 2])).tolist() == [2.0, -1.0]


def test_mistakes_are_named_before_training(tmp_path):
    stack = Stack(models(SUMS))
    with pytest.raises(pk.RunError, match="cannot freeze attn"):
        run_fit(tmp_path, stack, SUMS, frozen=["attn"])
    with pytest.raises(pk.RunError, match="a seed a run: 2 runs, given 1"):
        run_fit(tmp_path, stack, SUMS, [0])
    with pytest.raises(pk.RunError, match="edits attach to a hooked model, not to a stack"):
        run_fit(tmp_path, stack, SUMS, edits=noisy)
    assert not list(tmp_path.iterdir())
