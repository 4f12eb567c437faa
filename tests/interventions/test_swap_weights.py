"""Weight swaps: true heads, donors, undone bit for bit in any order."""

import itertools
from typing import Any

import families
import pytest
import torch
from checks import state_of
from families import ALL, Family, tiny_native

import probekit as pk
from probekit.hooked.model import weights
from probekit.interventions.swap_weights import donor_weights


def _same(model: Any, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in state_of(model).items())


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in weights(model).items()}


def _trained(seed: int) -> Any:
    """A few steps off its initialisation, where no two numbers are equal by construction."""
    model = tiny_native(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(5):
        logits = model(families.token_ids())
        torch.nn.functional.cross_entropy(logits[:, -1], families.token_ids()[:, 0]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_swapping_between_two_trained_seeds_and_back_is_the_identity() -> None:
    ours, theirs = _trained(0), _trained(1)
    before, original = state_of(ours), donor_weights(ours, pk.SwapQK(theirs).selection)
    ids = families.token_ids()
    with torch.no_grad():
        clean = ours(ids)
        with pk.attach(ours, pk.SwapQK(theirs)):
            assert not torch.equal(ours(ids), clean)
            with pk.attach(ours, pk.SwapQK(original)):
                assert torch.equal(ours(ids), clean)
                assert _same(ours, before)
    assert _same(ours, before)


def test_the_hybrid_is_the_model_with_the_donors_matrices() -> None:
    ours, theirs = _trained(0), _trained(1)
    hybrid = tiny_native(2)
    hybrid.load_state_dict(ours.state_dict())
    with torch.no_grad():
        for block, donor in zip(hybrid.blocks, theirs.blocks, strict=True):
            for name in ("q", "k"):
                own, other = getattr(block.attn, name), getattr(donor.attn, name)
                own.original_component.weight.copy_(other.original_component.weight)
        expected = hybrid(families.token_ids())
        with pk.attach(ours, pk.SwapQK(theirs)):
            assert torch.equal(ours(families.token_ids()), expected)


@pytest.mark.parametrize("head", [0, 1])
def test_one_head_touches_exactly_its_rows(head: int) -> None:
    ours, theirs = _trained(0), _trained(1)
    before = _weights(ours)
    with pk.attach(ours, pk.SwapQK(theirs, layers=(1,), heads=(head,))) as run:
        during = _weights(ours)
    moved = {name for name in before if not torch.equal(during[name], before[name])}
    assert moved == {"layers.1.attn.q.weight", "layers.1.attn.k.weight"}
    own = slice(32 * head, 32 * head + 32)
    for name in moved:
        rows = torch.zeros(64, dtype=torch.bool)
        rows[own] = True
        assert torch.equal(during[name][own], _weights(theirs)[name][own])
        assert torch.equal(during[name][~rows], before[name][~rows])
    assert [row.site for row in run.receipt.rows] == [f"1.Q.weight:{head}", f"1.K.weight:{head}"]
    assert all(row.edit == "swapped" and row.change for row in run.receipt.rows)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_order_of_detaching_restores(order: tuple[int, ...]) -> None:
    model = tiny_native(0)
    before = state_of(model)
    items = [
        pk.SwapWeights("random", ("Q", "V"), seed=1),
        pk.SwapWeights("zero", ("Q",), heads=(0,)),
        pk.SwapWeights("random", ("Q", "MLP"), seed=2, layers=(1,)),
    ]
    runs = [pk.attach(model, item) for item in items]
    for index in order:
        runs[index].detach()
    assert _same(model, before)


def test_what_is_left_after_an_early_detach_is_the_other_swap() -> None:
    model = tiny_native(0)
    with pk.attach(model, pk.SwapWeights("zero", ("Q",), heads=(1,))):
        alone = state_of(model)
    outer = pk.attach(model, pk.SwapWeights("random", ("Q", "K")))
    inner = pk.attach(model, pk.SwapWeights("zero", ("Q",), heads=(1,)))
    outer.detach()
    assert _same(model, alone)
    inner.detach()


def test_zero_v_is_no_attention() -> None:
    model = tiny_native(0)
    with torch.no_grad(), pk.attach(model, pk.AttentionScale(0)):
        without = model(families.token_ids())
    with torch.no_grad(), pk.attach(model, pk.SwapWeights("zero", ("V",))):
        torch.testing.assert_close(model(families.token_ids()), without, rtol=0, atol=1e-6)


def test_random_is_of_the_models_own_law_and_never_the_model_itself() -> None:
    """Seed 0 as the default must not give a model of seed 0 its own weights back."""
    model = tiny_native(0)
    with pk.attach(model, pk.SwapWeights("random", ("Q",))):
        drawn = model.blocks[0].attn.q.original_component.weight.clone()
    own = model.blocks[0].attn.q.original_component.weight
    assert not torch.equal(drawn, own)
    torch.testing.assert_close(drawn.std(), own.std(), rtol=0.05, atol=0)


@pytest.mark.parametrize("family", ALL, indirect=True)
def test_a_model_as_its_own_donor_changes_nothing(family: Family) -> None:
    clean = family.run()
    everything = ("Q", "K", "V", "O", "MLP", "LN", "EMBED", "POS")
    with pk.attach(family.model, pk.SwapWeights(family.model, everything)):
        assert torch.equal(family.run(), clean)


def test_swapped_weights_train_and_the_models_own_come_back() -> None:
    model = tiny_native(0)
    before = state_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pk.attach(model, pk.SwapWeights("random", ("Q", "K", "V", "O", "MLP"))):
        model(families.token_ids()).square().mean().backward()
        gradient = model.blocks[0].attn.q.original_component.weight.grad
        assert gradient is not None and gradient.any()
        optimizer.step()
    swapped = [name for name in before if ".attn." in name or ".mlp." in name]
    after = state_of(model)
    assert swapped and all(torch.equal(after[name], before[name]) for name in swapped)
    moved = [name for name in before if name not in swapped]
    assert not any(torch.equal(after[name], before[name]) for name in moved if "weight" in name)


@pytest.mark.parametrize("name", ["native", "gpt2"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_model_converted_under_a_swap_gets_its_own_numbers_back(name, order) -> None:
    """In GPT-2 also the fused matrix, which shares its memory only until then."""
    model = ALL[name]().model
    before = state_of(model)
    items = (pk.SwapWeights("zero", ("Q", "V")), pk.SwapWeights("zero", ("V", "O"), heads=(1,)))
    runs = [pk.attach(model, item) for item in items]
    model.to(torch.float64, print_details=False)
    for index in order:
        runs[index].detach()
    after = state_of(model)
    assert after.keys() == before.keys()
    for key, tensor in after.items():
        assert torch.equal(tensor, before[key].to(tensor.dtype)), key


@pytest.mark.parametrize("write", [1, 2, 3])
def test_an_interruption_while_writing_is_undone(write: int, monkeypatch) -> None:
    model = tiny_native(0)
    before, donor = state_of(model), donor_weights(tiny_native(1), pk.SwapQK("zero").selection)
    copy, calls = torch.Tensor.copy_, itertools.count(1)

    def interrupted(self: torch.Tensor, *args: Any) -> torch.Tensor:
        if next(calls) == write:
            raise KeyboardInterrupt
        return copy(self, *args)

    monkeypatch.setattr(torch.Tensor, "copy_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pk.attach(model, pk.SwapQK(donor))
    monkeypatch.undo()
    assert _same(model, before)


def test_a_random_donor_costs_no_conversion_where_none_is_needed(monkeypatch) -> None:
    """TransformerLens's own ``.to`` asks for the whole state twice for every tensor."""
    model, calls = tiny_native(0), []
    monkeypatch.setattr(type(model), "state_dict", lambda *_, **__: calls.append(1))
    with pk.attach(model, pk.SwapWeights("random", ("Q",))):
        assert not calls


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (48, {"Q": 48}),  # "1 of 4 heads": three quarters of Q, nothing of K
        (96, {"Q": 64, "K": 32}),
        (192, {"Q": 64, "K": 64, "V": 64}),  # "4 of 4 heads": V too
    ],
)
def test_packed_rows_are_the_published_ones(rows: int, expected: dict[str, int]) -> None:
    ours, theirs = _trained(0), _trained(1)
    before = state_of(ours)
    with pk.attach(ours, pk.SwapPackedRows(theirs, rows, layers=(0,))):
        packed = [getattr(ours.blocks[0].attn, name) for name in "qkv"]
        during = torch.cat([each.original_component.weight.clone() for each in packed])
    own, other = (
        torch.cat([getattr(m.blocks[0].attn, name).original_component.weight for name in "qkv"])
        for m in (ours, theirs)
    )
    assert torch.equal(during[:rows], other[:rows])
    assert torch.equal(during[rows:], own[rows:])
    assert sum(expected.values()) == rows
    assert _same(ours, before)


def test_packed_rows_take_the_biases_along() -> None:
    model = tiny_native(0, attention_bias=True)
    with torch.no_grad():
        for name in "qkv":
            getattr(model.blocks[0].attn, name).original_component.bias.fill_(1)
    with pk.attach(model, pk.SwapPackedRows("zero", 80, layers=(0,))):
        biases = [getattr(model.blocks[0].attn, n).original_component.bias.clone() for n in "qkv"]
    assert torch.cat(biases).tolist() == [0] * 80 + [1] * 112


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pk.SwapWeights("randm"), "unknown donor 'randm'.*closest: 'random'"),
        (lambda: pk.SwapWeights("zero", ("QK",)), "unknown part 'QK'"),
        (lambda: pk.SwapPackedRows("zero", 0), "rows is a whole number from 1, not 0"),
    ],
)
def test_a_wrong_item_is_refused_when_made(make, message: str) -> None:
    with pytest.raises(pk.ProbekitError, match=message):
        make()


