"""Every kind of value that an item may hold, as plain data and back."""

import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from storable import MANY, Holder, assert_same
from storable import holder_is_registered as holder_is_registered
from torch import nn

import probekit as pk

dtypes = st.sampled_from([torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
tensors = st.builds(
    lambda size, dtype: torch.arange(6).view(2, 3)[:, :size].to(dtype),
    st.integers(0, 3),
    dtypes,
).map(lambda t: t.view(torch.int16) if t.dtype == torch.bfloat16 else t)  # numpy has no bfloat16
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
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


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_no_reader_takes_is_not_written(number):
    with pytest.raises(pk.ProbekitError, match=r"^Holder.value takes more than 64 bits; give a sm"):
        pk.to_dict(Holder(number))
