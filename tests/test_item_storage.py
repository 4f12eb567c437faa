"""Items as plain data and back: every registered item, and functions by their names."""

import json
import tomllib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import given
from hypothesis import strategies as st
from storable import DOUBLE, NAME, WEIGHTS, Holder, assert_same, double, lerp
from storable import holder_is_registered as holder_is_registered
from torch import Tensor, nn

import probekit as pk
from probekit import registry
from probekit.modulators import SimplexField


def field() -> SimplexField:
    return SimplexField(d_model=8, n_layers=2, experts=(2,), seed=1)


#: For each registered item, examples of it; among them every kind of value that it may hold.
CASES: dict[str, list[Any]] = {
    "VDI": [pk.VDI(), pk.VDI("visible", "pattern-first", (5,), "0.pattern:1", iterations=2)],
    "AttentionEntropy": [pk.AttentionEntropy((-1,), name="nats")],
    "ResidualStats": [pk.ResidualStats("0.z:1", (0, -1)), pk.ResidualStats(name="x")],
    "GaussianEntropy": [pk.GaussianEntropy("resid_pre", iterations="all")],
    "DeadNeurons": [pk.DeadNeurons("0.mlp_post", (0, -1))],
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
    "Lerp": [
        pk.Lerp(lerp(), 0.5, "0.resid_pre", "additive-only"),
        pk.Lerp(lerp().eval()),
    ],
    "FieldModulator": [pk.FieldModulator(field().double(), "resid_post")],
}


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
    made(pk.DeadNeurons, **vectors),
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


# Functions


def test_functions_are_stored_by_name_and_passed_back():
    stored = pk.to_dict(pk.SetPattern(double))
    assert stored == {"item": "SetPattern", "fn": {"function": NAME}}
    assert pk.from_dict(stored, functions=DOUBLE) == pk.SetPattern(double)
    assert pk.from_dict(stored, functions={NAME: abs}) == pk.SetPattern(abs)


def test_functions_deep_inside_are_asked_for():
    stored = pk.to_dict(Holder([{"a": {"b": double}}], (abs,)))
    with pytest.raises(pk.ProbekitError) as error:
        pk.from_dict(stored, functions=DOUBLE)
    assert str(error.value).endswith("pass functions={'builtins:abs': ...}")
    with pytest.raises(pk.ProbekitError, match=f"'{NAME}': ..., 'builtins:abs': ..."):
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
