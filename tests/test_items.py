"""Items as values: their parameters are checked, their repr evaluates to them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import probekit as pk


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pk.HeadScale(0, 0, float("nan")), "omega must be a finite number, not nan"),
        (lambda: pk.AttentionScale(float("inf")), "alpha must be a finite number, not inf"),
        (
            lambda: pk.SetPattern(abs, site="0.z"),
            "SetPattern edits a pattern, not '0.z'; use pk.Edit",
        ),
        (lambda: pk.Edit("0.mlp_pos", abs), "site '0.mlp_pos': unknown part 'mlp_pos'; "),
        (
            lambda: pk.HeadScale(0, 0, 1, attn="crss"),
            "unknown attn 'crss'; valid: self, cross; closest: 'cross'",
        ),
        (
            lambda: unchecked(pk.Edit, "0.z", 3),
            "fn must be a function of a tensor, not int",
        ),
    ],
)
def test_parameters_that_mean_nothing(make: Callable[[], Any], message):
    with pytest.raises(pk.ProbekitError) as error:
        item = make()
        item.sites()
    text = str(error.value)
    assert text.startswith(message) if message.endswith("; ") else text == message


def unchecked(cls: type, *args: Any) -> Any:
    """Call ``__post_init__`` on fields that the type check of tests would not let through."""
    item = object.__new__(cls)
    for field, value in zip(dataclasses.fields(cls), args, strict=True):
        object.__setattr__(item, field.name, value)
    item.__post_init__()
    return item


ITEMS = [
    pk.HeadScale(layer=1, head=2, omega=-0.5, stack="decoder", attn="cross"),
    pk.AttentionScale(0.25, layer=-1, stack="text"),
    pk.VDI(normaliser="visible", order="pattern-first", queries=(5,), site="0.pattern:1"),
    pk.AttentionEntropy(queries=(-1,), iterations=3, name="nats"),
    pk.Record(pk.Site("z", slice(0, 2), 1), differentiable=True),
]


@pytest.mark.parametrize("item", ITEMS)
def test_the_repr_of_an_item_evaluates_to_the_item(item):
    names = {**vars(pk), "Site": pk.Site} | {type(item).__name__: type(item)}
    assert eval(repr(item), names) == item


@pytest.mark.parametrize("item", ITEMS)
def test_items_are_frozen(item):
    with pytest.raises(AttributeError):
        item.site = "z"


@pytest.mark.parametrize("layer", [np.int64(1), np.int32(1), torch.tensor(1)])
def test_numbers_of_a_table_are_numbers(layer):
    head = np.uint8(2)
    expected = pk.HeadScale(1, 2, 0.5)
    if isinstance(layer, np.generic):
        item = unchecked(pk.HeadScale, layer, head, np.float32(0.5), None, None)
        assert repr(item) == repr(expected) and pk.to_dict(item) == pk.to_dict(expected)
    (site,) = expected.sites()
    assert str(unchecked(pk.Site, "z", layer, head, None, None)) == str(site) == "1.z:2"


@pytest.mark.parametrize("layer", [1.7, np.float64(2.0), torch.tensor(1.7), np.array([1]), "1"])
def test_what_is_no_whole_number_is_no_layer(layer):
    with pytest.raises(pk.ProbekitError, match=r"^layer must be a whole number or a slice, not"):
        unchecked(pk.Site, "z", layer, None, None, None)
