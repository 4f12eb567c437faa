"""What VDI reads of uniform attention: the published numbers, and the null of real models."""

import math
from typing import Any

import families
import pytest
import torch
from torch import Tensor

import probekit as pk


def toy(attention_dir: str = "causal") -> Any:
    return pk.load("grokking", seed=0, n_ctx=6, d_vocab=10, attention_dir=attention_dir)


def uniform(pattern: Tensor) -> Tensor:
    return (pattern > 0).to(pattern.dtype) / (pattern > 0).sum(-1, keepdim=True)


def one_hot_last(pattern: Tensor) -> Tensor:
    pattern = uniform(pattern)
    pattern[:, :, -1] = 0
    pattern[:, :, -1, 2] = 1
    return pattern


@pytest.mark.parametrize(
    ("direction", "fn", "normaliser", "value"),
    [
        ("causal", uniform, "length", 0.611992),
        ("bidirectional", uniform, "length", 1.0),
        ("causal", uniform, "visible", 1.0),
        ("causal", one_hot_last, "length", 0.445325),
    ],
)
def test_the_published_numbers(direction, fn, normaliser, value, order):
    model, ids = toy(direction), torch.arange(6).repeat(2, 1)
    vdi = pk.VDI(normaliser=normaliser, order=order)
    with pk.attach(model, pk.SetPattern(fn), vdi) as run:
        model(ids)
    result = run["vdi"]
    assert result.dims == ("layer", "head") and result.values.shape == (1, 2)
    assert result.values.tolist() == [[pytest.approx(value, abs=1e-6)] * 2]
    null = {"causal": math.log(720) / (6 * math.log(6)), "bidirectional": 1.0}[direction]
    null = 1.0 if normaliser == "visible" else null
    assert result.null.tolist() == [[pytest.approx(null, abs=1e-6)] * 2]
    assert result.units == "fraction of " + (
        "ln T" if normaliser == "length" else "ln(visible keys)"
    )


@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_the_null_is_what_uniform_attention_reads(family, normaliser, order):
    vdi = pk.VDI(normaliser=normaliser, order=order)
    with pk.attach(family.model, vdi) as clean:
        family.run()
    with pk.attach(family.model, pk.SetPattern(uniform), vdi) as run:
        family.run()
    for result in (run["vdi"], run["vdi"].rows):
        torch.testing.assert_close(result.values, result.null, rtol=0, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(run["vdi"].null, clean["vdi"].null, equal_nan=True)
    assert (clean["vdi"].excess.nan_to_num() != 0).any()


def test_the_null_of_causal_attention_that_transformer_lens_computes(built):
    """GPT-2's attention is TransformerLens's own: its mask comes from the score hook."""
    family = built("gpt2")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    expected = math.lgamma(8) / (7 * math.log(7))
    assert run["vdi"].null.unique().tolist() == [pytest.approx(expected, abs=1e-6)]
    torch.testing.assert_close(
        run["vdi"].rows.null[0, 0],
        torch.arange(1, 8, dtype=torch.float64).log() / math.log(7),
    )


@pytest.mark.parametrize("name", ["native", "text"])
def test_the_null_of_causal_attention_through_the_seam(built, name):
    family = built("native" if name == "native" else "clip")
    site = "0.pattern" if name == "native" else "text.0.pattern"
    with pk.attach(family.model, pk.VDI(site=site)) as run:
        family.run()
    lengths = [7, 7, 7] if name == "native" else [7, 4, 6]
    total = sum(math.lgamma(n + 1) / math.log(n) for n in lengths)
    expected = total / sum(lengths)
    assert run["vdi"].null.unique().tolist() == [pytest.approx(expected, abs=1e-6)]
