"""Gradients flow through interventions, and through observers that ask for them."""

from dataclasses import dataclass
from typing import Any

import families
import pytest
import torch
from torch import Tensor

import probekit as pk


def test_gradients_flow_through_interventions(built):
    """With the head scaled by omega the gradient of its W_V and W_O is that of scaled weights."""
    family = built("native")
    model, (ids,) = family.model, family.args
    attn = model.original_model.layers[0].attn.original_component
    weight = attn.o.weight
    with pk.attach(model, pk.HeadScale(layer=0, head=1, omega=0.25)):
        (through_hook,) = torch.autograd.grad(model(ids).logsumexp(-1).sum(), weight)
    rows = slice(32, 64)
    original = weight.detach().clone()
    with torch.no_grad():
        weight[:, rows] *= 0.25
    try:
        (by_hand,) = torch.autograd.grad(model(ids).logsumexp(-1).sum(), weight)
    finally:
        with torch.no_grad():
            weight.copy_(original)
    by_hand[:, rows] *= 0.25  # the chain rule through the scaling
    torch.testing.assert_close(through_hook, by_hand, rtol=1e-4, atol=1e-4)
    assert through_hook[:, rows].abs().max() > 0


@pytest.mark.parametrize("name", ["native", "gpt2", "vit"])
def test_gradients_flow_through_an_edit_in_place(built, name):
    family = built(name)
    factor = torch.ones((), requires_grad=True)

    def loss() -> Tensor:
        output = family.output(family.model(*family.args, **family.kwargs))
        return output.square().mean()

    with pk.attach(family.model, pk.Edit("0.resid_mid", lambda x: factor * x)):
        (slope,) = torch.autograd.grad(loss(), factor)
    with pk.attach(family.model, pk.Edit("0.attn_out", lambda x: factor * x)):
        (of_one_term,) = torch.autograd.grad(loss(), factor)
    assert slope.isfinite() and slope != 0 and of_one_term != slope
    step = 0.02
    values = []
    for value in (1 + step, 1 - step, 1 + 2 * step, 1 - 2 * step):
        with (
            torch.no_grad(),
            pk.attach(family.model, pk.Edit("0.resid_mid", lambda x, value=value: value * x)),
        ):
            values.append(float(loss()))
    difference = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * step)
    assert float(slope) == pytest.approx(difference, rel=2e-2, abs=1e-4)


@dataclass(frozen=True)
class GradMode(pk.Observer):
    """Notes whether gradients were on, and whether the tensor carried a graph."""

    def sites(self) -> tuple[pk.Site, ...]:
        return (pk.Site("z", 0),)

    def measure(self, x: Tensor, at: pk.Firing) -> list[tuple[bool, bool]]:
        return [(torch.is_grad_enabled(), x.requires_grad)]

    def combine(self, total: Any, new: Any) -> Any:
        return total + new

    def finish(self, totals: Any) -> pk.Measurement:
        (seen,) = totals.values()
        values = torch.tensor(seen)
        return pk.Measurement(
            name=self.key,
            values=values,
            dims=("forward", "flag"),
            coords={"forward": range(len(seen)), "flag": ["enabled", "graph"]},
            units="",
            null=None,
            null_reason="none",
        )


def test_observers_run_without_gradients_unless_they_ask(built):
    family = built("native")
    plain, asking = GradMode(), GradMode(name="asking", differentiable=True)
    with pk.attach(family.model, plain, asking) as run:
        family.model(*family.args)
        assert torch.is_grad_enabled()
    assert run["grad_mode"].values.tolist() == [[False, False]]
    assert run["asking"].values.tolist() == [[True, True]]


def test_a_differentiable_record_carries_its_gradient(built):
    family = built("native")
    weight = family.model.original_model.tok_embed.weight
    with pk.attach(family.model, pk.Record("embed", differentiable=True)) as run:
        family.model(*family.args)
    (gradient,) = torch.autograd.grad(run["record"].values.sum(), weight)
    counts = torch.bincount(family.args[0].flatten(), minlength=families.VOCAB)
    torch.testing.assert_close(gradient, counts[:, None].float().expand_as(gradient))
    with pk.attach(family.model, pk.Record("embed")) as run:
        family.model(*family.args)
    assert not run["record"].values.requires_grad
