"""The seven guarantees of an attachment, and its receipt."""

import contextlib
import gc
import inspect
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import families
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import probekit as pk
from probekit import seam
from probekit.attachment import Attachment
from probekit.hooksite import hook_points

SOME = ["native", "bert", "t5", "clip"]


def identity(tensor: Tensor) -> Tensor:
    return tensor


# What must be as it was


def modules_of(model: Any) -> list[nn.Module]:
    return list(dict.fromkeys([*model.modules(), *model.original_model.modules()]))


def snapshot(model: Any) -> dict[str, Any]:
    """Everything that an attachment touches, or might."""
    modules = modules_of(model)
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    kinds += ("_forward_hooks_always_called", "_forward_hooks_with_kwargs")
    points = list(hook_points(model).values())
    return {
        "torch hooks": [list(getattr(m, kind).items()) for m in modules for kind in kinds],
        "forward handles": [list(map(id, point.fwd_hooks)) for point in points],
        "backward handles": [list(map(id, point.bwd_hooks)) for point in points],
        "contexts": [dict(point.ctx) for point in points],
        "training": [module.training for module in modules],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "attention": [config._attn_implementation for _, config in seam._configs(model)],
        "taps": [id(module.__dict__.get(seam._TAPS)) for module in modules],
    }


def state_of(model: Any) -> dict[str, Tensor]:
    state = {**model.state_dict(), **model.original_model.state_dict()}
    return {name: tensor.clone() for name, tensor in state.items()}


@contextlib.contextmanager
def unchanged(family: families.Family) -> Any:
    """Checks that the block leaves the model bit for bit as it found it."""
    output = family.run()  # first: TransformerLens wires hooks of its own at the first forward
    before, state = snapshot(family.model), state_of(family.model)
    yield
    after = snapshot(family.model)
    for what, value in before.items():
        assert after[what] == value, what
    left = state_of(family.model)
    assert left.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(left[name], tensor), name
    assert torch.equal(family.run(), output)


class Boom(Exception):
    """Raised by the tests themselves."""


def boom(tensor: Tensor) -> Tensor:
    raise Boom


EDITS = [
    lambda x: 0.5 * x,
    lambda x: x + 1,
    lambda x: x.mul_(0.5),
    identity,
    lambda x: torch.zeros_like(x),
]


@st.composite
def items(draw: st.DrawFn, table: Any, name: str) -> Any:
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
    makers = [
        partial(pk.HeadScale, layer, head, factor),
        partial(pk.AttentionScale, factor, layer=draw(st.none() | st.just(layer))),
        partial(pk.SetPattern, edit, site=pattern),
        partial(pk.Edit, address, edit),
        partial(pk.VDI, order=order, site=pattern, name=name),
        partial(pk.AttentionEntropy, site=pattern, name=name),
        partial(pk.Record, address, name=name),
    ]
    return draw(st.sampled_from(makers))


@pytest.mark.parametrize("family", SOME, indirect=True)
@settings(max_examples=25, phases=[Phase.generate])  # shrinking would take minutes
@given(data=st.data())
def test_after_exit_by_any_path_everything_is_as_it_was(family, data):
    model = family.model
    table = pk.list_sites(model)
    count = data.draw(st.integers(1, 6))
    makers = [data.draw(items(table, f"item {index}")) for index in range(count)]
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=2)))
    failure = data.draw(st.sampled_from([None, "in a hook", "in the block"]))
    if failure == "in a hook":
        makers.append(partial(pk.Edit, data.draw(st.sampled_from(list(table["site"]))), boom))
    frozen = data.draw(st.sampled_from(list(model.parameters())))
    foreign = hook_points(model)[data.draw(st.sampled_from(list(table["hook"])))]
    permanent = data.draw(st.booleans())

    chosen = [make() for make in makers]
    nested = [chosen[a:b] for a, b in zip([0, *cuts], [*cuts, len(chosen)], strict=True)]
    handle = foreign.add_hook(lambda tensor, hook: None, is_permanent=permanent)
    frozen.requires_grad_(False)
    try:
        with unchanged(family), contextlib.suppress(Boom), contextlib.ExitStack() as stack:
            for level in nested:
                stack.enter_context(pk.attach(model, *level))
                frozen.requires_grad_(True)
                model.train()
            model.eval()
            family.run()
            assert failure != "in a hook"  # it should have ended the block
            if failure == "in the block":
                raise Boom
        assert foreign.fwd_hooks.count(handle) == 1
    finally:
        frozen.requires_grad_(True)
        handle.hook.remove()
        foreign.fwd_hooks.remove(handle)


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
def test_attaching_alone_changes_no_output(family):
    with unchanged(family), contextlib.suppress(pk.HookNeverFiredError):
        pk.attach(family.model, pk.VDI(), pk.Record("0.resid_mid")).detach()


