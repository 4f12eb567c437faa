"""Branches step as torch's own AdamW does, afresh or kept; the first step is a closed form."""

import numpy as np
import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import (
    Optimisation,
    Stack,
    WholeBatches,
    cross_entropy,
    first_step_share,
    first_steps,
    fit,
    follow,
    kicked,
    last_checkpoint,
)

TASK = WholeBatches("two-token", modulus=5, fraction=0.7)
WHERE = {"title": "", "position": 0}
LR, DECAY = 1e-2, 0.3


def model(seed=0):
    # A bias of the keys has no gradient but rounding's, which Adam would make large.
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 24, "attention_bias": False, **TASK.config}
    return pk.load("modular-deep-2", seed=seed, n_layers=1, **sizes)


def by_torch(steps, rate, own=None, optimizer=None):
    """The same by autograd of the model and ``torch.optim.AdamW``."""
    own = own or model()
    optimizer = optimizer or torch.optim.AdamW(own.parameters(), lr=LR, weight_decay=DECAY)
    tokens, labels = TASK.encode(TASK.pairs()[0])
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.zero_grad()
        cross_entropy(own(tokens)[None, :, -1:], labels).sum().backward()
        optimizer.step()
    return own, optimizer


def close(run, number, own):
    tensors = last_checkpoint(run)
    for name, tensor in weights(own).items():
        torch.testing.assert_close(tensors[name][number], tensor, rtol=1e-4, atol=2e-5)


def test_branches_afresh_are_those_of_torch_at_their_rates(tmp_path):
    run, how = RunDir(tmp_path), Optimisation(3, 1, LR, DECAY, log_every=1)
    warm = [LR / 3, 2 * LR / 3, LR]
    rates = lambda step: torch.tensor([LR, LR / 10, warm[min(step, 2)]])  # noqa: E731
    follow(run, Stack([model()] * 3), TASK, how, rates, **WHERE)
    for number, rate in enumerate((lambda _: LR, lambda _: LR / 10, lambda step: warm[step])):
        close(run, number, by_torch(3, rate)[0])
    before = (run.path / "metrics.jsonl").read_bytes()
    follow(run, Stack([model()] * 3), TASK, how, rates, **WHERE)
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_a_kept_optimizer_goes_on_in_every_run(tmp_path):
    grown, stack = RunDir(tmp_path / "grown"), Stack([model()])
    fit(grown, stack, TASK, Optimisation(2, 1, LR, DECAY, log_every=1), [0], **WHERE)
    middle = model(1)
    stack.copy_to(0, middle)
    run, how = RunDir(tmp_path / "kept"), Optimisation(2, 1, LR, DECAY, log_every=1)
    kept = last_checkpoint(grown)
    follow(run, Stack([middle] * 2), TASK, how, lambda _: torch.tensor([LR, LR]), kept, **WHERE)
    straight, _ = by_torch(4, lambda _: LR)
    for number in range(2):
        close(run, number, straight)


def test_the_first_step_afresh_is_the_closed_form(tmp_path):
    run, how = RunDir(tmp_path), Optimisation(2, 1, LR, DECAY, log_every=1)
    stack = Stack([model()] * 2)
    follow(run, stack, TASK, how, lambda _: torch.tensor([LR, LR / 10]), **WHERE)
    nothing, first, _second = (row["step_share"] for row in run.rows())
    assert nothing == [None, None]
    expected = first_steps(model(), TASK)
    assert first == pytest.approx([expected["closed form"], expected["closed form"] / 10], rel=1e-3)
    # rows of tokens that no training pair holds, if any, have no gradient
    assert expected["closed form"] == pytest.approx((1 - expected["near eps"]) ** 0.5, abs=0.01)


def test_first_step_share_by_hand():
    gradient = torch.tensor([1e-8, -1e-8, 5.0, 0.0], dtype=torch.float64)
    assert first_step_share(gradient) == pytest.approx(((0.25 + 0.25 + 1) / 4) ** 0.5)


def test_a_kick_moves_every_coordinate_by_its_size():
    own, twin = model(), weights(kicked(model(), 1e-2, 0))
    moved = [(twin[name] - before).detach().flatten() for name, before in weights(own).items()]
    every = torch.cat(moved)
    torch.testing.assert_close(every.abs(), torch.full_like(every, 1e-2), rtol=1e-3, atol=1e-6)
    assert abs(float(every.sign().mean())) < 5 / len(every) ** 0.5


def test_every_batch_is_the_whole_training_set():
    tokens, labels = TASK.batch(np.random.default_rng(0), 3)
    assert torch.equal(tokens, TASK.pairs()[0])
    assert torch.equal(labels[:, 0], tokens.sum(-1) % 5)
