"""Items as plain data and back: every registered item, every kind of value, every refusal."""

import inspect
import json
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tomli_w
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import probekit as pk
from probekit import registry
from probekit.modulators import LerpModulator, SimplexField


def double(x: Tensor) -> Tensor:
    return 2 * x


def lerp() -> LerpModulator:
    return LerpModulator(d_model=8, n_layers=2, vocab=5, d_geometry=3, seed=1)


def field() -> SimplexField:
    return SimplexField(d_model=8, n_layers=2, experts=(2,), seed=1)


DOUBLE = {f"{__name__}:double": double}
WEIGHTS = {"0.Q.weight": torch.arange(6.0).view(2, 3).mT, "0.Q.bias": torch.tensor(1.5).half()}

#: For each registered item, examples of it; among them every kind of value that it may hold.
CASES: dict[str, list[Any]] = {
    "VDI": [pk.VDI(), pk.VDI("visible", "pattern-first", (5,), "0.pattern:1", iterations=2)],
    "AttentionEntropy": [pk.AttentionEntropy((-1,), name="nats")],
    "ResidualStats": [pk.ResidualStats("0.z:1", (0, -1)), pk.ResidualStats(name="x")],
    "GaussianEntropy": [pk.GaussianEntropy("resid_pre", iterations="all")],
    "Accuracy": [pk.Accuracy(torch.tensor([[1, -100]])), pk.Accuracy(double, (-2,))],
    "LogitMargin": [pk.LogitMargin("same"), pk.LogitMargin(double)],
    "Record": [pk.Record(pk.Site("z", slice(0, 2), 1), differentiable=True)],
    "HeadScale": [pk.HeadScale(1, 2, -0.5, "decoder", "cross"), pk.HeadScale(0, 0, 1)],
    "AttentionScale": [pk.AttentionScale(0.1, layer=-1, stack="text"), pk.AttentionScale(2)],
    "Clamp": [pk.Clamp("norm", 3.5, "0.resid_post", "vector"), pk.Clamp("variance", 1)],
    "Noise": [pk.Noise(0.3, "ln_final", seed=4), pk.Noise(0, "0.z:1")],
    "SetPattern": [pk.SetPattern(double), pk.SetPattern(double, "1.pattern:0")],
    "Edit": [pk.Edit("0.z", double)],
    "SwapWeights": [
        pk.SwapWeights("random", ("Q", "O"), (0,), (1, 2), seed=3),
        pk.SwapQK("zero"),
        pk.SwapQK(WEIGHTS),
    ],
    "SwapPackedRows": [pk.SwapPackedRows("random", 96, (0,), 1), pk.SwapPackedRows(WEIGHTS, 2)],
    "FreezeWeights": [pk.FreezeWeights("all"), pk.FreezeWeights(["Q"], [0], [1])],
    "Lerp": [pk.Lerp(lerp(), 0.5, "0.resid_pre"), pk.Lerp(lerp().eval())],
    "FieldModulator": [pk.FieldModulator(field().double(), "resid_post")],
}


def assert_same(got: Any, wanted: Any) -> None:
    """Equal values of equal types, tensors and the weights of modules bit for bit."""
    if isinstance(wanted, list):
        wanted = tuple(wanted)  # a list cannot be told from a tuple once stored
    if isinstance(wanted, Tensor):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        assert got.numpy().tobytes() == wanted.numpy().tobytes()
    elif isinstance(wanted, nn.Module):
        assert type(got) is type(wanted) and got.training == wanted.training
        assert_same(got.state_dict(), dict(wanted.state_dict()))
    elif isinstance(wanted, Mapping):
        assert list(got) == list(wanted) or set(got) == set(wanted)
        for key, value in wanted.items():
            assert_same(got[key], value)
    elif isinstance(wanted, tuple):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
    else:
        assert type(got) is type(wanted) and repr(got) == repr(wanted)


