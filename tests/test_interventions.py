"""The interventions against edits of the weights of an untouched eager copy, and their checks."""

import copy
import dataclasses
from collections.abc import Callable
from functools import reduce
from typing import Any

import families
import pytest
import torch
from torch import Tensor, nn

import probekit as pk


def at(model: nn.Module, path: str) -> Any:
    return reduce(lambda here, name: getattr(here, name), path.split("."), model)


#: family, stack, attn, and where Hugging Face keeps the output projection of a layer.
OUTPUTS: list[tuple[str, str | None, str | None, str]] = [
    ("native", None, None, "layers.{}.attn.o"),
    ("gpt2", None, None, "transformer.h.{}.attn.c_proj"),
    ("bert", None, None, "bert.encoder.layer.{}.attention.output.dense"),
    ("bert encoder", None, None, "encoder.layer.{}.attention.output.dense"),
    ("t5", "encoder", None, "encoder.block.{}.layer.0.SelfAttention.o"),
    ("t5", "decoder", "self", "decoder.block.{}.layer.0.SelfAttention.o"),
    ("t5", "decoder", "cross", "decoder.block.{}.layer.1.EncDecAttention.o"),
    ("vit", None, None, "layers.{}.attention.o_proj"),
    ("clip", "text", None, "text_model.encoder.layers.{}.self_attn.out_proj"),
    ("clip", "vision", None, "vision_model.encoder.layers.{}.self_attn.out_proj"),
    ("dinov2", None, None, "encoder.layer.{}.attention.o_proj"),
]


def reference(family: families.Family) -> nn.Module:
    """A copy of the model without probekit, whose weights may be edited."""
    if family.eager is not None:
        return copy.deepcopy(family.eager)
    return copy.deepcopy(family.model)  # native: there is no other implementation


def output_of(family: families.Family, model: nn.Module) -> Tensor:
    native = family.eager is None
    with torch.no_grad():
        return family.output(
            model(*family.args) if native else model(**family.hf_kwargs)  # type: ignore[misc]
        )


def projection(model: nn.Module, path: str, layer: int) -> Any:
    inner = getattr(model, "original_model", model)
    module = at(inner, path.format(layer))
    return getattr(module, "original_component", module)


def columns(module: Any, head: slice) -> Tensor:
    """What W_O holds for a head: Linear stores [out, in], GPT-2's Conv1D [in, out]."""
    return module.weight[:, head] if isinstance(module, nn.Linear) else module.weight[head]


def assert_close_to_largest(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("omega", [0, 0.5, -1.5])
@pytest.mark.parametrize(("name", "stack", "attn", "path"), OUTPUTS)
def test_head_scale_is_a_scaling_of_that_head_s_rows_of_w_o(built, name, stack, attn, path, omega):
    family, layer, head = built(name), 1, 1
    edited = reference(family)
    module = projection(edited, path, layer)
    heads = (family.model.cfg.vision if stack == "vision" else family.model.cfg).n_heads
    inputs = module.weight.shape[1 if isinstance(module, nn.Linear) else 0]
    d_head = inputs // heads
    with torch.no_grad():
        columns(module, slice(head * d_head, (head + 1) * d_head)).mul_(omega)
    item = pk.HeadScale(layer=layer, head=head, omega=omega, stack=stack, attn=attn)
    with pk.attach(family.model, item):
        scaled = family.run()
    assert_close_to_largest(scaled, output_of(family, edited))
    assert not torch.equal(scaled, family.run())


@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_head_scale_of_one_changes_no_bit(family):
    clean = family.run()
    heads = [pk.HeadScale(layer=layer, head=head, omega=1) for layer in (0, 1) for head in (0, 1)]
    with pk.attach(family.model, *heads) as run:
        assert torch.equal(family.run(), clean)
    assert {row.edit for row in run.receipt.rows} == {"none"}


@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_attention_scale_of_one_changes_no_bit(family):
    clean = family.run()
    with pk.attach(family.model, pk.AttentionScale(1)):
        assert torch.equal(family.run(), clean)


@pytest.mark.parametrize("alpha", [0, 0.5])
@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_attention_scale_is_a_scaling_of_w_o_and_its_bias(family, layer, alpha):
    edited = reference(family)
    layers = (0, 1) if layer is None else (layer,)
    for name, stack, _, path in OUTPUTS:
        depth = (0, 1, 2) if layer is None and stack == "vision" else layers
        for index in depth if name == family.name else ():
            module = projection(edited, path, index)
            with torch.no_grad():
                module.weight.mul_(alpha)
                if getattr(module, "bias", None) is not None:
                    module.bias.mul_(alpha)
    with pk.attach(family.model, pk.AttentionScale(alpha, layer=layer)):
        scaled = family.run()
    assert_close_to_largest(scaled, output_of(family, edited))
    assert not torch.equal(scaled, family.run())


def test_attention_scale_of_one_stack():
    family = families.t5()
    with pk.attach(family.model, pk.AttentionScale(0, stack="encoder")) as run:
        family.run()
    assert list(run.fired) == ["encoder_blocks.0.hook_attn_out", "encoder_blocks.1.hook_attn_out"]


# Edit and SetPattern


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


# Parameters


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