def test_a_donor_of_another_shape_is_refused_with_every_difference() -> None:
    model = tiny_native(0)
    before = state_of(model)
    with pytest.raises(pk.ProbekitError, match="swap between models of one config") as error:
        pk.attach(model, pk.SwapWeights(tiny_native(1, n_layers=1, d_mlp=96), ("Q", "MLP")))
    assert "0.MLP.in.weight is (128, 64) here and (96, 64) in the donor" in str(error.value)
    assert "the donor lacks 1.Q.weight" in str(error.value)
    assert _same(model, before)


def test_more_packed_rows_than_there_are_is_refused() -> None:
    with pytest.raises(pk.ProbekitError, match=r"rows=200: layer 0 has 192 rows of \[Q; K; V\]"):
        pk.attach(tiny_native(0), pk.SwapPackedRows("zero", 200))


def test_a_bad_later_item_leaves_nothing_written() -> None:
    model = tiny_native(0)
    before = state_of(model)
    with pytest.raises(pk.SiteError):
        pk.attach(model, pk.SwapQK("zero"), pk.HeadScale(9, 0, 0.5))
    assert _same(model, before)


def test_the_repr_names_a_model_and_does_not_print_it() -> None:
    assert (
        repr(pk.SwapQK(tiny_native(0), heads=(1,)))
        == "SwapWeights(donor=<HookedModel>, heads=(1,))"
    )