@pytest.mark.parametrize("name", registry.every_item())
def test_every_registered_item_comes_back(name, tmp_path):
    assert name in CASES, f"add examples of {name} to CASES"
    pk.save_items(CASES[name], tmp_path / "items")
    again = pk.load_items(tmp_path / "items", functions=DOUBLE)
    for got, item in zip(again, CASES[name], strict=True):
        assert type(got) is type(item)
        assert_same(vars(got), vars(item))


def test_all_of_them_in_one_folder_in_their_order(tmp_path):
    items = [item for examples in CASES.values() for item in examples]
    folder = pk.save_items(items, tmp_path / "new" / "items")
    again = pk.load_items(folder, DOUBLE)
    assert [type(item) for item in again] == [type(item) for item in items]
    assert sorted(path.name for path in folder.iterdir()) == [
        "FieldModulator.module",
        "Lerp.module",
        "Lerp.module-2",
        "SwapPackedRows.donor.safetensors",
        "SwapWeights.donor.safetensors",
        "items.toml",
    ]


# Plain items: any values, through JSON, TOML and repr

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-3, 1e6)
layer = st.integers(-3, 3)
some = st.none() | st.lists(st.integers(0, 3), min_size=1).map(tuple)
stack = st.sampled_from([None, "encoder", "decoder"])
attn = st.sampled_from([None, "self", "cross"])
parts = st.lists(st.sampled_from(["Q", "K", "V", "O"]), min_size=1).map(tuple)
observed: dict[str, Any] = {
    "name": st.none() | st.text(min_size=1),
    "iterations": st.sampled_from(["first", "last", "all", 2]),
    "differentiable": st.booleans(),
}
queries = st.none() | st.lists(st.integers(-5, 5), min_size=1, unique=True).map(tuple)


def made(cls: type, **fields: Any) -> Any:
    # Made in the test, not in the strategy: beartype draws random numbers when it checks fields.
    return st.fixed_dictionaries(fields).map(lambda values: (cls, values))


of_part = {"parts": parts, "layers": some, "heads": some, "stack": stack, "attn": attn}
vectors = {"site": st.sampled_from(["resid_post", "1.mlp_out"]), "positions": queries, **observed}
targets = st.sampled_from(["next", "same"]) | st.lists(
    st.lists(st.integers(-100, 9), min_size=2, max_size=2), min_size=1, max_size=3
)
plain_items = st.one_of(
    made(
        pk.HeadScale,
        layer=layer,
        head=st.integers(0, 3),
        omega=finite | layer,
        stack=stack,
        attn=attn,
    ),
    made(pk.AttentionScale, alpha=finite | layer, layer=layer, stack=stack),
    made(
        pk.Clamp,
        mode=st.just("norm"),
        target=positive,
        site=st.sampled_from(["ln_final", "0.z:1"]),
        per=st.sampled_from(["batch", "vector"]),
    ),
    made(pk.Noise, sigma=positive, site=st.sampled_from(["0.resid_mid", "z"]), seed=st.integers()),
    made(
        pk.SwapWeights,
        donor=st.sampled_from(["random", "zero"]),
        seed=st.integers(0, 9),
        **of_part,
    ),
    made(pk.FreezeWeights, **of_part),
    made(pk.FreezeWeights, parts=st.just("all")),
    made(pk.SwapPackedRows, donor=st.just("random"), rows=st.integers(1), layers=some),
    made(
        pk.VDI,
        normaliser=st.sampled_from(["length", "visible"]),
        order=st.sampled_from(["entropy-first", "pattern-first"]),
        queries=queries,
        site=st.sampled_from(["pattern", "0.pattern:1"]),
        **observed,
    ),
    made(pk.AttentionEntropy, queries=queries, **observed),
    made(pk.Record, site=st.sampled_from(["z", "0:2.z"]), **observed),
    made(pk.ResidualStats, **vectors),
    made(pk.GaussianEntropy, **vectors),
    made(pk.Accuracy, targets=targets, positions=queries, **observed),
    made(pk.LogitMargin, targets=targets, positions=queries, **observed),
)


