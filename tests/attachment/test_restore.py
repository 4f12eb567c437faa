"""After an attachment everything is as it was, whichever way it ended."""

import contextlib
import copy
import gc
import itertools
import pickle
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from checks import Boom, boom, identity, unchanged
from families import ALL, VOCAB, Family, tiny_native
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import probekit as pk
from probekit.held import _holds
from probekit.hooked.selection import Selection
from probekit.hooksite import hook_points
from probekit.ledger import Ledger

SOME = ["native", "bert", "t5", "clip"]
PARTS = ("Q", "K", "V", "O", "MLP", "LN", "EMBED", "POS")


EDITS = [
    lambda x: 0.5 * x,
    lambda x: x + 1,
    lambda x: x.mul_(0.5),
    identity,
    lambda x: torch.zeros_like(x),
]


@st.composite
def items(draw: st.DrawFn, family: Family, table: Any, name: str) -> Any:
    """How to make any item that fits the model whose sites are in ``table``.

    Not the item itself: the type checker that tests run under uses ``random``, which strategies
    must not.
    """
    address = draw(st.sampled_from(list(table["site"])))
    patterns = list(table[table["part"] == "pattern"]["site"])
    pattern = draw(st.sampled_from(["pattern", *patterns, f"{patterns[0]}:1"]))
    layer, head, factor = draw(st.integers(-2, 1)), draw(st.integers(0, 1)), draw(st.floats(-2, 2))
    edit = draw(st.sampled_from(EDITS))
    order = draw(st.sampled_from(["entropy-first", "pattern-first"]))
    stream = draw(st.sampled_from(list(table[table["part"] == "resid_pre"]["site"])))
    donor = draw(st.sampled_from(["zero", "itself", "twin"]))
    part = draw(st.sampled_from(PARTS))
    heads = draw(st.none() | st.just((head,))) if part in "QKVO" else None
    makers = [
        lambda: pk.SwapWeights(donor_of(family, donor), (part,), heads=heads),
        lambda: pk.SwapPackedRows(donor_of(family, donor), 20, layers=(0,)),
        partial(pk.FreezeWeights, (part,), heads=heads),
        partial(pk.FreezeWeights, "all"),
        partial(pk.Noise, abs(factor), address),
        partial(pk.Clamp, draw(st.sampled_from(["norm", "variance"])), 1.5, address),
        partial(modulator, family, stream, draw(st.sampled_from(["lerp", "field"]))),
        partial(pk.HeadScale, layer, head, factor),
        partial(pk.AttentionScale, factor, layer=draw(st.none() | st.just(layer))),
        partial(pk.SetPattern, edit, site=pattern),
        partial(pk.Edit, address, edit),
        partial(pk.VDI, order=order, site=pattern, name=name),
        partial(pk.AttentionEntropy, site=pattern, name=name),
        partial(pk.Record, address, name=name),
    ]
    return draw(st.sampled_from(makers))


_twins: dict[str, Any] = {}


def donor_of(family: Family, kind: str) -> Any:
    """A donor; the random twin is built once."""
    if kind != "twin":
        return family.model if kind == "itself" else kind
    if family.name not in _twins:
        _twins[family.name] = pk.random_twin(family.model, 1)
    return _twins[family.name]


def modulator(family: Family, site: str, kind: str) -> pk.Intervention:
    """One of the width that the stream has there."""
    d_model = 64 if family.name == "native" else 24 if site.startswith("vision") else 32
    embeds = family.name not in ("vit", "dinov2") and not site.startswith("vision")
    if kind == "lerp" and embeds:
        module = pk.modulators.LerpModulator(d_model=d_model, vocab=VOCAB, d_geometry=4)
        return pk.Lerp(module, site=site)
    return pk.FieldModulator(pk.modulators.SimplexField(d_model=d_model), site=site)


class Interrupted(torch.optim.Optimizer):
    """Ctrl-C after the weights have moved."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(0.1)
        raise Boom


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1.0),
    "interrupted": Interrupted,
}


def covered_by(model: Any, chosen: list[Any]) -> list[torch.Tensor]:
    """Which numbers of each parameter some item swaps or freezes: marked with NaN, and read."""
    parameters = list(model.parameters())
    own = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for item in chosen:
            if isinstance(item, pk.FreezeWeights) and item.parts == "all":
                for parameter in parameters:
                    parameter.fill_(torch.nan)
            elif isinstance(item, pk.SwapPackedRows):  # 20 rows are rows of Q alone
                for each in Selection(("Q",), item.layers).find(model):
                    each.view[: item.rows].fill_(torch.nan)
            elif isinstance(item, pk.SwapWeights | pk.FreezeWeights):
                for each in item.selection.find(model):
                    each.view.fill_(torch.nan)
        covered = [parameter.isnan() for parameter in parameters]
        for parameter, value in zip(parameters, own, strict=True):
            parameter.copy_(value)
    return covered


def train_a_step(model: Any, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """With gradients made by hand (autograd refuses in-place edits); the weights after it."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with contextlib.suppress(Boom):
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def take_training_back(
    model: Any, covered: list[torch.Tensor], before: list[torch.Tensor], after: list[torch.Tensor]
) -> None:
    """Weights of no item have moved and stay moved; put only them back, for ``unchanged``."""
    parameters = list(model.parameters())
    for parameter, held, moved in zip(parameters, covered, after, strict=True):
        assert torch.equal(parameter[~held], moved[~held])
    with torch.no_grad():
        for parameter, held, value in zip(parameters, covered, before, strict=True):
            parameter.copy_(torch.where(held, parameter, value))
            parameter.grad = None


