"""Frozen slices do not move, whatever the optimizer; everything else trains as ever."""

import itertools
import threading
from typing import Any

import families
import pytest
import torch
from families import Family
from torch import nn

import probekit as pk
from probekit.hooked.selection import Selection

OPTIMIZERS = {
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam with coupled decay": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1.0),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1.0, amsgrad=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1.0, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1.0, fused=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01, weight_decay=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.1),
}


def _step(family: Family, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    output = family.output(family.model(*family.args, **family.kwargs))
    output.square().mean().backward()
    optimizer.step()


HEAD = pk.FreezeWeights(("Q",), layers=(0,), heads=(1,))  # rows 32 and on of a native model


def _q(family: Family) -> nn.Parameter:
    return family.model.blocks[0].attn.q.original_component.weight


def _slices(family: Family, item: pk.FreezeWeights) -> list[torch.Tensor]:
    return [
        each.view.clone() for each in Selection(item.parts, heads=item.heads).find(family.model)
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["native", "gpt2", "t5"])
def test_frozen_slices_do_not_move_and_the_rest_does(name: str, optimizer: str) -> None:
    family = families.ALL[name]()
    made = OPTIMIZERS[optimizer](family.model.parameters())
    item = pk.FreezeWeights(("Q", "V"), heads=(1,))
    _step(family, made)  # momentum, which must not move what is frozen next
    before = _slices(family, item)
    rest = Selection(("K", "MLP")).find(family.model)
    others = [each.view.clone() for each in rest]
    with pk.attach(family.model, item):
        for _ in range(3):
            _step(family, made)
    assert all(map(torch.equal, _slices(family, item), before))
    moved = [not torch.equal(each.view, old) for each, old in zip(rest, others, strict=True)]
    assert all(moved)


def test_the_other_heads_of_the_same_matrix_train_as_if_it_stood_alone() -> None:
    """The unfrozen rows take the very steps that they take where the frozen ones only stand by."""
    family, reference = families.native(), families.native()
    made = torch.optim.AdamW(family.model.parameters(), lr=0.01, weight_decay=1.0)
    matrix = reference.model.blocks[0].attn.q.original_component.weight
    kept = matrix.detach()[32:].clone()
    manual = torch.optim.AdamW(reference.model.parameters(), lr=0.01, weight_decay=1.0)
    with pk.attach(family.model, pk.FreezeWeights(("Q",), layers=(0,), heads=(1,))):
        for _ in range(3):
            _step(family, made)
            _step(reference, manual)
            with torch.no_grad():
                matrix[32:] = kept
    ours = family.model.blocks[0].attn.q.original_component.weight
    torch.testing.assert_close(ours, matrix, rtol=0, atol=0)


def test_state_of_the_frozen_slice_stands_still_and_nothing_leaks_when_it_thaws() -> None:
    family = families.native()
    weight = family.model.blocks[0].attn.q.original_component.weight
    made = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    _step(family, made)
    momentum = made.state[weight]["momentum_buffer"][32:].clone()
    with pk.attach(family.model, pk.FreezeWeights(("Q",), layers=(0,), heads=(1,))):
        _step(family, made)
        _step(family, made)
    assert torch.equal(made.state[weight]["momentum_buffer"][32:], momentum)
    fresh = torch.optim.Adam([weight], lr=0.1, weight_decay=0.5)
    with pk.attach(family.model, pk.FreezeWeights(("Q",), layers=(0,), heads=(1,))):
        _step(family, fresh)
    assert not fresh.state[weight]["exp_avg"][32:].any()
    assert fresh.state[weight]["exp_avg"][:32].any()


#: What the state of a number is before its optimizer has done anything; 0 unless said here.
FIRST_STATE = {("rprop", "step_size"): 0.01}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_born_in_a_freeze_starts_where_the_optimizer_starts_it(optimizer: str) -> None:
    family = families.native()
    weight = _q(family)
    made = OPTIMIZERS[optimizer]([weight])
    with pk.attach(family.model, HEAD):
        for _ in range(2):
            _step(family, made)
    state = {k: v for k, v in made.state[weight].items() if v.shape == weight.shape}
    assert state
    for key, value in state.items():
        expected = torch.full_like(value[32:], FIRST_STATE.get((optimizer, key), 0.0))
        torch.testing.assert_close(value[32:], expected, rtol=0, atol=0)


def test_a_swap_in_a_freeze_and_a_freeze_in_a_swap_survive_steps_and_end_in_any_order() -> None:
    swap, freeze = pk.SwapWeights("random", ("Q",), layers=(0,)), pk.FreezeWeights(("Q",))
    for items, first in itertools.product([(swap, freeze), (freeze, swap)], [0, 1]):
        family = families.native()
        weight, made = _q(family), torch.optim.SGD(family.model.parameters(), lr=0.1)
        own = weight.detach().clone()
        runs = [pk.attach(family.model, item) for item in items]
        swapped = weight.detach().clone()
        assert not torch.equal(swapped, own)
        _step(family, made)
        assert torch.equal(weight, swapped)
        runs[first].detach()
        if items[first] is swap:  # what is left holds the model's own weights
            _step(family, made)
        runs[1 - first].detach()
        assert torch.equal(weight, own)


def test_weights_loaded_in_a_freeze_stay() -> None:
    family, other = families.native(), families.tiny_native(1)
    made = torch.optim.SGD(family.model.parameters(), lr=0.1)
    with pk.attach(family.model, pk.FreezeWeights(("Q",), heads=(0,))):
        _step(family, made)
        family.model.load_state_dict(other.state_dict())
        _step(family, made)
    loaded = other.blocks[0].attn.q.original_component.weight
    assert torch.equal(_q(family)[:32], loaded[:32])


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
    own, other = _q(family).detach().clone(), families.tiny_native(1)
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
            assert torch.equal(_q(family)[32:], own[32:])
    assert torch.equal(_q(family)[32:], own[32:])


def test_a_step_interrupted_under_a_swap_leaves_the_models_own_weights() -> None:
    family = families.native()
    own = _q(family).detach().clone()
    with pk.attach(family.model, HEAD), pk.attach(family.model, pk.SwapWeights("zero", ("Q",))):
        _interrupt(family)
    assert torch.equal(_q(family), own)


def test_overlapping_freezes_hold_through_the_first_step_of_an_optimizer() -> None:
    family = families.native()
    own = _q(family).detach().clone()
    made = torch.optim.AdamW(family.model.parameters(), lr=0.1, weight_decay=1.0)
    with pk.attach(family.model, HEAD, pk.FreezeWeights(("Q",), heads=(1, 0)), HEAD):
        _step(family, made)
    assert torch.equal(_q(family), own)


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
    own = _q(family).detach().clone()
    made = More(family.model.parameters(), lr=0.1)
    with pk.attach(family.model, HEAD, pk.FreezeWeights(("Q",), heads=(0, 1))):
        _step(family, made)
    assert torch.equal(_q(family), own)
    with pk.attach(family.model, HEAD):
        _step(family, made)
    assert torch.equal(_q(family)[32:], own[32:]) and not torch.equal(_q(family), own)


def test_another_optimizers_step_in_a_closure_disturbs_nothing() -> None:
    family, other = families.native(), nn.Linear(2, 2)
    made = torch.optim.AdamW(family.model.parameters(), lr=0.01)
    inner = torch.optim.SGD(other.parameters(), lr=0.1)
    _step(family, made)
    before = made.state[_q(family)]["exp_avg"][32:].clone()

    def closure() -> torch.Tensor:
        other(torch.ones(1, 2)).sum().backward()
        inner.step()
        made.zero_grad()
        loss = family.model(*family.args).square().mean()
        loss.backward()
        return loss

    with pk.attach(family.model, HEAD):
        made.step(closure)
    assert before.any() and torch.equal(made.state[_q(family)]["exp_avg"][32:], before)


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
        weight = _q(family)
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


@pytest.mark.parametrize("item", ["head", "whole"])
def test_a_model_converted_in_a_freeze_is_held_still(item: str) -> None:
    family = families.gpt2()  # whose parameters share memory until they are converted
    selection = pk.FreezeWeights(("Q",), heads=(1,) if item == "head" else None)
    own = _slices(family, selection)
    with pk.attach(family.model, selection):
        family.model.to(torch.float64, print_details=False)
        made = torch.optim.AdamW(family.model.parameters(), lr=0.01, weight_decay=1.0)
        for parameter in family.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        made.step()
    for now, before in zip(_slices(family, selection), own, strict=True):
        assert now.dtype == torch.float64
        torch.testing.assert_close(now, before.double(), rtol=0, atol=0)


def test_gradients_of_before_come_back_untouched_in_any_order() -> None:
    for order in ((0, 1), (1, 0)):
        family = families.native()
        family.model(*family.args).square().mean().backward()
        weight = _q(family)
        own = weight.grad
        assert own is not None
        kept = own.clone()
        runs = [pk.attach(family.model, item) for item in (HEAD, pk.FreezeWeights("all"))]
        assert weight.grad is not None and not weight.grad.any()
        for index in order:
            runs[index].detach()
        assert weight.grad is own and torch.equal(own, kept)


def test_gradients_of_before_do_not_come_back_after_a_step() -> None:
    family = families.native()
    made = torch.optim.SGD(family.model.parameters(), lr=0.1)
    family.model(*family.args).square().mean().backward()
    with pk.attach(family.model, pk.FreezeWeights(("Q",))):
        made.step()
        made.zero_grad(set_to_none=False)
    gradient = _q(family).grad
    assert gradient is not None and not gradient.any()


def test_gradients_accumulate_over_forwards_as_if_the_frozen_rows_stood_by() -> None:
    family, reference = families.native(), families.native()
    with pk.attach(family.model, HEAD):
        for _ in range(2):
            family.model(*family.args).square().mean().backward()
    for _ in range(2):
        reference.model(*reference.args).square().mean().backward()
    ours, theirs = _q(family).grad, _q(reference).grad
    assert ours is not None and theirs is not None
    assert torch.equal(ours[:32], theirs[:32]) and not ours[32:].any()


def test_the_flag_set_by_hand_brings_no_gradient_back() -> None:
    family = families.native()
    with pk.attach(family.model, pk.FreezeWeights(("Q",))):
        family.model.requires_grad_(True)
        family.model(*family.args).square().mean().backward()
        assert not float(torch.nn.utils.clip_grad_norm_([_q(family)], 1e9))


def test_frozen_slices_do_not_count_in_a_clipped_norm() -> None:
    family = families.native()
    with pk.attach(family.model, pk.FreezeWeights(("Q",), heads=(0,))):
        family.model(*family.args).square().mean().backward()
    gradient = family.model.blocks[0].attn.q.original_component.weight.grad
    assert gradient is not None
    assert not gradient[:32].any() and gradient[32:].any()


def test_all_freezes_the_whole_model_and_gives_it_back() -> None:
    family = families.t5()
    before = {name: p.clone() for name, p in family.model.named_parameters()}
    probe = nn.Parameter(torch.zeros(32))
    made = torch.optim.AdamW([probe, *family.model.parameters()], lr=0.1, weight_decay=1.0)
    with pk.attach(
        family.model, pk.FreezeWeights("all"), pk.Edit("encoder.0.resid_pre", lambda x: x + probe)
    ):
        _step(family, made)
        assert not any(p.requires_grad for p in family.model.parameters())
    assert probe.any()
    assert all(torch.equal(p, before[name]) for name, p in family.model.named_parameters())
    assert all(p.requires_grad for p in family.model.parameters())


def test_tied_weights_freeze_under_every_name() -> None:
    family = families.t5()
    inner = family.model.original_model
    before = inner.shared.weight.clone()
    made = torch.optim.AdamW(family.model.parameters(), lr=0.01)
    with pk.attach(family.model, pk.FreezeWeights(("EMBED",))):
        _step(family, made)
    assert torch.equal(inner.lm_head.weight, before)


@pytest.mark.parametrize("first", [0, 1])
def test_two_freezes_end_in_any_order(first: int) -> None:
    family = families.native()
    parameters = list(family.model.parameters())
    parameters[0].requires_grad_(False)  # the user's own
    runs = [pk.attach(family.model, pk.FreezeWeights("all")) for _ in range(2)]
    runs[first].detach()
    assert not any(p.requires_grad for p in parameters)
    runs[1 - first].detach()
    assert [p.requires_grad for p in parameters] == [False] + [True] * (len(parameters) - 1)


def test_an_optimizer_of_something_else_is_left_alone() -> None:
    family, other = families.native(), nn.Linear(2, 2)
    made = torch.optim.SGD(other.parameters(), lr=0.1)
    before = other.weight.clone()
    with pk.attach(family.model, pk.FreezeWeights("all")):
        other(torch.ones(1, 2)).sum().backward()
        made.step()
    assert not torch.equal(other.weight, before)


def test_a_part_that_the_family_lacks_is_refused(built) -> None:
    with pytest.raises(pk.ProbekitError, match="this model has no UNEMBED at that place"):
        pk.attach(built("dinov2").model, pk.FreezeWeights(("UNEMBED",)))
    with pytest.raises(pk.ProbekitError, match="unknown part 'QKV'"):
        pk.FreezeWeights(("QKV",))
