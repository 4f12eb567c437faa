"""Frozen slices do not move, whatever the optimizer; everything else trains as ever."""

import families
import pytest
import torch
from families import Family
from torch import nn

import probekit as pk
from probekit.hooked.parameters import Selection

OPTIMIZERS = {
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam with coupled decay": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1.0),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1.0, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.1),
}


def _step(family: Family, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    output = family.output(family.model(*family.args, **family.kwargs))
    output.square().mean().backward()
    optimizer.step()


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