@given(plain_items)
def test_plain_items_round_trip_through_json_and_toml(made):
    cls, fields = made
    item = cls(**fields)
    stored = pk.to_dict(item)
    assert pk.from_dict(json.loads(json.dumps(stored))) == item
    assert pk.from_dict(tomllib.loads(tomli_w.dumps(stored))) == item


@given(plain_items)
def test_the_repr_of_a_plain_item_evaluates_to_it(made):
    cls, fields = made
    item = cls(**fields)
    assert eval(repr(item), {name: getattr(pk, name) for name in dir(pk)}) == item


def test_defaults_are_left_out_and_sites_become_text():
    assert pk.to_dict(pk.VDI()) == {"item": "VDI"}
    assert pk.to_dict(pk.HeadScale(0, 1, 0.5)) == {
        "item": "HeadScale",
        "layer": 0,
        "head": 1,
        "omega": 0.5,
    }
    record = pk.Record(pk.Site("z", slice(0, 2), 1))
    assert pk.to_dict(record) == {"item": "Record", "site": "0:2.z:1"}
    stored: Any = pk.to_dict(pk.Noise(np.float64(0.5), "0.z"))
    assert type(stored["sigma"]) is float


# Every kind of value


MANY = torch.arange(2000)  # more than is printed


@dataclass(frozen=True)
class Holder(pk.Intervention):
    """Holds anything."""

    value: Any = 1
    more: Any = (1.0, None)
    many: Any = MANY

    def sites(self) -> tuple[pk.Site, ...]:
        return ()

    def edit(self, x: Tensor, at: pk.Firing) -> Tensor:
        return x


@pytest.fixture(autouse=True, scope="module")
def _holder_is_registered():
    patch = pytest.MonkeyPatch()
    ours = registry.GROUPS["probekit.interventions"]
    patch.setitem(registry.GROUPS, "probekit.interventions", (*ours, Holder))
    yield
    patch.undo()


dtypes = st.sampled_from([torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
tensors = st.builds(
    lambda size, dtype: torch.arange(6).view(2, 3)[:, :size].to(dtype),
    st.integers(0, 3),
    dtypes,
).map(lambda t: t.view(torch.int16) if t.dtype == torch.bfloat16 else t)  # numpy has no bfloat16
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | tensors
    | st.just(torch.tensor(2)),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(values, values)
def test_any_value_comes_back(value, more):
    with tempfile.TemporaryDirectory() as folder:
        pk.save_items([Holder(value, more)], folder)
        (again,) = pk.load_items(folder)
        assert_same(vars(again), {"value": value, "more": more, "many": MANY})


@pytest.mark.parametrize("word", ["function", "tensor", "mapping", "none", "item"])
def test_a_mapping_with_a_key_that_means_something(word, tmp_path):
    item = Holder({word: {word: "x"}})
    assert_same(vars(pk.from_dict(pk.to_dict(item))), vars(item))


def test_a_tensor_is_a_default_only_if_it_is_that_very_one(tmp_path):
    other = MANY.clone()
    other[1000] = 0
    stored = pk.to_dict(Holder(torch.tensor([1, 1]), many=other), tmp_path)
    assert_same(vars(pk.from_dict(stored, tmp_path))["many"], other)


def test_a_default_is_one_only_in_its_own_type():
    assert pk.to_dict(Holder(1, (1.0, None))) == {"item": "Holder"}
    assert pk.to_dict(Holder(True))["value"] is True
    assert type(pk.to_dict(Holder(1.0))["value"]) is float
    assert pk.to_dict(Holder(None)) == {"item": "Holder", "value": {"none": True}}


def test_tensors_that_share_memory_or_need_a_gradient(tmp_path):
    whole = nn.Parameter(torch.arange(4.0))
    item = Holder({"all": whole, "half": whole[::2]}, whole)
    pk.save_items([item], tmp_path)
    (again,) = pk.load_items(tmp_path)
    assert_same(again.value, {"all": torch.arange(4.0), "half": torch.tensor([0.0, 2.0])})
    assert not again.more.requires_grad


def test_a_folder_that_is_written_to_twice_by_to_dict(tmp_path):
    one = pk.to_dict(Holder(torch.zeros(1)), tmp_path / "deep" / "folder")
    two = pk.to_dict(Holder(torch.ones(1)), tmp_path / "deep" / "folder")
    assert two["value"] == {"tensor": "Holder.value-2.safetensors"}
    for stored, wanted in ((one, 0), (two, 1)):
        assert float(vars(pk.from_dict(stored, tmp_path / "deep" / "folder"))["value"]) == wanted


# Functions


def test_functions_are_stored_by_name_and_passed_back():
    stored = pk.to_dict(pk.SetPattern(double))
    assert stored == {"item": "SetPattern", "fn": {"function": f"{__name__}:double"}}
    assert pk.from_dict(stored, functions=DOUBLE) == pk.SetPattern(double)
    assert pk.from_dict(stored, functions={f"{__name__}:double": abs}) == pk.SetPattern(abs)


def test_functions_deep_inside_are_asked_for():
    stored = pk.to_dict(Holder([{"a": {"b": double}}], (abs,)))
    with pytest.raises(pk.ProbekitError) as error:
        pk.from_dict(stored, functions=DOUBLE)
    assert str(error.value).endswith("pass functions={'builtins:abs': ...}")
    with pytest.raises(pk.ProbekitError, match=f"'{__name__}:double': ..., 'builtins:abs': ..."):
        pk.from_dict(stored)
    again = pk.from_dict(stored, functions={**DOUBLE, "builtins:abs": abs})
    assert again == Holder(({"a": {"b": double}},), (abs,))


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (abs, "builtins:abs"),
        (torch.relu, "torch:_VariableFunctionsClass.relu"),
        (nn.ReLU(), "torch.nn.modules.activation:ReLU"),
        (lambda x: x, f"{__name__}:<lambda>"),
    ],
)
def test_what_a_function_is_called(fn, name):
    stored = pk.to_dict(pk.Edit("0.z", fn))
    assert stored["fn"] == {"function": name}
    assert pk.from_dict(stored, functions={name: fn}) == pk.Edit("0.z", fn)


