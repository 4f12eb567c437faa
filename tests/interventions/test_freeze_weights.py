"""Frozen slices do not move, whatever the optimizer; everything else trains as ever."""

import itertools

import families
import pytest
import torch
from freezing import HEAD, q, slices, step
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["native", "gpt2", "t5"])
def test_frozen_slices_do_not_move_and_the_rest_does(name: str, optimizer: str) -> None:
    family = families.ALL[name]()
    made = OPTIMIZERS[optimizer](family.model.parameters())
    item = pk.FreezeWeights(("Q", "V"), heads=(1,))
    step(family, made)  # momentum, which must not move what is frozen next
    before = slices(family, item)
    rest = Selection(("K", "MLP")).find(family.model)
    others = [each.view.clone() for each in rest]
    with pk.attach(family.model, item):
        for _ in range(3):
            step(family, made)
    assert all(map(torch.equal, slices(family, item), before))
    moved = [not torch.equal(each.view, old) for each, old in zip(rest, others, strict=True)]
    assert all(moved)


def test_the_other_heads_of_the_same_matrix_train_as_if_it_stood_alone() -> None:
    """The unfrozen rows take the very steps that they take where the frozen ones only stand by."""
    family, reference = families.native(), families.native()
    made = torch.optim.AdamW(family.model.parameters(), lr=0.01, weight_decay=1.0)
    matrix = q(reference)
    kept = matrix.detach()[32:].clone()
    manual = torch.optim.AdamW(reference.model.parameters(), lr=0.01, weight_decay=1.0)
    with pk.attach(family.model, HEAD):
        for _ in range(3):
            step(family, made)
            step(reference, manual)
            with torch.no_grad():
                matrix[32:] = kept
    ours = q(family)
    torch.testing.assert_close(ours, matrix, rtol=0, atol=0)


def test_state_of_the_frozen_slice_stands_still_and_nothing_leaks_when_it_thaws() -> None:
    family = families.native()
    weight = q(family)
    made = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    step(family, made)
    momentum = made.state[weight]["momentum_buffer"][32:].clone()
    with pk.attach(family.model, HEAD):
        step(family, made)
        step(family, made)
    assert torch.equal(made.state[weight]["momentum_buffer"][32:], momentum)
    fresh = torch.optim.Adam([weight], lr=0.1, weight_decay=0.5)
    with pk.attach(family.model, HEAD):
        step(family, fresh)
    assert not fresh.state[weight]["exp_avg"][32:].any()
    assert fresh.state[weight]["exp_avg"][:32].any()


#: What the state of a number is before its optimizer has done anything; 0 unless said here.
FIRST_STATE = {("rprop", "step_size"): 0.01}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_born_in_a_freeze_starts_where_the_optimizer_starts_it(optimizer: str) -> None:
    family = families.native()
    weight = q(family)
    made = OPTIMIZERS[optimizer]([weight])
    with pk.attach(family.model, HEAD):
        for _ in range(2):
            step(family, made)
    state = {k: v for k, v in made.state[weight].items() if v.shape == weight.shape}
    assert state
    for key, value in state.items():
        expected = torch.full_like(value[32:], FIRST_STATE.get((optimizer, key), 0.0))
        torch.testing.assert_close(value[32:], expected, rtol=0, atol=0)


def test_weights_loaded_in_a_freeze_stay() -> None:
    family, other = families.native(), families.tiny_native(1)
    made = torch.optim.SGD(family.model.parameters(), lr=0.1)
    with pk.attach(family.model, pk.FreezeWeights(("Q",), heads=(0,))):
        step(family, made)
        family.model.load_state_dict(other.state_dict())
        step(family, made)
    loaded = other.blocks[0].attn.q.original_component.weight
    assert torch.equal(q(family)[:32], loaded[:32])


def test_a_swap_in_a_freeze_and_a_freeze_in_a_swap_survive_steps_and_end_in_any_order() -> None:
    swap, freeze = pk.SwapWeights("random", ("Q",), layers=(0,)), pk.FreezeWeights(("Q",))
    for items, first in itertools.product([(swap, freeze), (freeze, swap)], [0, 1]):
        family = families.native()
        weight, made = q(family), torch.optim.SGD(family.model.parameters(), lr=0.1)
        own = weight.detach().clone()
        runs = [pk.attach(family.model, item) for item in items]
        swapped = weight.detach().clone()
        assert not torch.equal(swapped, own)
        step(family, made)
        assert torch.equal(weight, swapped)
        runs[first].detach()
        if items[first] is swap:  # what is left holds the model's own weights
            step(family, made)
        runs[1 - first].detach()
        assert torch.equal(weight, own)


@pytest.mark.parametrize("item", ["head", "whole"])
def test_a_model_converted_in_a_freeze_is_held_still(item: str) -> None:
    family = families.gpt2()  # whose parameters share memory until they are converted
    selection = pk.FreezeWeights(("Q",), heads=(1,) if item == "head" else None)
    own = slices(family, selection)
    with pk.attach(family.model, selection):
        family.model.to(torch.float64, print_details=False)
        made = torch.optim.AdamW(family.model.parameters(), lr=0.01, weight_decay=1.0)
        for parameter in family.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        made.step()
    for now, before in zip(slices(family, selection), own, strict=True):
        assert now.dtype == torch.float64
        torch.testing.assert_close(now, before.double(), rtol=0, atol=0)


def test_all_freezes_the_whole_model_and_gives_it_back() -> None:
    family = families.t5()
    before = {name: p.clone() for name, p in family.model.named_parameters()}
    probe = nn.Parameter(torch.zeros(32))
    made = torch.optim.AdamW([probe, *family.model.parameters()], lr=0.1, weight_decay=1.0)
    with pk.attach(
        family.model, pk.FreezeWeights("all"), pk.Edit("encoder.0.resid_pre", lambda x: x + probe)
    ):
        step(family, made)
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
        step(family, made)
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
