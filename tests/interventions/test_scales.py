"""HeadScale and AttentionScale against edits of the weights of an untouched eager copy."""

import copy
from functools import reduce
from typing import Any

import families
import pytest
import torch
from checks import assert_close_to_largest
from torch import Tensor, nn
from unchecked import unchecked

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


@pytest.mark.parametrize("factor", [True, "1", None, float("nan"), float("inf")])
def test_a_factor_that_is_no_finite_number_is_refused(factor):
    with pytest.raises(pk.ProbekitError, match="alpha must be a finite number, not"):
        unchecked(pk.AttentionScale, factor)
    with pytest.raises(pk.ProbekitError, match="omega must be a finite number, not"):
        unchecked(pk.HeadScale, 0, 0, factor)


def test_a_layer_that_is_none_is_refused():
    layer = True  # of what is no layer, what beartype lets through to Site
    with pytest.raises(pk.SiteError, match="layer must be a whole number or a slice, not"):
        unchecked(pk.AttentionScale, 0.5, layer=layer)
    with pytest.raises(pk.SiteError, match="layer must be a whole number or a slice, not"):
        unchecked(pk.HeadScale, layer, 0, 0.5)


def test_attention_scale_of_one_stack(built):
    family = built("t5")
    with pk.attach(family.model, pk.AttentionScale(0, stack="encoder")) as run:
        family.run()
    assert list(run.fired) == ["encoder_blocks.0.hook_attn_out", "encoder_blocks.1.hook_attn_out"]
