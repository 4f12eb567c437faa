"""What cannot be stored, and data that cannot be read back: refused, and why."""

import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import safetensors.torch
import torch
from storable import WEIGHTS, Holder, double, lerp, register
from storable import holder_is_registered as holder_is_registered
from torch import nn

import probekit as pk

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
    register(Wrapped, monkeypatch)
    for held in (None, 3):
        with pytest.raises(pk.ProbekitError) as error:
            pk.to_dict(Wrapped(item=held))
        assert str(error.value) == (
            "Wrapped has a field 'item', under which the class itself is stored; give the field "
            "another name"
        )
