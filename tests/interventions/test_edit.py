"""Edit and SetPattern: what the function is given, and what it may return."""

import pytest
import torch
from torch import Tensor

import probekit as pk


@pytest.mark.parametrize("part", ["q", "z", "pattern", "scores"])
def test_an_edit_with_a_head_sees_that_head_s_slice_and_leaves_the_others(built, part):
    family, shapes = built("native"), []

    def triple(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return 3 * x

    record = pk.Record(f"0.{part}")
    with pk.attach(family.model, record) as clean:
        family.run()
    with pk.attach(family.model, pk.Edit(f"0.{part}:1", triple), record) as run:
        family.run()
    axis = 1 if part in ("pattern", "scores") else 2
    assert shapes == [(3, 7, 7) if axis == 1 else (3, 7, 32)]
    expected = clean["record"].values.clone()
    expected.select(axis, 1).mul_(3)
    assert torch.equal(run["record"].values, expected)


@pytest.mark.parametrize(
    "fn",
    [lambda x: x.mul_(3), lambda x: x.clone().mul_(3), lambda x: x.mul_(1) * 3],
    ids=["in place", "returned", "both"],
)
@pytest.mark.parametrize("site", ["0.z:1", "0.resid_mid", "0.resid_post", "0.pattern", "logits"])
def test_an_edit_may_write_in_place_or_return(built, site, fn):
    family = built("native")
    with pk.attach(family.model, pk.Edit(site, lambda x: 3 * x)):
        expected = family.run()
    with pk.attach(family.model, pk.Edit(site, fn)):
        assert torch.equal(family.run(), expected)


def test_set_pattern_is_an_edit_of_the_pattern(built):
    family = built("t5")
    site = "decoder.0.cross.pattern"
    with pk.attach(family.model, pk.Edit(site, lambda p: p.flip(-1))):
        expected = family.run()
    with pk.attach(family.model, pk.SetPattern(lambda p: p.flip(-1), site=site)) as run:
        assert torch.equal(family.run(), expected)
    assert list(run.fired) == ["decoder_blocks.0.cross_attn.hook_pattern"]


def none(x: Tensor) -> None:
    return None


def shorter(x: Tensor) -> Tensor:
    return x[:, 1:]


@pytest.mark.parametrize(
    ("site", "fn", "message"),
    [
        ("0.resid_pre", none, "returned NoneType; an edit returns a tensor"),
        ("0.resid_pre", shorter, "returned shape (3, 6, 64), not (3, 7, 64)"),
        ("0.z:1", shorter, "returned shape (3, 6, 32), not (3, 7, 32)"),
        ("0.resid_mid", shorter, "returned shape (3, 6, 64), not (3, 7, 64)"),
    ],
)
def test_what_an_edit_may_not_return(built, site, fn, message):
    family = built("native")
    clean, item = family.run(), pk.Edit(site, fn)
    with pytest.raises(pk.ProbekitError) as error, pk.attach(family.model, item):
        family.run()
    assert str(error.value) == f"Edit(site={site!r}, fn={fn!r}) at {site} {message}"
    assert torch.equal(family.run(), clean)
