"""Penalties on a cosine to an anchor or an average, and the gradient they have or lack."""

import numpy as np
import pytest
import torch

import probekit as pk
from probekit.runs import RunDir
from probekit.training import (
    AnchorPenalty,
    AveragePenalty,
    InterleavedTask,
    Optimisation,
    Ramp,
    Stack,
    fit,
    penalty_gradient,
    sequence_cosine,
)

TASK = InterleavedTask(11, 6, held_out=20)
SIZES = {"d_model": 16, "d_head": 4, "d_mlp": 16, **TASK.config}


def stack(*seeds):
    return Stack([pk.load("interleaved", seed=seed, **SIZES) for seed in seeds])


def test_cosines_are_of_means_over_positions() -> None:
    ours = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 2.0]]]])
    theirs = torch.tensor([[[[3.0, 3.0], [3.0, 3.0]], [[1.0, 0.0], [3.0, 0.0]]]])
    # (.5, .5) and (3, 3) are parallel, (0, 2) and (2, 0) orthogonal.
    assert sequence_cosine(ours, theirs).tolist() == pytest.approx([0.5])
    assert sequence_cosine(ours, -theirs).tolist() == pytest.approx([-0.5])


def test_a_ramp_is_zero_then_a_line_then_full() -> None:
    ramp = Ramp(0.4, begin=2, length=4)
    assert [ramp(step) for step in range(8)] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.4])
    with pytest.raises(pk.ProbekitError, match="begins at step 1 at least and is 1 long, not 0"):
        Ramp(0.3, 0, 5)


def test_an_anchor_is_a_network_and_only_chosen_runs_are_penalised() -> None:
    networks, anchor = stack(0, 1, 2), stack(0, 5)
    tokens, _ = TASK.batch(np.random.default_rng(0), 7)
    penalty = AnchorPenalty(anchor, [0, 2], weight=lambda step: float(step))
    final = networks.final(tokens, 6)
    assert penalty(0, tokens, final).tolist() == [0, 0, 0]
    cosines = []
    for run, seed in ((0, 0), (2, 5)):
        with torch.no_grad(), pk.attach(model := stack_model(seed), pk.Record("ln_final")) as seen:
            model(tokens)
        means = seen["record"].values.mean(1), final[run].mean(1)
        cosines.append(float(torch.cosine_similarity(*means).mean().abs().detach()))
    assert cosines[0] == pytest.approx(1, abs=1e-5)
    found = penalty(2, tokens.expand(3, -1, -1), final)
    assert found.tolist() == pytest.approx([2 * cosines[0], 0, 2 * cosines[1]], abs=1e-5)


def stack_model(seed):
    return pk.load("interleaved", seed=seed, **SIZES)


def test_gradients_are_those_of_the_cosine_or_exactly_none() -> None:
    networks, anchor = stack(0, 1), stack(5)
    tokens, _ = TASK.batch(np.random.default_rng(0), 7)
    norms = {}
    for attached in (True, False):
        penalty = AnchorPenalty(anchor, [1], lambda step: 0.3, attached)
        norms[attached] = penalty_gradient(networks, penalty, 0, tokens, 6).tolist()
    assert norms[False] == [0, 0]
    assert norms[True][0] == 0
    alone = stack(1)
    cosine = sequence_cosine(alone.final(tokens, 6), anchor.final(tokens, 6).detach()).abs()
    (0.3 * cosine.sum()).backward()
    squares = [p.grad.square().sum() for p in alone.parameters.values() if p.grad is not None]
    assert norms[True][1] == pytest.approx(float(torch.stack(squares).sum().sqrt()), rel=1e-4)


def test_the_average_is_exponential_and_its_penalty_reads_it_before_it_moves() -> None:
    average = torch.zeros(2, 3)
    penalty = AveragePenalty(average, [1], weight=lambda step: float(step == 2), keep=0.75)
    rows = torch.randn(3, 2, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 3)
    for step, final in enumerate(rows):
        added, own = penalty(step, torch.zeros(4, 5, dtype=torch.long), final), final.mean((1, 2))
        cosine = torch.cosine_similarity(own[1], expected[1], dim=0).abs()
        assert added.tolist() == pytest.approx([0, float(cosine) if step == 2 else 0], abs=1e-6)
        expected = 0.75 * expected + 0.25 * own
        torch.testing.assert_close(average, expected)


def test_the_penalty_brings_the_cosine_down(tmp_path) -> None:
    networks, anchor = stack(0, 0), stack(0)
    optimisation = Optimisation(steps=25, batch=8, lr=1e-2, log_every=25)
    penalty = AnchorPenalty(anchor, [1], Ramp(1.0, 1, 1))
    fit(
        RunDir(tmp_path), networks, TASK, optimisation, [3, 3],
        title="", position=0, penalty=penalty,
    )  # fmt: skip
    tokens, _ = TASK.validation()
    free, held = sequence_cosine(networks.final(tokens, 6), anchor.final(tokens, 6)).tolist()
    assert abs(held) < 0.2 < free - 0.2
