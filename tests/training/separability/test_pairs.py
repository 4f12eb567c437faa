"""A fork is training from that start on those batches; killed anywhere, it ends the same."""

import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import InterleavedTask, Optimisation, Stack, fit, train_pair

TASK = InterleavedTask(12, 8, held_out=20)
OPTIMISATION = Optimisation(steps=8, batch=8, log_every=2)


def load(seed):
    # A bias of the keys has no gradient but rounding's, which Adam would make large.
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 16, "attention_bias": False, **TASK.config}
    return pk.load("interleaved", seed=seed, **sizes)


def trained(folder, pair=1, optimisation=OPTIMISATION):
    return train_pair(RunDir(folder), load, TASK, optimisation, pair, title="", position=0)


def alone(folder, model, steps, batches):
    optimisation = Optimisation(steps=steps, batch=8, log_every=2)
    fit(RunDir(folder), model, TASK, optimisation, [batches], title="", position=0)
    return model


def test_pair_and_forks_are_single_runs(tmp_path):
    pair = trained(tmp_path / "pair")
    halfway = alone(tmp_path / "half", load(2), 4, 2)
    expected = {
        "a": alone(tmp_path / "a", load(2), 8, 2),
        "b": alone(tmp_path / "b", load(3), 8, 3),
        "fork": alone(tmp_path / "fork", load(2), 8, 3),
        "late_fork": alone(tmp_path / "late", halfway, 4, 3),
    }
    for name, model in expected.items():
        found = weights(getattr(pair, name))
        for key, tensor in weights(model).items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("call", [12, 22])  # after the snapshot, and in the late fork
def test_killed_and_resumed_is_the_same(tmp_path, monkeypatch, call):
    whole, calls, forward = trained(tmp_path / "whole"), [], Stack.final

    def dying(self, *args):
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return forward(self, *args)

    monkeypatch.setattr(Stack, "final", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut")
    assert (tmp_path / "cut" / "halfway" / "checkpoint.safetensors").exists()
    assert (tmp_path / "cut" / "late-fork").exists() == (call == 22)
    resumed = trained(tmp_path / "cut")
    again = trained(tmp_path / "cut")  # finished: only read
    for name in ("a", "b", "fork", "late_fork"):
        own = weights(getattr(whole, name))
        for other in (resumed, again):
            for key, tensor in weights(getattr(other, name)).items():
                assert torch.equal(tensor, own[key])


def test_the_half_must_be_logged(tmp_path):
    with pytest.raises(pk.RunError) as raised:
        trained(tmp_path, optimisation=Optimisation(steps=8, batch=8, log_every=3))
    assert str(raised.value) == (
        "train_pair forks halfway, at a log row: steps must be a multiple of 2 * log_every, given "
        "8 and 3"
    )
