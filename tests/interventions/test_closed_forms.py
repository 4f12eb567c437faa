"""Interventions against each other and against weights edited by hand."""

from typing import Any

import pytest
import torch
from checks import assert_close_to_largest
from families import ALL, Family
from torch import Tensor

import probekit as pk
from probekit.hooked.selection import Selection

#: Models whose scores hold nothing but q . k and the mask.
WITHOUT_POSITION_BIAS = ["native", "gpt2", "bert", "vit", "clip", "dinov2"]
STACK = {"t5": "encoder", "clip": "text"}


def _with_rows_scaled(family: Family, where: dict[str, Any], omega: float) -> Tensor:
    """The output with one head's part of W_O scaled by hand."""
    (part,) = Selection(("O",), layers=(0,), heads=(1,), **where).find(family.model)
    before = part.view.clone()
    with torch.no_grad():
        part.view.mul_(omega)
        output = family.run()
        part.view.copy_(before)
    return output


@pytest.mark.parametrize("omega", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("family", ALL, indirect=True)
def test_head_scale_is_the_heads_part_of_w_o_scaled(family: Family, omega: float) -> None:
    where = {"stack": STACK[family.name]} if family.name in STACK else {}
    expected = _with_rows_scaled(family, where, omega)
    with pk.attach(family.model, pk.HeadScale(0, 1, omega, **where)):
        assert_close_to_largest(family.run(), expected)


def test_head_scale_in_cross_attention(built) -> None:
    family, where = built("t5"), {"stack": "decoder", "attn": "cross"}
    expected = _with_rows_scaled(family, where, 0.5)
    with pk.attach(family.model, pk.HeadScale(0, 1, 0.5, **where)):
        assert_close_to_largest(family.run(), expected)


def _uniform(pattern: Tensor) -> Tensor:
    visible = (pattern > 0).to(pattern.dtype)
    return visible / visible.sum(-1, keepdim=True)


@pytest.mark.parametrize("family", WITHOUT_POSITION_BIAS, indirect=True)
def test_a_uniform_pattern_is_q_of_zero(family: Family) -> None:
    with pk.attach(family.model, pk.SetPattern(_uniform)):
        expected = family.run()
    with pk.attach(family.model, pk.SwapWeights("zero", ("Q",))), pk.attach(family.model, pk.VDI()):
        assert_close_to_largest(family.run(), expected)


def test_t5_has_a_position_bias_that_remains(built) -> None:
    family = built("t5")
    with pk.attach(family.model, pk.SwapWeights("zero", ("Q",)), pk.VDI()) as run:
        family.run()
    assert run["vdi"].excess.abs().max() > 1e-3
    with pk.attach(family.model, pk.SwapWeights("zero", ("Q", "POS")), pk.VDI()) as run:
        family.run()
    torch.testing.assert_close(run["vdi"].excess, torch.zeros_like(run["vdi"].excess))


@pytest.mark.parametrize("family", ALL, indirect=True)
def test_no_attention_out_is_o_of_zero(family: Family) -> None:
    with pk.attach(family.model, pk.SwapWeights("zero", ("O",))):
        expected = family.run()
    with pk.attach(family.model, pk.AttentionScale(0)):
        assert_close_to_largest(family.run(), expected)