# 8 families x 65: more than 500 cases.
@pytest.mark.parametrize("family", ALL, indirect=True)
@settings(max_examples=45, phases=[Phase.generate])  # shrinking would take minutes
@given(data=st.data())
def test_after_exit_by_any_path_everything_is_as_it_was(family, data):
    model = family.model
    table = pk.list_sites(model)
    count = data.draw(st.integers(1, 6))
    makers = [data.draw(items(family, table, f"item {index}")) for index in range(count)]
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=2)))
    failure = data.draw(st.sampled_from([None, "in a hook", "in the block"]))
    forwards = data.draw(st.integers(1, 3))  # the last one is where it fails
    order = data.draw(st.permutations(range(len(cuts) + 1)))
    if failure == "in a hook":
        late = partial(pk.Edit, data.draw(st.sampled_from(list(table["site"]))))
        makers.append(partial(late, boom_at(forwards)))
    frozen = data.draw(st.sampled_from(list(model.parameters())))
    foreign = hook_points(model)[data.draw(st.sampled_from(list(table["hook"])))]
    permanent = data.draw(st.booleans())
    training = data.draw(st.sampled_from([None, *OPTIMIZERS]))

    chosen = [make() for make in makers]
    covered = covered_by(model, chosen)
    own = [parameter.detach().clone() for parameter in model.parameters()]
    nested = [chosen[a:b] for a, b in zip([0, *cuts], [*cuts, len(chosen)], strict=True)]
    handle = foreign.add_hook(lambda tensor, hook: None, is_permanent=permanent)
    frozen.requires_grad_(False)
    try:
        with unchanged(family):
            moved = own
            with ended_in(order) as runs, expected_to_fail():
                for level in nested:
                    runs.append(pk.attach(model, *level))
                    frozen.requires_grad_(True)
                    model.train()
                model.eval()
                if training:
                    moved = train_a_step(model, OPTIMIZERS[training](model.parameters()))
                for _ in range(forwards):
                    family.run()
                assert failure != "in a hook"  # it should have ended the block
                if failure == "in the block":
                    raise Boom
            if training:
                take_training_back(model, covered, own, moved)
        assert foreign.fwd_hooks.count(handle) == 1
    finally:
        frozen.requires_grad_(True)
        handle.hook.remove()
        foreign.fwd_hooks.remove(handle)


@contextlib.contextmanager
def expected_to_fail() -> Any:
    """Failures that a random stack may well have."""
    try:
        yield
    except Boom:
        pass
    except pk.ProbekitError as error:  # a clamp behind weights of zero
        assert "cannot be scaled" in str(error)


@contextlib.contextmanager
def ended_in(order: list[int]) -> Any:
    """Attachments that end in this order, whatever happens."""
    runs: list[pk.Attachment] = []
    try:
        yield runs
    finally:
        for index in order:
            with contextlib.suppress(pk.HookNeverFiredError):
                runs[index].detach()


def boom_at(forward: int) -> Any:
    """An edit that fails when it fires for the so-manieth time."""
    fired = itertools.count(1)
    return lambda tensor: boom(tensor) if next(fired) == forward else tensor


def test_modes_of_single_modules_are_restored(built):
    model = built("bert").model
    one = model.blocks[0]
    one.training = True
    try:
        with pk.attach(model, pk.Record("embed")):
            model.eval()
            built("bert").run()
        assert one.training and not model.training and not model.blocks[1].training
    finally:
        one.training = False


@pytest.mark.parametrize("family", SOME, indirect=True)
def test_an_attachment_without_a_forward_leaves_everything_as_it_was(family):
    with unchanged(family), pytest.raises(pk.HookNeverFiredError):
        pk.attach(family.model, pk.VDI(), pk.Record("0.resid_mid")).detach()


def test_leaving_after_detaching_and_detaching_twice_do_nothing(built):
    family = built("native")
    with unchanged(family):
        with pk.attach(family.model, pk.Record("0.z")) as run:
            family.run()
            run.detach()
            family.run()
        run.detach()
    assert run.fired == {"blocks.0.attn.hook_z": 1}
    assert repr(run) == "Attachment(HookedModel, 1 hooks, detached, results: record)"


@pytest.mark.parametrize(
    "item",
    [
        pk.VDI(),
        pk.SwapWeights("zero", ("K",)),
        pk.FreezeWeights(("Q",)),
        pk.FreezeWeights(("Q",), heads=(0,)),
    ],
)
def test_a_forgotten_attachment_does_not_keep_its_model(item):
    model = tiny_native()
    holds = len(_holds)
    alive = weakref.ref(model)
    pk.attach(model, item)
    del model
    gc.collect()
    assert alive() is None
    assert len(_holds) == holds


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_made_while_attached_has_nothing_to_undo(copied):
    model = torch.nn.Linear(2, 2)
    Ledger.of(model, "journal").append(object())
    assert Ledger.of(copied(model), "journal") == []
