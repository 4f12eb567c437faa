"""A freeze holds through steps of every kind: interrupted, with a closure, in two threads."""

import threading
from typing import Any

import families
import pytest
import torch
from families import Family
from freezing import HEAD, q, step
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import probekit as pk
from probekit.held import _holds


class _Interrupted(torch.optim.Optimizer):
    """Moves everything, then Ctrl-C."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(1)
        raise KeyboardInterrupt


def _interrupt(family: Family) -> None:
    family.model(*family.args).square().mean().backward()
    with pytest.raises(KeyboardInterrupt):
        _Interrupted(family.model.parameters()).step()


@pytest.mark.parametrize("what_next", ["end", "forward", "step", "swap", "load"])
def test_an_interrupted_step_is_taken_back_by_whatever_comes_next(what_next: str) -> None:
    family = families.native()
    own, other = q(family).detach().clone(), families.tiny_native(1)
    with pk.attach(family.model, HEAD):
        _interrupt(family)
        if what_next == "forward":
            family.run()
        elif what_next == "step":
            torch.optim.SGD(family.model.parameters(), lr=0.1).step()
        elif what_next == "swap":
            with pk.attach(family.model, pk.SwapWeights("zero", ("Q",))):
                pass
        elif what_next == "load":
            family.model.load_state_dict(other.state_dict())
            own = other.blocks[0].attn.q.original_component.weight.detach()
        if what_next not in ("end", "step"):
            assert torch.equal(q(family)[32:], own[32:])
    assert torch.equal(q(family)[32:], own[32:])


def test_a_step_interrupted_under_a_swap_leaves_the_models_own_weights() -> None:
    family = families.native()
    own = q(family).detach().clone()
    with pk.attach(family.model, HEAD), pk.attach(family.model, pk.SwapWeights("zero", ("Q",))):
        _interrupt(family)
    assert torch.equal(q(family), own)


def test_overlapping_freezes_hold_through_the_first_step_of_an_optimizer() -> None:
    family = families.native()
    own = q(family).detach().clone()
    made = torch.optim.AdamW(family.model.parameters(), lr=0.1, weight_decay=1.0)
    with pk.attach(family.model, HEAD, pk.FreezeWeights(("Q",), heads=(1, 0)), HEAD):
        step(family, made)
    assert torch.equal(q(family), own)


def test_lbfgs_is_refused_in_its_step_and_nothing_moves() -> None:
    family = families.native()
    own = [p.detach().clone() for p in family.model.parameters()]
    made = torch.optim.LBFGS(family.model.parameters())
    with (
        pk.attach(family.model, HEAD),
        pytest.raises(pk.ProbekitError, match=r"^LBFGS mixes all numbers in its directions"),
    ):
        made.step(lambda: 0.0)
    assert all(map(torch.equal, family.model.parameters(), own))


@pytest.mark.parametrize("by_name", [False, True])
def test_a_step_with_a_closure_holds_and_trains_as_without(by_name: bool) -> None:
    family, reference = families.native(), families.native()
    for each, closed in ((family, True), (reference, False)):
        made = torch.optim.AdamW(each.model.parameters(), lr=0.01, weight_decay=1.0)

        def closure(each: Family = each, made: torch.optim.Optimizer = made) -> torch.Tensor:
            made.zero_grad()
            loss = each.model(*each.args).square().mean()
            loss.backward()
            return loss

        with pk.attach(each.model, HEAD):
            for _ in range(2):
                if not closed:
                    closure()
                    made.step()
                else:
                    loss = made.step(closure=closure) if by_name else made.step(closure)
                    assert loss is not None and float(loss.detach()) > 0
    for one, two in zip(family.model.parameters(), reference.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_what_a_subclass_does_after_its_bases_step_is_held_too() -> None:
    class More(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            super().step()
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(0.5)

    family = families.native()
    own = q(family).detach().clone()
    made = More(family.model.parameters(), lr=0.1)
    with pk.attach(family.model, HEAD, pk.FreezeWeights(("Q",), heads=(0, 1))):
        step(family, made)
    assert torch.equal(q(family), own)
    with pk.attach(family.model, HEAD):
        step(family, made)
    assert torch.equal(q(family)[32:], own[32:]) and not torch.equal(q(family), own)


def test_another_optimizers_step_in_a_closure_disturbs_nothing() -> None:
    family, other = families.native(), nn.Linear(2, 2)
    made = torch.optim.AdamW(family.model.parameters(), lr=0.01)
    inner = torch.optim.SGD(other.parameters(), lr=0.1)
    step(family, made)
    before = made.state[q(family)]["exp_avg"][32:].clone()

    def closure() -> torch.Tensor:
        other(torch.ones(1, 2)).sum().backward()
        inner.step()
        made.zero_grad()
        loss = family.model(*family.args).square().mean()
        loss.backward()
        return loss

    with pk.attach(family.model, HEAD):
        made.step(closure)
    assert before.any() and torch.equal(made.state[q(family)]["exp_avg"][32:], before)


def test_a_freeze_may_begin_and_end_while_an_optimizer_steps() -> None:
    """As another thread would do it: torch is going through the hooks on all optimizers."""
    stepped, other = families.native(), families.native()
    seen = []

    def elsewhere(*_: Any) -> None:
        with pk.attach(other.model, HEAD):
            seen.append(len(_holds))

    handles = [
        register_optimizer_step_pre_hook(elsewhere),
        register_optimizer_step_post_hook(elsewhere),
    ]
    try:
        q(stepped).grad = torch.ones_like(q(stepped))
        torch.optim.AdamW([q(stepped)], lr=0.01).step()
    finally:
        for handle in handles:
            handle.remove()
    assert seen == [1, 1]
    assert _holds == []


def test_freezes_in_two_threads_do_not_meet() -> None:
    """The two steps are made to overlap: each waits in its own until the other has begun."""
    gate, wrong = threading.Barrier(2, timeout=20), []

    class Meeting(torch.optim.AdamW):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            gate.wait()
            super().step()
            gate.wait()

    def work(seed: int) -> None:
        family = families.native()
        weight = q(family)
        made = Meeting([weight], lr=0.01)
        weight.grad = torch.randn_like(weight)
        made.step()
        own, state = weight.detach().clone(), made.state[weight]["exp_avg"].clone()
        with pk.attach(family.model, HEAD):
            for _ in range(3):
                weight.grad = torch.randn_like(weight)
                made.step()
        same = torch.equal(weight[32:], own[32:])
        if not same or not torch.equal(made.state[weight]["exp_avg"][32:], state[32:]):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