# 2. Order

EXACT = ["z", "resid_pre", "resid_mid", "resid_post", "scores", "pattern", "mlp_post"]


@pytest.mark.parametrize("part", EXACT)
@pytest.mark.parametrize("name", ["native", "gpt2", "bert", "clip"])
def test_an_observer_sees_what_stands_before_it_in_the_list(built, name, part):
    family = built(name)
    site = f"vision.0.{part}" if name == "clip" else f"0.{part}"
    before, between, after = (pk.Record(site, name=n) for n in ("before", "between", "after"))
    double, shift = pk.Edit(site, lambda x: 2 * x), pk.Edit(site, lambda x: x + 1)
    with pk.attach(family.model, pk.Edit(site, identity), before) as clean:
        family.run()
    original = clean["before"].values
    with pk.attach(family.model, before, double, between, shift, after) as run:
        family.run()
    assert torch.equal(run["before"].values, original)
    assert torch.equal(run["between"].values, 2 * original)
    assert torch.equal(run["after"].values, 2 * original + 1)
    with pk.attach(family.model, shift, double, after) as run:
        family.run()
    assert torch.equal(run["after"].values, 2 * (original + 1))


def test_a_differentiable_record_of_resid_mid_is_not_rewritten_by_a_later_edit(built):
    family = built("native")
    record = pk.Record("0.resid_mid", differentiable=True)
    with pk.attach(family.model, pk.Record("0.resid_mid")) as clean:
        family.run()
    with pk.attach(family.model, record, pk.Edit("0.resid_mid", lambda x: 0 * x)) as run:
        family.model(*family.args)
    assert torch.equal(run["record"].values.detach(), clean["record"].values)


PRE_NORM = [("native", "0."), ("gpt2", "0."), ("vit", "0."), ("dinov2", "0."), ("t5", "encoder.0.")]
PRE_NORM += [("t5", "decoder.0.self."), ("t5", "decoder.0.cross.")]
PRE_NORM += [("clip", "text.0."), ("clip", "vision.0.")]


@pytest.mark.parametrize(("name", "at"), PRE_NORM)
def test_a_shift_of_resid_mid_is_the_same_shift_of_attn_out(built, name, at):
    family = built(name)
    cfg = family.model.cfg
    shift = torch.randn((cfg.vision if at == "vision.0." else cfg).d_model)
    with pk.attach(family.model, pk.Edit(f"{at}resid_mid", lambda x: x + shift)) as run:
        by_mid = family.run()
    # In T5 the residual itself is hooked; elsewhere the input of the second norm is.
    assert [row.edit for row in run.receipt.rows] == ["returned" if name == "t5" else "in place"]
    with pk.attach(family.model, pk.Edit(f"{at}attn_out", lambda x: x + shift)):
        by_out = family.run()
    torch.testing.assert_close(by_mid, by_out, rtol=0, atol=1e-5 * float(by_out.abs().max()))
    assert (by_mid - family.run()).abs().max() > 1e-3


# 3. Sites and hooks that cannot be

NO_LAYER = "site '9.z:0': no layer matches 9; blocks has layers 0 to 1; closest: 1"


def test_all_sites_are_resolved_before_the_first_is_touched(built):
    family = built("native")
    with unchanged(family):
        with pytest.raises(pk.SiteError) as error:
            pk.attach(family.model, pk.VDI(), pk.HeadScale(layer=9, head=0, omega=1))
        assert str(error.value) == NO_LAYER
        # Here already, not only after an exit: nothing has been attached.
        assert not any(point._forward_hooks for point in hook_points(family.model).values())