def test_two_functions_of_one_name_are_told_apart(tmp_path):
    def times(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda x: x * factor

    two, three = times(2), times(3)
    items = [pk.Edit("0.z", two), pk.Edit("0.z", three), pk.Edit("1.z", two)]
    pk.save_items(items, tmp_path)
    name = f"{__name__}:test_two_functions_of_one_name_are_told_apart.<locals>.times.<locals>"
    functions = {f"{name}.<lambda>": two, f"{name}.<lambda>#2": three}
    assert pk.load_items(tmp_path, functions) == items


# What cannot be stored


@dataclass(frozen=True)
class VDI(pk.Record):
    """Not registered, and of a name that is."""


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            VDI("z"),
            f"{__name__}.VDI is not registered, so it could not be read back; offer it through an "
            "entry point, as examples/plugin does",
        ),
        (
            pk.SwapQK(WEIGHTS),
            "SwapWeights.donor holds tensors, which need a folder: use "
            "pk.save_items([item], folder), or pk.to_dict(item, folder)",
        ),
        (
            pk.Lerp(lerp()),
            "Lerp.module holds tensors, which need a folder: use "
            "pk.save_items([item], folder), or pk.to_dict(item, folder)",
        ),
        (
            pk.Edit("0.z", nn.Linear(2, 2)),
            "Edit.fn is a Linear, whose weights would be lost; store them yourself and give a "
            "function that calls it",
        ),
        (
            Holder((1, {2: 3})),
            "Holder.value is of type dict, which cannot be stored; give numbers, text, sites, "
            "tensors, functions, or sequences and mappings of them",
        ),
    ],
)
def test_what_has_no_plain_form(item, message):
    with pytest.raises(pk.ProbekitError) as error:
        pk.to_dict(item)
    assert str(error.value) == message


