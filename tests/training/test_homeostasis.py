"""Homeostatic loss terms against loops, the probe, and what a gradient needs."""

import math

import pytest
import torch

import probekit as pk
from probekit.entropy import one_hot_last_row_vdi, uniform_causal_vdi
from probekit.training import Homeostasis, compensation, convergence, live_vdi, set_point
from probekit.training.homeostasis import loss_terms, total

UNIFORM = torch.ones(6, 6).tril() / torch.arange(1.0, 7)[:, None]


def _causal(*shape: int) -> torch.Tensor:
    scores = torch.randn(*shape, 6, 6).masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
    return scores.softmax(-1)


def test_uniform_attention_reads_its_closed_form() -> None:
    pattern = UNIFORM.expand(3, 2, 6, 6)
    torch.testing.assert_close(live_vdi(pattern), torch.full((2,), uniform_causal_vdi(6)))
    torch.testing.assert_close(live_vdi(pattern, "visible"), torch.ones(2))


def test_a_one_hot_last_row_reads_its_closed_form() -> None:
    pattern = UNIFORM.clone()
    pattern[-1] = torch.eye(6)[-1]
    expected = torch.full((2,), one_hot_last_row_vdi(6))
    torch.testing.assert_close(live_vdi(pattern.expand(3, 2, 6, 6)), expected)


@pytest.mark.parametrize("rows", ["length", "visible"])
def test_it_is_the_probe_pattern_first(built, rows: str) -> None:
    family = built("native")
    vdi = pk.VDI(order="pattern-first", normaliser=rows, site="0.pattern")  # type: ignore[arg-type]
    with torch.no_grad(), pk.attach(family.model, vdi, pk.Record("0.pattern")) as run:
        family.run()
    torch.testing.assert_close(
        live_vdi(run["record"].values, rows), run["vdi"].values[0].float(), rtol=0, atol=1e-5
    )


def test_runs_are_read_apart() -> None:
    pattern = _causal(4, 8, 2)
    each = torch.stack([live_vdi(one) for one in pattern])
    torch.testing.assert_close(live_vdi(pattern), each)


def test_the_terms_are_their_formulas() -> None:
    vdi = torch.tensor([[0.5, 0.7], [0.4, 0.4]])
    torch.testing.assert_close(convergence(vdi)[0], torch.tensor(0.2 / math.sqrt(2)))
    assert convergence(vdi)[1] < 1e-7
    torch.testing.assert_close(set_point(vdi, 0.61), torch.tensor([0.01**2, 0.21**2]))
    embed, first, second = torch.zeros(3, 2, 5, 4), torch.ones(3, 2, 5, 4), torch.ones(3, 2, 5, 4)
    torch.testing.assert_close(compensation(embed, first, second), torch.full((3,), 1.01))
    torch.testing.assert_close(compensation(embed, first, 3 * second), torch.zeros(3))


def test_equal_heads_have_a_gradient_that_is_a_number() -> None:
    vdi = torch.full((2,), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(convergence(vdi), vdi)
    assert gradient.isfinite().all()


def test_detached_terms_have_no_gradient_and_attached_ones_have() -> None:
    scores = torch.randn(2, 8, 2, 6, 6, requires_grad=True)
    conditions = [Homeostasis(0.3, 0.2), Homeostasis(0.3, 0.2, attached=True)]
    terms = loss_terms(scores.softmax(-1), conditions)
    loss = total(torch.zeros(2), terms, conditions)
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert not gradient[0].any()
    assert gradient[1].any()
    expected = 0.3 * terms["convergence"] + 0.2 * terms["set_point"]
    torch.testing.assert_close(loss, expected)


def test_the_gradient_is_that_of_finite_differences() -> None:
    scores = torch.randn(1, 4, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    condition = [Homeostasis(0.3, 0.2, target=0.5, attached=True, rows="visible")]

    def loss(scores: torch.Tensor) -> torch.Tensor:
        hidden = torch.ones(6, 6).triu(1).bool()
        terms = loss_terms(scores.masked_fill(hidden, -math.inf).softmax(-1), condition)
        return total(torch.zeros(1, dtype=torch.float64), terms, condition).sum()

    assert torch.autograd.gradcheck(loss, scores)


def test_one_condition_a_run() -> None:
    with pytest.raises(ValueError, match="1 conditions for 2 runs"):
        loss_terms(_causal(2, 3, 2), [Homeostasis()])