def test_a_failure_while_attaching_takes_everything_back(built, monkeypatch):
    family, added = built("native"), []

    def failing(point: HookPoint, *args: Any, **kwargs: Any) -> Any:
        if len(added) == 2:
            raise Boom
        added.append(point)
        return real(point, *args, **kwargs)

    real = HookPoint.add_hook
    with unchanged(family):
        monkeypatch.setattr(HookPoint, "add_hook", failing)
        with pytest.raises(Boom):
            pk.attach(family.model, pk.VDI(), pk.Record("z"))
        monkeypatch.undo()
    assert len(added) == 2


def test_a_model_that_was_never_run_is_an_error(built):
    family = built("native")
    with unchanged(family):
        with pytest.raises(pk.HookNeverFiredError) as error, pk.attach(family.model, pk.VDI()):
            pass
        assert str(error.value) == (
            "the model was never run while attached, so nothing fired at "
            "blocks.0.attn.hook_pattern, blocks.1.attn.hook_pattern"
        )
        run = pk.attach(family.model, pk.Record("resid_pre"), pk.Record("embed", name="embed"))
        with pytest.raises(pk.HookNeverFiredError) as error:
            run.detach()
        assert str(error.value) == (
            "the model was never run while attached, so nothing fired at blocks.0.hook_resid_pre, "
            "blocks.1.hook_resid_pre, hook_embed"
        )
        run.detach()  # a second time: nothing


def test_a_part_of_the_model_that_does_not_run_is_an_error(built):
    family = built("clip")
    inner = family.model.original_model
    text, vision = pk.Record("text.0.z"), pk.Record("vision.z", name="vision")
    error = pytest.raises(pk.HookNeverFiredError)
    with unchanged(family), error as caught, pk.attach(family.model, text, vision):
        inner.get_text_features(input_ids=family.kwargs["input_ids"])
    assert str(caught.value).startswith(
        "3 hooks never fired: vision_blocks.0.attn.hook_z, vision_blocks.1.attn.hook_z, "
        "vision_blocks.2.attn.hook_z. That part of the model did not run in this forward, "
    )


def test_hooks_of_a_model_that_did_run_are_told_apart():
    model = Looped(times=0)
    with pytest.raises(pk.HookNeverFiredError) as error, pk.attach(model, pk.Record("resid_pre")):
        model(torch.ones(1, 1, 2))
    assert str(error.value) == (
        "1 hooks never fired: blocks.0.hook_resid_pre. That part of the model did not run in this "
        "forward, or TransformerLens wires no call there (a flag such as cfg.use_attn_result, an "
        "attention implementation that keeps no pattern); pk.list_sites(model) shows the sites"
    )


def test_an_exception_in_flight_is_not_replaced(built):
    with pytest.raises(Boom), pk.attach(built("native").model, pk.VDI()):
        raise Boom


# 4. Gradients


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
    with pk.attach(
        family.model,
        # The same edit of both terms that resid_mid sums: pre is scaled where the block adds it.
        pk.Edit("0.attn_out", lambda x: factor * x),
        pk.Edit("0.resid_mid", lambda x: x),
    ):
        (partial,) = torch.autograd.grad(loss(), factor)
    assert slope.isfinite() and slope != 0 and partial != slope
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


# 5. Nesting, twice, two models


def test_nested_attachments_act_in_the_order_of_attaching(built):
    family = built("native")
    with pk.attach(family.model, pk.Record("0.z")) as clean:
        family.run()
    z = clean["record"].values
    with pk.attach(family.model, pk.Edit("0.z", lambda x: 2 * x), pk.Record("0.z")) as outer:
        with pk.attach(family.model, pk.Edit("0.z", lambda x: x + 1), pk.Record("0.z")) as inner:
            family.run()
        family.run()
    assert torch.equal(inner["record"].values, 2 * z + 1)
    assert torch.equal(outer["record"].values, torch.cat([2 * z, 2 * z]))
    assert (outer.fired, inner.fired) == (
        {"blocks.0.attn.hook_z": 2},
        {"blocks.0.attn.hook_z": 1},
    )


@pytest.mark.parametrize("family", ["native", "gpt2"], indirect=True)
def test_the_end_of_an_inner_attachment_leaves_the_outer_its_mask(family):
    with pk.attach(family.model, pk.VDI()) as alone:
        family.run()
    with pk.attach(family.model, pk.VDI()) as outer:
        with pk.attach(family.model, pk.VDI()) as inner:
            family.run()
        family.run()
    for run in (inner, outer):
        torch.testing.assert_close(run["vdi"].values, alone["vdi"].values)
        torch.testing.assert_close(run["vdi"].null, alone["vdi"].null)


