"""Statistics over many forwards, and over several firings in one."""

import gc
import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from checks import Boom, boom
from families import Looped
from torch import Tensor, nn

import probekit as pk
from probekit.attachment import Attachment


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
