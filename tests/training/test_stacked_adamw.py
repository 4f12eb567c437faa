"""Stacked AdamW and clipping are PyTorch's, run by run."""

import pytest
import torch
from torch import nn

import probekit as pk
from probekit.runs import RunDir, optimizer_tensors, restore_optimizer
from probekit.training import StackedAdamW, clip_stacked_grad_norm

RUNS, SHAPES = 3, ((4, 5), (5,), (2, 3, 4))
RATES = torch.tensor([1e-2, 1e-3, 5e-2], dtype=torch.float64)


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(RUNS, *shape, generator=generator, dtype=torch.float64))
        for shape in SHAPES
    ]


def set_gradients(step, stacked):
    for p, gradient in zip(stacked, parameters(100 + step), strict=True):
        p.grad = gradient.detach() * torch.tensor([1.0, 10.0, 1e-3]).view(-1, *[1] * (p.ndim - 1))


def groups_of(params, rates):
    return [
        {"params": params[:1], "lr": 3e-3, "betas": (0.9, 0.95)},
        {"params": params[1:], "lr": rates, "betas": (0.9, 0.99), "weight_decay": 1.0},
    ]


@pytest.mark.parametrize("rates", [RATES, 2e-3])
def test_each_run_is_adamw_alone(rates):
    stacked = parameters()
    optimizer = StackedAdamW(groups_of(stacked, rates), weight_decay=0.1)
    alone = [[nn.Parameter(p.detach()[run].clone()) for p in stacked] for run in range(RUNS)]
    own = [rates[run].item() if isinstance(rates, torch.Tensor) else rates for run in range(RUNS)]
    optimizers = [
        torch.optim.AdamW(groups_of(params, rate), weight_decay=0.1)
        for params, rate in zip(alone, own, strict=True)
    ]
    for step in range(20):
        set_gradients(step, stacked)
        for run, params in enumerate(alone):
            for p, s in zip(params, stacked, strict=True):
                assert s.grad is not None
                p.grad = s.grad[run].clone()
            optimizers[run].step()
        optimizer.step()
    for run, params in enumerate(alone):
        for p, s in zip(params, stacked, strict=True):
            torch.testing.assert_close(s.detach()[run], p.detach(), rtol=1e-12, atol=1e-12)


def test_parameters_without_a_gradient_stay():
    stacked = parameters()
    before = stacked[1].detach().clone()
    set_gradients(0, stacked)
    stacked[1].grad = None
    StackedAdamW(stacked, lr=RATES).step()
    assert torch.equal(stacked[1], before)


@pytest.mark.parametrize("max_norm", [1.0, 20.0, 1e6])
def test_each_run_is_clipped_alone(max_norm):
    stacked = parameters()
    set_gradients(0, stacked)
    expected = []
    for run in range(RUNS):
        alone = [nn.Parameter(p.detach()[run].clone()) for p in stacked]
        for p, s in zip(alone, stacked, strict=True):
            assert s.grad is not None
            p.grad = s.grad[run].clone()
        norm = nn.utils.clip_grad_norm_(alone, max_norm)
        expected.append((norm, [p.grad for p in alone]))
    norms = clip_stacked_grad_norm(stacked, max_norm)
    for run, (norm, gradients) in enumerate(expected):
        torch.testing.assert_close(norms[run], norm, rtol=1e-12, atol=0)
        for gradient, s in zip(gradients, stacked, strict=True):
            assert s.grad is not None and gradient is not None
            torch.testing.assert_close(s.grad[run], gradient, rtol=1e-12, atol=0)


def test_a_run_that_is_not_finite_leaves_the_others():
    stacked = parameters()
    set_gradients(0, stacked)
    assert stacked[0].grad is not None
    stacked[0].grad[1] = torch.nan
    norms = clip_stacked_grad_norm(stacked, 1.0)
    assert norms.isnan().tolist() == [False, True, False]
    assert torch.stack([p.grad[0].norm() for p in stacked if p.grad is not None]).norm() <= 1


@pytest.mark.parametrize("rates", [RATES, 2e-3])
def test_resumed_state_goes_on_exactly(tmp_path, rates):
    def steps(params, optimizer, which):
        for step in which:
            set_gradients(step, params)
            optimizer.step()

    whole = parameters()
    first = StackedAdamW(groups_of(whole, rates))
    steps(whole, first, range(10))
    saved = {**{f"p{i}": p for i, p in enumerate(whole)}, **optimizer_tensors(first)}
    RunDir(tmp_path).save_checkpoint(10, saved, {})
    steps(whole, first, range(10, 20))

    loaded = RunDir(tmp_path).load_checkpoint()
    assert loaded is not None
    resumed = [nn.Parameter(loaded[1][f"p{i}"]) for i in range(len(SHAPES))]
    second = StackedAdamW(groups_of(resumed, rates))
    restore_optimizer(second, loaded[1])
    assert second.state[resumed[1]]["step"] == 10
    steps(resumed, second, range(10, 20))
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a, b)


def test_rates_of_another_number_of_runs_are_refused():
    with pytest.raises(pk.ProbekitError) as error:
        StackedAdamW(parameters(), lr=torch.ones(2))
    assert str(error.value) == (
        "lr is a number or a tensor [run]; given shape [2] for parameters of 3 runs"
    )


def test_nothing_to_clip_is_refused():
    with pytest.raises(pk.ProbekitError) as error:
        clip_stacked_grad_norm(parameters(), 1.0)
    assert str(error.value) == "no parameter has a gradient to clip; call backward() first"