def test_one_item_may_be_attached_twice_and_to_two_models(built):
    first, second = built("native"), families.native()
    double, record = pk.Edit("0.z", lambda x: 2 * x), pk.Record("1.z")
    clean = first.run()
    with pk.attach(first.model, double, record) as one, pk.attach(second.model, record) as two:
        assert not torch.equal(first.run(), clean)
        assert torch.equal(second.run(), clean)
        second.run()
    assert one["record"].values.shape[0] == 3
    assert two["record"].values.shape[0] == 6
    assert (one.fired["blocks.1.attn.hook_z"], two.fired["blocks.1.attn.hook_z"]) == (1, 2)
    with pk.attach(first.model, double), pk.attach(first.model, double):
        twice = first.run()
    with pk.attach(first.model, pk.Edit("0.z", lambda x: 4 * x)):
        assert torch.equal(first.run(), twice)


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


# 6. Streaming


def bytes_held(run: Attachment) -> int:
    """The storage of all tensors that can be reached from the observers' streams."""
    seen, storages, todo = set(), {}, [stream._totals for stream in run._streams.values()]
    todo += [stream._pending for stream in run._streams.values()]
    while todo:
        here = todo.pop()
        if id(here) in seen or isinstance(here, (type, nn.Module)):
            continue
        seen.add(id(here))
        if isinstance(here, Tensor):
            storages[here.untyped_storage().data_ptr()] = here.untyped_storage().nbytes()
        elif type(here).__name__ != "HookSite":
            todo += gc.get_referents(here)
    return sum(storages.values())


@pytest.mark.parametrize("order", ["entropy-first", "pattern-first"])
@pytest.mark.parametrize("family", ["native", "gpt2", "bert"], indirect=True)
def test_statistics_do_not_grow_with_forwards_and_keep_no_activation(family, order):
    heads = family.model.cfg.n_heads
    with pk.attach(family.model, pk.VDI(order=order), pk.AttentionEntropy()) as run:
        sizes = []
        for _ in range(4):
            family.run()
            sizes.append(bytes_held(run))
    # The last firing waits for the next forward, so two statistics are kept once there are two.
    assert sizes[1] == sizes[2] == sizes[3]
    # Per layer and statistic, in float64: for each head and query a sum (or, pattern-first, for
    # each key too), for each query null and count; no axis of the batch.
    row = heads * 7 + 2 * 7
    mean = heads * 7 * 7 + 7 * 7 + 7 + 7
    assert sizes[1] == 2 * 2 * 8 * (row + (mean if order == "pattern-first" else row))


def test_record_keeps_copies_of_every_forward(built):
    family = built("native")
    (ids,) = family.args
    with torch.no_grad(), pk.attach(family.model, pk.Record("0.z:1")) as run:
        family.model(ids[:1])
        family.model(ids[1:])
    with pk.attach(family.model, pk.Record("0.z:1")) as whole:
        family.run()
    torch.testing.assert_close(run["record"].values, whole["record"].values)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        return self.hook_resid_pre(x) + 1