def test_a_tensor_that_safetensors_does_not_take(tmp_path):
    with pytest.raises(pk.ProbekitError, match=r"^Holder.value does not go into safetensors: "):
        pk.to_dict(Holder(torch.zeros(2, dtype=torch.complex128)), tmp_path)
    assert list(tmp_path.iterdir()) == []


# What cannot be read back


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"item": "AttentionScale", "alpha": float("inf")}, "alpha must be a finite number"),
        ({"item": "Record", "site": "0.zz"}, "site '0.zz': unknown part 'zz'; valid: "),
        ({"item": "AttentionScale"}, "AttentionScale: .*missing.* argument: 'alpha'$"),
        ({"item": "HeadScal"}, "unknown item 'HeadScal'; valid: .*; closest: 'HeadScale'$"),
        ({}, "unknown item 'None'; valid: "),
        ({"item": []}, r"unknown item '\[\]'; valid: "),
        (
            {"item": "AttentionScale", "alhpa": 1.0},
            "AttentionScale: unknown field 'alhpa'; valid: alpha, layer, stack; closest: 'alpha'$",
        ),
        (
            {"item": "SwapWeights", "donor": {"tensors": "x.safetensors"}},
            "SwapWeights.donor lies in 'x.safetensors'; give from_dict the folder that to_dict "
            "was given$",
        ),
    ],
)
def test_data_that_are_no_item(stored, message):
    with pytest.raises(pk.ProbekitError, match=f"^{message}"):
        pk.from_dict(stored)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"functoin": "x"},
        {"tensor": 1},
        {"mapping": 1},
        {"none": False},
        {"modulator": "x"},
        {"tensor": "x", "none": True},
    ],
)
def test_a_table_that_means_nothing(value):
    with pytest.raises(pk.ProbekitError) as error:
        pk.from_dict({"item": "Holder", "value": value})
    assert str(error.value) == (
        f"Holder.value: the table {value!r} is none of {{function}}, {{tensor}}, {{tensors}}, "
        "{modulator, training}, {mapping}, {none}"
    )


def test_a_function_that_is_none():
    with pytest.raises(pk.ProbekitError) as error:
        pk.from_dict({"item": "Holder", "value": {"function": "f"}}, functions={"f": 3})
    assert str(error.value) == "functions['f'] is of type int, not a function"


def test_a_tensor_file_with_something_else(tmp_path):
    stored = pk.to_dict(Holder(torch.zeros(1)), tmp_path)
    two = {"value": torch.zeros(1), "b": torch.zeros(1)}
    safetensors.torch.save_file(two, tmp_path / "Holder.value.safetensors")
    with pytest.raises(pk.ProbekitError) as error:
        pk.from_dict(stored, tmp_path)
    assert str(error.value) == (
        f"Holder.value: {tmp_path}/Holder.value.safetensors holds ['b', 'value'], not one 'value'"
    )


def test_reading_imports_nothing_that_is_named(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    stored = {"item": "Holder", "value": {"function": "trap:f"}}
    with pytest.raises(pk.ProbekitError, match="functions are stored by name only"):
        pk.from_dict(stored)
    assert pk.from_dict(stored, functions={"trap:f": double}) == Holder(double)


@pytest.mark.parametrize("stored", [["x"], None, "HeadScale", 3])
def test_what_is_no_mapping_is_refused(stored):
    with pytest.raises(pk.ProbekitError) as error:
        inspect.unwrap(pk.from_dict)(stored)
    assert str(error.value) == (
        f"an item is read from the mapping that pk.to_dict returned, not from {stored!r}"
    )


@dataclass(frozen=True)
class Wrapped(Holder):
    """Has a field of the name under which the class is stored."""

    item: Any = None


def test_a_field_named_item_is_refused(monkeypatch):
    known = registry.GROUPS["probekit.interventions"]
    monkeypatch.setitem(registry.GROUPS, "probekit.interventions", (*known, Wrapped))
    for held in (None, 3):
        with pytest.raises(pk.ProbekitError) as error:
            pk.to_dict(Wrapped(item=held))
        assert str(error.value) == (
            "Wrapped has a field 'item', under which the class itself is stored; give the field "
            "another name"
        )
