"""Stored items, modulators and measurements that are not what they should be."""

import json
import struct
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from malformed import (
    as_json,
    as_toml,
    changed_bytes,
    changed_tensors,
    changed_trees,
    examples,
    nodes,
    only_reads,
    refused_well,
    with_header,
)

import probekit as pk
from probekit.files import check_plain
from probekit.measurement import Measurement
from probekit.modulators import LerpModulator, SimplexField, load_modulator, save_modulator

LERP = LerpModulator(d_model=8, n_layers=2, vocab=5, d_geometry=3, seed=1)
FIELD = SimplexField(d_model=8, n_layers=2, experts=(1, 2), seed=1)
ITEMS = [
    pk.HeadScale(0, 1, 0.5),
    pk.VDI(queries=(0, -1), site="0.pattern"),
    pk.Record(pk.Site("z", slice(0, 2), 1), name="z"),
    pk.Clamp("norm", 3.5, "0.resid_post"),
    pk.SwapWeights("random", ("Q", "O"), (0,), (1, 2), seed=3),
    pk.SwapQK({"0.Q.weight": torch.ones(2, 3)}),
    pk.Accuracy(torch.tensor([[1, -100]])),
    pk.Lerp(LERP, 0.5),
    pk.FieldModulator(FIELD),
]
PLAIN = [pk.to_dict(item) for item in ITEMS[:5]]


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> dict[str, bytes]:
    """The files of a folder of items, by their paths in it."""
    folder = pk.save_items(ITEMS, tmp_path_factory.mktemp("items") / "all")
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@given(st.sampled_from(PLAIN).flatmap(changed_trees))
@examples(30)
def test_an_item_of_other_values(item):
    names = [str(item.get("item")), "item", "part", "site", *map(str, item)]
    with refused_well(*names):
        pk.from_dict(item)


@given(nodes)
def test_what_is_no_item(node):
    if isinstance(node, dict):
        with refused_well("item"):
            pk.from_dict(node)


@pytest.mark.parametrize("inside", [1, 0.5, "text"])
def test_plain_data_is_as_deep_as_its_lists(inside: Any):
    value = inside
    for _ in range(100):
        value = [value]
    check_plain(value)
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        check_plain([value])


def test_an_item_nested_deep():
    deep: Any = 1.0
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(pk.ProbekitError, match="nested more than 100 deep"):
        pk.from_dict({"item": "HeadScale", "omega": deep})


@given(st.data())
@examples(8)
def test_a_folder_of_items_of_other_values(tmp_path, stored, data):
    tree = tomllib.loads(stored["items.toml"].decode())
    content = as_toml(data.draw(changed_trees(tree)))
    folder = put(tmp_path / "items", stored | {"items.toml": content})
    only_reads(tmp_path, lambda: pk.load_items(folder), folder / "items.toml")


@given(st.data())
@examples(6)
def test_a_folder_of_items_whose_bytes_changed(tmp_path, stored, data):
    content = data.draw(changed_bytes(stored["items.toml"]))
    folder = put(tmp_path / "items", stored | {"items.toml": content})
    only_reads(tmp_path, lambda: pk.load_items(folder), folder / "items.toml")


@given(st.data())
@examples(5)
def test_files_of_items_that_were_tampered_with(tmp_path, stored, data):
    files = sorted(name for name in stored if name.endswith(".safetensors"))
    name = data.draw(st.sampled_from(files))
    folder = put(tmp_path / "items", stored | {name: data.draw(changed_tensors(stored[name]))})
    only_reads(tmp_path, lambda: pk.load_items(folder), folder / name)