class Looped(HookedRootModule):
    """One block, called ``times`` times in a forward: iteration k sees x + k."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.blocks = nn.ModuleList([Block()])
        self.setup()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.blocks[0](x)
        return x


def looped(*times: int, iterations: Any) -> pk.Measurement:
    """Forwards with so many iterations each; forward number i starts from 100 i."""
    model = Looped(0)
    with pk.attach(model, pk.Record("resid_pre", iterations=iterations)) as run:
        for start, model.times in enumerate(times):
            model(torch.full((1, 1, 1), 100.0 * start))
    return run["record"]


@pytest.mark.parametrize(
    ("iterations", "values", "kept"),
    [
        ("first", [0, 100], None),
        ("last", [4, 104], None),
        ("all", [[0, 100], [1, 101], [2, 102], [3, 103], [4, 104]], [0, 1, 2, 3, 4]),
        (1, [[0, 100], [1, 101], [2, 102], [3, 103], [4, 104]], [0, 1, 2, 3, 4]),
        (2, [[0, 100], [2, 102], [4, 104]], [0, 2, 4]),
        (3, [[0, 100], [3, 103]], [0, 3]),
        (9, [[0, 100]], [0]),
    ],
)
def test_repeated_firing_in_one_forward(iterations, values, kept):
    result = looped(5, 5, iterations=iterations)
    assert result.values.flatten(-3).tolist() == values
    assert result.dims[0] == ("batch" if kept is None else "iteration")
    if kept is not None:
        assert list(result.coords["iteration"]) == kept


def test_the_last_of_forwards_of_different_lengths():
    assert looped(3, 1, 5, iterations="last").values.flatten().tolist() == [2, 100, 204]


def test_iterations_that_not_every_forward_reaches_are_filled_with_nan():
    values = looped(1, 3, iterations="all").values.flatten(-3)
    assert values[0].tolist() == [0, 100]
    assert values[1:, 0].tolist() == [101, 102]
    assert values[1:, 1].isnan().all()


@pytest.mark.parametrize("iterations", [0, -1, "some", 1.5])
def test_iterations_that_mean_nothing(iterations):
    with pytest.raises(pk.ProbekitError) as error:
        inspect.unwrap(pk.Observer.__post_init__)(_Iterations(iterations))
    assert str(error.value) == (
        "iterations is 'first', 'last', 'all' or a positive whole number, not " + repr(iterations)
    )


@dataclass
class _Iterations:
    iterations: Any


@dataclass(frozen=True)
class Counting(pk.Intervention):
    """Notes the iteration of each firing."""

    seen: tuple[list[int]]

    def sites(self) -> tuple[pk.Site, ...]:
        return (pk.Site("resid_pre"),)

    def edit(self, x: Tensor, at: pk.Firing) -> Tensor:
        self.seen[0].append(at.iteration)
        return x + 10


def test_an_intervention_acts_at_every_iteration_and_is_told_which():
    model, seen = Looped(3), []
    with pk.attach(model, Counting((seen,))) as run:
        output = model(torch.zeros(1, 1, 1))
        model(torch.zeros(1, 1, 1))
        model.blocks[0](torch.zeros(1, 1, 1))  # outside of any forward: a forward of its own
        model.blocks[0](torch.zeros(1, 1, 1))
    assert seen == [0, 1, 2, 0, 1, 2, 0, 0]
    assert float(output) == 33
    assert run.fired == {"blocks.0.hook_resid_pre": 8}


def test_a_forward_that_failed_does_not_upset_the_next():
    model, record = Looped(2), pk.Record("resid_pre", iterations="first")
    failing = pk.Edit("resid_pre", lambda x: boom(x) if float(x) < 0 else x)
    with pk.attach(model, record, failing) as run:
        with pytest.raises(Boom):
            model(torch.full((1, 1, 1), -1.0))
        model(torch.full((1, 1, 1), 5.0))
    assert run["record"].values.flatten().tolist() == [-1, 5]


# 7. Hooks of others


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("part", ["z", "pattern"])
def test_hooks_of_others_survive(built, part, permanent):
    family, fired = built("native"), []
    point = family.model.hook_dict[f"blocks.0.attn.hook_{part}"]
    earlier = point.add_hook(lambda x, hook: fired.append("earlier"), is_permanent=permanent)
    try:
        with pk.attach(family.model, pk.Edit(f"0.{part}", lambda x: 2 * x)):
            later = point.add_hook(lambda x, hook: fired.append("later"), is_permanent=permanent)
            family.run()
        assert fired == ["earlier", "later"]
        family.run()
        assert fired == ["earlier", "later"] * 2
        assert [handle is earlier for handle in point.fwd_hooks] == [True, False]
    finally:
        for handle in (earlier, later):
            handle.hook.remove()
        point.fwd_hooks.clear()


def test_transformer_lens_s_own_runs_leave_the_attachment_alone(built):
    family = built("native")
    with pk.attach(family.model, pk.HeadScale(layer=0, head=0, omega=0)) as run:
        with torch.no_grad():
            output, cache = family.model.run_with_cache(*family.args)
        with torch.no_grad():
            hooked = family.model.run_with_hooks(
                *family.args, fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: z)]
            )
        clean = family.run()
    # run_with_cache hooks every pattern, so eager attention runs; otherwise SDPA does.
    torch.testing.assert_close(clean, output)
    torch.testing.assert_close(hooked, output)
    assert cache["blocks.0.attn.hook_z"][:, :, 0].abs().max() == 0
    assert run.fired == {"blocks.0.attn.hook_z": 3}


def test_hooks_that_the_user_resets_are_no_error_at_exit(built):
    family = built("native")
    with unchanged(family), pk.attach(family.model, pk.Record("0.z")) as run:
        family.run()
        family.model.reset_hooks()
        family.run()
    assert run.fired == {"blocks.0.attn.hook_z": 1}


# The receipt


def test_the_receipt_says_what_each_item_did(built):
    family = built("native")
    zero = pk.HeadScale(layer=0, head=1, omega=0)
    with pk.attach(family.model, pk.Record("0.z:1"), pk.Record("0.resid_post", name="post")) as run:
        family.run()
    z, post = run["record"].values, run["post"].values
    inplace, one = pk.Edit("0.resid_post", lambda x: x.add_(1)), pk.HeadScale(1, 0, 1.0)
    with pk.attach(family.model, zero, inplace, one, pk.VDI(site="0.pattern")) as run:
        family.run()
        family.run()
    frame = run.receipt.to_frame()
    assert list(frame.columns) == ["item", "site", "hook", "fired", "edit", "change"]
    assert list(frame["site"]) == ["0.z:1", "0.resid_post", "1.z:0", "0.pattern"]
    assert list(frame["item"])[::2] == [
        "HeadScale(layer=0, head=1, omega=0)",
        "HeadScale(layer=1, head=0, omega=1.0)",
    ]
    assert frame["item"][3] == "VDI(site='0.pattern')"
    assert list(frame["fired"]) == [2, 2, 2, 2]
    assert list(frame["edit"]) == ["returned", "in place", "none", "none"]
    assert frame["change"][0] == pytest.approx(float(z.norm()), rel=1e-6)
    assert frame["change"][1] == pytest.approx(math.sqrt(post.numel()), rel=1e-6)
    assert frame["change"][2] == 0
    assert math.isnan(frame["change"][3])  # an observer changes nothing and is not weighed
    assert run.receipt.rows[3].change is None
    assert run.receipt.output_change is None
    assert "blocks.0.attn.hook_z" in str(run.receipt) and "<table" in run._repr_html_()


def test_changes_are_weighed_at_firings_1_2_4_and_8_and_the_largest_is_kept():
    # Weighed are 1, 6, 5 and 2; the others are larger.
    model, shifts = Looped(1), iter([1, 6, 90, 5, 90, 90, 90, 2, 90])
    with pk.attach(model, pk.Edit("resid_pre", lambda x: x + next(shifts))) as run:
        for _ in range(9):
            model(torch.zeros(1, 1, 4))
    assert run.receipt.rows[0].change == 2 * 6  # L2 norm of four entries of 6
    assert run.receipt.rows[0].fired == 9


# Names and non-items


def test_two_observers_of_one_name_are_refused(built):
    family = built("native")
    with pytest.raises(pk.ProbekitError) as error:
        pk.attach(family.model, pk.VDI(), pk.VDI(order="pattern-first"))
    assert str(error.value) == ("two observers are named 'vdi'; give one of them another name=...")


def test_what_is_no_item_is_refused(built):
    from probekit.attachment import _streams

    with pytest.raises(pk.ProbekitError) as error:
        inspect.unwrap(_streams)([pk.VDI])
    assert str(error.value) == (
        f"{pk.VDI!r} is neither an observer nor an intervention; "
        "see pk.list_probes() and pk.list_interventions()"
    )


def test_results_by_name(built):
    family = built("native")
    with pk.attach(family.model, pk.VDI(), pk.AttentionEntropy(name="nats")) as run:
        with pytest.raises(pk.ProbekitError) as error:
            run["vdi"]
        assert str(error.value) == "observer 'vdi' has seen nothing yet; run the model first"
        family.run()
    assert run.keys() == ["vdi", "nats"]
    assert (run["vdi"].name, run["nats"].name) == ("vdi", "nats")
    with pytest.raises(pk.ProbekitError) as error:
        run["attention_entropy"]
    assert str(error.value) == (
        "unknown observer of this attachment 'attention_entropy'; valid: vdi, nats"
    )


def test_the_repr_says_what_is_attached(built):
    family = built("native")
    with pk.attach(family.model, pk.HeadScale(0, 0, 0.5)) as run:
        assert repr(run) == "Attachment(HookedModel, 1 hooks, attached, results: none)"
        family.run()
