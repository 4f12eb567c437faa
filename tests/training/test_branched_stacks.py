"""A branch is a copy; the snapshot of a fit is what a shorter fit would have ended with."""

import pytest
import torch

import probekit as pk
from probekit.runs import RunDir
from probekit.training import ModularTask, Optimisation, Stack, branch, fit, fit_keeping

TASK = ModularTask(modulus=7, fraction=0.6)
OPTIMISATION = Optimisation(steps=8, batch=16, lr=3e-3, log_every=2)


def load(seed, **sizes):
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 24, "n_layers": 1, **TASK.config, **sizes}
    return pk.load("modular-deep-2", seed=seed, **sizes)


def keeping(folder, at=4):
    own = Stack([load(0), load(1)])
    where = {"title": "", "position": 0}
    return own, fit_keeping(RunDir(folder), own, TASK, OPTIMISATION, [0, 1], at, **where)


def plain(folder, steps):
    own, optimisation = Stack([load(0), load(1)]), Optimisation(steps, 16, 3e-3, log_every=2)
    fit(RunDir(folder), own, TASK, optimisation, [0, 1], title="", position=0)
    return own


def assert_same(one, other):
    for name, parameter in one.parameters.items():
        assert torch.equal(parameter, other.parameters[name])


def test_branches_are_copies_in_the_order_asked_for() -> None:
    tokens, _ = TASK.validation()
    first, second = Stack([load(0), load(1)]), Stack([load(2)])
    joined = branch([(second, 0), (first, 1), (first, 1)])
    expected = torch.cat([second.logits(tokens), first.logits(tokens)[[1, 1]]])
    torch.testing.assert_close(joined.logits(tokens), expected)
    with torch.no_grad():
        joined.parameters["head.bias"][1].add_(1)
        second.parameters["head.bias"].add_(1)
    moved = joined.logits(tokens) - expected
    torch.testing.assert_close(moved.mean((1, 2)), torch.tensor([0.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    assert all(parameter.requires_grad for parameter in joined.parameters.values())


def test_parts_must_have_one_shape() -> None:
    with pytest.raises(pk.ProbekitError) as raised:
        branch([(Stack([load(0)]), 0), (Stack([load(0, d_mlp=8)]), 0)])
    assert str(raised.value) == (
        "branch joins stacks of one model's shape; these have other parameters: "
        "layers.0.mlp.fc_in.weight, layers.0.mlp.fc_in.bias, layers.0.mlp.fc_out.weight"
    )
    with pytest.raises(pk.ProbekitError) as raised:
        branch([])
    assert str(raised.value) == "branch needs at least one (stack, run); given none"


@pytest.mark.parametrize("at", [0, 4, 8])
def test_what_is_kept_is_a_shorter_fit(tmp_path, at) -> None:
    own, kept = keeping(tmp_path / "whole", at)
    assert_same(own, plain(tmp_path / "8", 8))
    assert_same(kept, plain(tmp_path / "at", at))


@pytest.mark.parametrize("call", [6, 14])  # validation is logged before and after the snapshot
def test_killed_and_resumed_it_keeps_the_same(tmp_path, monkeypatch, call) -> None:
    own, kept = keeping(tmp_path / "whole")
    calls, forward = [], Stack.final

    def dying(self, *args):
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return forward(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Stack, "final", dying)
        with pytest.raises(KeyboardInterrupt):
            keeping(tmp_path / "cut")
    for _ in range(2):  # resumed, and read when it is done
        again, kept_again = keeping(tmp_path / "cut")
        assert_same(own, again)
        assert_same(kept, kept_again)


def test_the_snapshot_must_be_logged(tmp_path) -> None:
    with pytest.raises(pk.RunError) as raised:
        keeping(tmp_path, at=3)
    assert str(raised.value) == (
        "fit_keeping keeps the weights of a log row, at a multiple of log_every (2) up to steps "
        "(8); given 3"
    )
