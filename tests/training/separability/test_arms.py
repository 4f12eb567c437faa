"""The penalties are what the write-up calls them, and one of them has no gradient."""

import numpy as np
import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import ModularTask, Optimisation, Stack
from probekit.training.separability.anchoring import Ramp, sequence_cosine
from probekit.training.separability.arms import (
    Arm,
    ItselfPenalty,
    arm_penalties,
    critical,
    term_gradients,
    train_arms,
)

TASK = ModularTask(modulus=7, fraction=0.6)
OPTIMISATION = Optimisation(steps=40, batch=16, lr=3e-3, weight_decay=0.5, log_every=10)


def load(seed=0):
    sizes = {"n_layers": 1, "d_model": 16, "d_head": 4, "d_mlp": 24, **TASK.config}
    return pk.load("modular-deep-2", seed=seed, **sizes)


def final_of(seed, runs):
    drawn = torch.randn(runs, 5, 1, 16, generator=torch.Generator().manual_seed(seed))
    return drawn.double().requires_grad_()


def test_the_cosine_with_itself_is_one_and_has_no_gradient() -> None:
    final = final_of(0, runs=3)
    added = ItselfPenalty([1], lambda step: 0.5 * step)(4, torch.zeros(5, 2).long(), final)
    torch.testing.assert_close(added, torch.tensor([0, 2.0, 0], dtype=torch.float64))
    assert torch.autograd.grad(added.sum(), final)[0].norm() < 1e-14
    turned = sequence_cosine(final, final_of(1, runs=3).detach()).sum()
    assert torch.autograd.grad(turned, final)[0].norm() > 1e-2


def test_each_arm_has_its_own_term_and_weight() -> None:
    model, ramps = load(1), []

    def ramp(weight):
        ramps.append(weight)
        return Ramp(weight, 10, 10)

    arms = [Arm(), Arm("itself", 0.5), Arm("average", 2.0), Arm("anchor", 4.0), Arm("average")]
    penalties, state = arm_penalties(arms, model, ramp)
    assert ramps == [0.5, 2.0, 4.0, 0.3]
    assert {name: tuple(each.shape) for name, each in state.items()} == {
        "average.2": (5, 16),
        "average.4": (5, 16),
    }
    (tokens, _), anchor = TASK.validation(), Stack([model])
    final = torch.randn(5, len(tokens), 1, 16, generator=torch.Generator().manual_seed(0))
    first = sum(penalty(10, tokens, final) for penalty in penalties)
    assert first.tolist() == [0] * 5
    averages = 0.01 * final.mean((1, 2))
    there = anchor.final(tokens)[:, :, 0]
    expected = [
        0.0,
        0.5,
        2 * cosine(averages[2], final[2, :, 0].mean(0)),
        4 * abs(np.mean([cosine(a, b) for a, b in zip(there[0], final[3, :, 0], strict=True)])),
        0.3 * cosine(averages[4], final[4, :, 0].mean(0)),
    ]
    half = sum(penalty(15, tokens, final) for penalty in penalties)
    torch.testing.assert_close(
        half, 0.5 * torch.tensor(expected, dtype=half.dtype), rtol=1e-4, atol=1e-6
    )


def cosine(x, y):
    return (x @ y / (x.norm() * y.norm())).item()


def test_gradients_of_a_network_are_fractions_of_its_cross_entropys() -> None:
    stack, anchor = Stack([load()]), load(1)
    tokens, labels = TASK.validation()
    found = term_gradients(stack, anchor, tokens, labels)
    assert found["itself"] < 1e-5 < 1e-2 < min(found["average"], found["anchor"])
    model = load()
    loss = torch.nn.functional.cross_entropy(model(tokens)[:, -1], labels[:, 0])
    own = torch.autograd.grad(loss, list(weights(model).values()))
    there = Stack([anchor]).final(tokens).detach()
    term = sequence_cosine(stack.final(tokens), there).abs().sum()
    of_term = torch.autograd.grad(term, list(stack.parameters.values()), allow_unused=True)
    norms = [sum(g.square().sum() for g in each if g is not None) ** 0.5 for each in (of_term, own)]
    assert found["anchor"] == pytest.approx(float(norms[0] / norms[1]), rel=1e-3)


def test_arms_leave_attention_alone_and_go_their_own_ways(tmp_path) -> None:
    model = load()
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    arms = {"one": Arm(), "same": Arm(), "orthogonal": Arm("anchor", 3.0)}
    where = {"title": "", "position": 0}
    found = train_arms(RunDir(tmp_path), model, arms, TASK, OPTIMISATION, 3, **where)
    assert all(torch.equal(weights(model)[name], tensor) for name, tensor in before.items())
    _, kept, _ = RunDir(tmp_path).load_checkpoint() or (0, {}, {})
    for name, tensor in before.items():
        frozen = any(f".attn.{part}." in name for part in "qkv")
        assert torch.equal(kept[name][0], tensor) == frozen
    assert not torch.equal(kept["head.weight"][0], kept["head.weight"][1])  # other batches
    assert found["logs"]["one"]["steps"] == [0, 10, 20, 30, 40]
    first = [log["accuracy"][0] for log in found["logs"].values()]
    assert first[0] == first[1] == first[2]
    again = train_arms(RunDir(tmp_path), model, arms, TASK, OPTIMISATION, 3, **where)
    assert again == found


def test_the_critical_period_is_two_good_logs_in_a_row() -> None:
    assert [critical(log) for log in ([0.95], [0.95, 0.8], [0.95, 0.8, 0.9], [0.1, 0.9, 0.9])] == [
        False,
        False,
        False,
        True,
    ]