@pytest.mark.parametrize("place", ["../secret.safetensors", "/etc/passwd", "a\0b", "..", "y" * 300])
@pytest.mark.parametrize("kind", ["tensor", "tensors", "modulator"])
def test_files_outside_the_folder_are_not_read(tmp_path, place, kind):
    save_modulator(LERP, tmp_path / "secret.safetensors")
    value = {kind: place} | ({"training": True} if kind == "modulator" else {})
    (tmp_path / "items").mkdir()
    with refused_well("SwapWeights.donor"):
        pk.from_dict({"item": "SwapWeights", "donor": value}, tmp_path / "items")
    with pytest.raises(pk.ProbekitError):
        pk.from_dict({"item": "SwapWeights", "donor": value}, tmp_path / "items")


# Modulators


FOLDERS = ["Lerp.module", "FieldModulator.module"]


@pytest.mark.parametrize("name", FOLDERS)
@given(data=st.data())
@examples(16)
def test_a_modulators_card_of_other_values(tmp_path, stored, name, data):
    card = tomllib.loads(stored[f"{name}/card.toml"].decode())
    content = as_toml(data.draw(changed_trees(card)))
    folder = put(tmp_path, stored | {f"{name}/card.toml": content}) / name
    only_reads(tmp_path, lambda: load_modulator(folder), folder)


@pytest.mark.parametrize("name", FOLDERS)
@given(data=st.data())
@examples(10)
def test_a_modulators_weights_that_were_tampered_with(tmp_path, stored, name, data):
    content = data.draw(changed_tensors(stored[f"{name}/weights.safetensors"]))
    folder = put(tmp_path, stored | {f"{name}/weights.safetensors": content}) / name
    only_reads(tmp_path, lambda: load_modulator(folder), folder)


@pytest.mark.parametrize("size", ["vocab", "d_model", "n_layers", "d_geometry"])
def test_an_enormous_modulator_is_refused_before_memory_is_asked_for(size):
    sizes: dict[str, Any] = {"d_model": 8, "n_layers": 2, "vocab": 5, "d_geometry": 3}
    sizes[size] = 10**12
    with pytest.raises(pk.ProbekitError, match=r"^the modulator takes [0-9,]+ GiB of memory, and"):
        LerpModulator(**sizes)


# Measurements

MEASURED = Measurement(
    "vdi",
    torch.rand(2, 3),
    ("layer", "head"),
    {"layer": [0, 1], "head": [0, 1, 2]},
    "nats",
    torch.rand(3),
    provenance={"probe": "VDI()"},
    rows=Measurement(
        "rows", torch.rand(2), ("query",), {"query": [0, 1]}, "nats", None, "", "none"
    ),
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> bytes:
    return MEASURED.save(tmp_path_factory.mktemp("saved") / "m").read_bytes()


def header(data: bytes) -> tuple[Any, bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


@given(data=st.data())
@examples(20)
def test_a_measurement_that_was_tampered_with(tmp_path, measured, data):
    file = tmp_path / "m"
    file.write_bytes(data.draw(changed_tensors(measured)))
    found = only_reads(tmp_path, lambda: Measurement.load(file), file)
    if found is not None:
        with refused_well(found.name):
            assert found.to_frame() is not None and repr(found) and found.excess is not None


@given(data=st.data())
@examples(30)
def test_a_measurement_of_other_words(tmp_path, measured, data):
    named, tensors = header(measured)
    words = json.loads(named["__metadata__"]["measurement"])
    changed = as_json(data.draw(changed_trees(words))).decode()
    named["__metadata__"]["measurement"] = changed
    file = tmp_path / "m"
    file.write_bytes(with_header(named, tensors))
    found = only_reads(tmp_path, lambda: Measurement.load(file), file)
    if found is not None:
        with refused_well(found.name):
            assert found.to_frame() is not None and repr(found) and found.excess is not None


def test_a_null_that_does_not_fit_is_refused():
    with pytest.raises(pk.ProbekitError) as error:
        replace(MEASURED, null=torch.rand(2))
    assert str(error.value) == (
        "measurement 'vdi': a null of shape (2,) does not broadcast to values of shape (2, 3)"
    )
