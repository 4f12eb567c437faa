"""Training under items: what acts is in the gradient, and a killed run ends the same."""

import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import InterleavedTask, Optimisation, fit_under, train_frozen
from probekit.training.separability.fit_under import FROZEN

TASK = InterleavedTask(11, 8, held_out=20)
OPTIMISATION = Optimisation(steps=12, batch=8, log_every=4)


def load(seed=0):
    # A bias of the keys has no gradient but rounding's, which Adam would make large.
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 16, "attention_bias": False, **TASK.config}
    return pk.load("interleaved", seed=seed, **sizes)


def under(folder, items, **more):
    model = load()
    more = {"title": "", "position": 0, **more}
    fit_under(items, RunDir(folder), model, TASK, OPTIMISATION, 0, **more)
    return weights(model)


def test_the_identity_trains_as_nothing_does(tmp_path) -> None:
    plain = under(tmp_path / "plain", [])
    identity = under(tmp_path / "identity", [pk.Edit("ln_final", lambda x: x + 0)])
    for name, tensor in plain.items():
        torch.testing.assert_close(identity[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_clamp_acts_in_training_and_is_gone_afterwards(tmp_path) -> None:
    clamp = pk.Clamp("norm", 1.0)
    plain, clamped = under(tmp_path / "plain", []), under(tmp_path / "clamped", [clamp])
    assert not torch.allclose(plain["head.weight"], clamped["head.weight"], atol=1e-4)
    tokens, _ = TASK.validation()
    model = load()
    with pk.attach(model, pk.Record("ln_final")) as run:
        model(tokens)
    assert run["record"].values.norm(dim=-1).mean() > 3


class Interrupted(Exception):
    pass


def test_a_killed_run_goes_on_and_a_finished_one_gives_its_weights(tmp_path) -> None:
    clamp = [pk.Clamp("variance", 0.5)]
    whole = under(tmp_path / "whole", clamp)

    def stop(step, row):
        if step == 8:
            raise Interrupted
        return {}

    with pytest.raises(Interrupted):
        under(tmp_path / "cut", clamp, watch=stop)
    resumed, again = under(tmp_path / "cut", clamp), under(tmp_path / "cut", clamp)
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor)
        assert torch.equal(again[name], tensor)


def test_frozen_conditions_keep_their_attention(tmp_path) -> None:
    found = train_frozen(tmp_path, load, TASK, OPTIMISATION, 0, 0)
    assert list(found) == list(FROZEN)
    start = weights(load())
    for condition in FROZEN:
        _, kept, _ = RunDir(tmp_path / condition.replace(", ", "-")).load_checkpoint() or (0, {}, 0)
        same = {n for n, old in start.items() if torch.equal(old, kept[n].view_as(old))}
        attention = {name for name in start if ".attn." in name}
        assert same == (set() if condition == "control" else attention)
