"""The penalties are what the write-up calls them, and one of them has no gradient."""

import numpy as np
import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import ModularTask, Optimisation, Stack
from probekit.training.separability.arms import (
    Arm,
    anchor_term,
    arm_penalty,
    average_term,
    critical,
    itself_term,
    term_gradients,
    train_arms,
)

TASK = ModularTask(modulus=7, fraction=0.6)
OPTIMISATION = Optimisation(steps=40, batch=16, lr=3e-3, weight_decay=0.5, log_every=10)


def load(seed=0):
    sizes = {"n_layers": 1, "d_model": 16, "d_head": 4, "d_mlp": 24, **TASK.config}
    return pk.load("modular-deep-2", seed=seed, **sizes)


def residuals(seed=0, runs=2, batch=5):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(runs, batch, 16, generator=generator, dtype=torch.float64)
    return drawn.requires_grad_()


def cosine(x, y):
    return float(x @ y / (x.norm() * y.norm()))


def test_terms_are_cosines_by_hand() -> None:
    r, other, average = (residuals(seed).detach() for seed in range(3))
    average = average.mean(1)
    for run in range(2):
        each = [cosine(a, b) for a, b in zip(other[run], r[run], strict=True)]
        assert anchor_term(r, other)[run].item() == pytest.approx(abs(np.mean(each)))
        expected = abs(cosine(average[run], r[run].mean(0)))
        assert average_term(r, average)[run].item() == pytest.approx(expected)
    torch.testing.assert_close(itself_term(r), torch.ones(2, dtype=torch.float64))
    assert average_term(r, torch.zeros(2, 16, dtype=torch.float64)).tolist() == [0, 0]


def test_the_cosine_with_itself_has_no_gradient_and_the_others_have() -> None:
    r, other = residuals(), residuals(1)
    terms = {
        "itself": itself_term(r),
        "average": average_term(r, other.mean(1).detach()),
        "anchor": anchor_term(r, other),
    }
    norms = {name: torch.autograd.grad(term.sum(), r)[0].norm() for name, term in terms.items()}
    assert norms["itself"] < 1e-15
    assert min(norms["average"], norms["anchor"]) > 1e-2


def test_a_penalty_weighs_each_runs_own_terms_along_the_ramp() -> None:
    anchor = Stack([load(1)])
    arms = [Arm(), Arm(itself=0.5), Arm(average=2.0), Arm(anchor=4.0)]
    average = torch.zeros(4, 16)
    penalty = arm_penalty(arms, anchor, average, (10, 20))
    tokens, _ = TASK.validation()
    final = torch.randn(4, len(tokens), 1, 16, generator=torch.Generator().manual_seed(0))
    assert penalty(10, tokens, final).tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(average, 0.01 * final[:, :, 0].mean(1))
    before = average.clone()
    half, r = penalty(15, tokens, final), final[:, :, 0]
    there = anchor.final(tokens)[:, :, 0]
    turned = average_term(r, before)[2].item(), anchor_term(r[3:], there)[0].item()
    expected = [0, 0.5, 2 * turned[0], 4 * turned[1]]
    torch.testing.assert_close(half, 0.5 * torch.tensor(expected))
    per_run = penalty(30, tokens.expand(4, -1, -1), final)
    torch.testing.assert_close(per_run[3], torch.tensor(expected[3]))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(average, before)


def test_gradients_of_a_network_are_fractions_of_its_cross_entropys() -> None:
    stack, anchor = Stack([load()]), Stack([load(1)])
    tokens, labels = TASK.validation()
    found = term_gradients(stack, anchor, tokens, labels)
    assert found["itself"] < 1e-5 < 1e-2 < min(found["average"], found["anchor"])
    model = load()
    loss = torch.nn.functional.cross_entropy(model(tokens)[:, -1], labels[:, 0])
    own = torch.autograd.grad(loss, list(weights(model).values()))
    r = stack.final(tokens)[:, :, -1]
    term = anchor_term(r, anchor.final(tokens)[:, :, -1]).sum()
    of_term = torch.autograd.grad(term, list(stack.parameters.values()), allow_unused=True)
    norms = [sum(g.square().sum() for g in each if g is not None) ** 0.5 for each in (of_term, own)]
    assert found["anchor"] == pytest.approx(float(norms[0] / norms[1]), rel=1e-3)


def test_arms_leave_attention_alone_and_go_their_own_ways(tmp_path) -> None:
    model = load()
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    arms = {"one": Arm(), "same": Arm(), "orthogonal": Arm(anchor=3.0)}
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
