"""The attention function alone: against a loop, after a cache, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from transformer_lens.hook_points import HookPoint

import probekit as pk
from probekit import seam


class Caller(nn.Module):
    is_causal = False


@pytest.mark.parametrize(
    ("argument", "meaning"),
    [("softcap", "soft-capped scores"), ("s_aux", "attention sinks"), ("cache", "a paged cache")],
)
def test_attention_that_would_be_computed_wrongly_is_refused(argument, meaning):
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(pk.ProbekitError) as error:
        seam.attention(Caller(), q, q, q, None, **{argument: torch.ones(2)})
    assert str(error.value) == (
        f"Caller uses {meaning}, which probekit's attention does not compute; load this model "
        "with TransformerLens's own bridge and eager attention"
    )
    seam.attention(Caller(), q, q, q, None, **{argument: None})


@pytest.fixture
def tapped() -> Any:
    """A calling module whose pattern is hooked, so that nothing goes to SDPA."""
    module = Caller().eval()
    taps = seam._Taps(HookPoint(), HookPoint())
    taps.pattern.add_hook(lambda pattern, hook: None)
    module.__dict__[seam._TAPS] = taps
    return module


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
def test_the_attention_function_against_a_loop(tapped, mask, causal):
    """Grouped heads, masks of both kinds, bias and scale, in float64 and one query at a time."""
    generator = torch.Generator().manual_seed(5)
    q = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 2, 5, 3, generator=generator, dtype=torch.float64)
    bias = torch.randn(1, 4, 5, 5, generator=generator, dtype=torch.float64)
    visible = torch.rand(2, 1, 5, 5, generator=generator) > 0.4
    visible[..., 0] = True
    additive = torch.zeros(2, 1, 5, 5, dtype=torch.float64).masked_fill(~visible, -1e30)
    given = {"none": None, "boolean": visible, "additive": additive}[mask]
    z, weights = seam.attention(
        tapped, q, k, v, given, scaling=0.7, is_causal=causal, position_bias=bias
    )
    assert weights is None
    for batch in range(2):
        for head in range(4):
            for query in range(5):
                keys = [
                    key
                    for key in range(5)
                    if (
                        visible[batch, 0, query, key]
                        if given is not None
                        else key <= query or not causal
                    )
                ]
                logits = [
                    0.7 * float(q[batch, head, query] @ k[batch, head // 2, key])
                    + float(bias[0, head, query, key])
                    for key in keys
                ]
                total = sum(map(math.exp, logits))
                expected = sum(
                    math.exp(s) / total * v[batch, head // 2, key]
                    for s, key in zip(logits, keys, strict=True)
                )
                torch.testing.assert_close(z[batch, query, head], expected)


def test_one_query_after_a_cache_sees_every_key(tapped):
    q, kv = torch.randn(1, 2, 1, 3), torch.randn(1, 2, 4, 3)
    z, _ = seam.attention(tapped, q, kv, kv, None, is_causal=True)
    expected = ((q @ kv.transpose(2, 3)) / 3**0.5).softmax(-1) @ kv
    torch.testing.assert_close(z, expected.transpose(1, 2))


def test_later_queries_after_a_cache_see_the_keys_before_them(tapped):
    q, kv = torch.randn(1, 2, 2, 3), torch.randn(1, 2, 4, 3)
    z, _ = seam.attention(tapped, q, kv, kv, None, is_causal=True)
    first = ((q[:, :, :1] @ kv[:, :, :3].transpose(2, 3)) / 3**0.5).softmax(-1) @ kv[:, :, :3]
    torch.testing.assert_close(z[:, 0], first[:, :, 0])


@pytest.mark.parametrize("hidden", [-1e9, -1e4, -torch.inf, torch.finfo(torch.float32).min])
def test_any_usual_mask_value_is_a_mask(hidden):
    scores = 30 * torch.randn(2, 3, 5, 5) + torch.full((5, 5), hidden).triu(1)
    visible = seam.AttentionContext(scores).visible()
    assert torch.equal(visible, torch.ones(2, 5, 5).tril().bool())
