"""Edited, the output is the consequence of the edit: recomputed by hand, or by another edit."""

import families
import pytest
import torch
from checks import assert_close_to_largest
from torch import Tensor

import probekit as pk

PATTERNS = [
    (name, pattern) for name, build in families.SEAM.items() for pattern in build().attentions
]


NATIVE_TOO = [("native", "0.pattern"), *PATTERNS]


def scores_by_hand(family: families.Family, site: str, q: Tensor, k: Tensor) -> Tensor:
    """q·k times the family's scale, plus position bias and mask, built from the eager model."""
    t5 = family.name == "t5"
    scale = 1.0 if t5 else q.shape[-1] ** -0.5
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
    queries, keys = scores.shape[-2:]
    cross = ".cross." in site
    if t5 and not cross:
        stack = site.split(".")[0]
        first = getattr(family.eager, stack).block[0].layer[0].SelfAttention
        scores = scores + first.compute_bias(queries, keys).detach()
    causal = site.startswith(("decoder.0.self", "text."))
    if causal or family.name == "native":
        scores = scores.masked_fill(~torch.ones(queries, keys).tril().bool(), -torch.inf)
    padded = family.kwargs.get("attention_mask")
    if padded is not None and not site.startswith(("decoder.0.self", "vision.")):
        scores = scores.masked_fill(padded[:, None, None] == 0, -torch.inf)
    return scores


@pytest.mark.parametrize(("name", "site"), NATIVE_TOO)
def test_half_of_one_head_s_pattern_is_what_a_recomputation_gives(built, name, site):
    family, at = built(name), site.removesuffix("pattern")
    clean = family.run()
    records = [pk.Record(f"{at}{part}", name=part) for part in ("q", "k", "v", "z", "pattern")]
    half = pk.SetPattern(lambda pattern: 0.5 * pattern, site=f"{site}:1")
    with pk.attach(family.model, half, *records) as run:
        edited = family.run()
    q, k, v, z, pattern = (run[part].values for part in ("q", "k", "v", "z", "pattern"))

    expected = scores_by_hand(family, site, q, k).softmax(-1)
    expected[:, 1] *= 0.5
    torch.testing.assert_close(pattern, expected, rtol=0, atol=1e-5)
    expected_z = torch.einsum("bhqk,bkhd->bqhd", expected, v)
    torch.testing.assert_close(z, expected_z, rtol=0, atol=1e-5)
    assert (edited - clean).abs().max() > 1e-4 * clean.abs().max()


@pytest.mark.parametrize(("name", "site"), NATIVE_TOO)
def test_the_output_follows_from_the_edited_z_alone(built, name, site):
    """Halving a head's pattern equals halving its z: nothing else may have changed."""
    family = built(name)
    z_site = site.replace("pattern", "z:1")
    half = pk.SetPattern(lambda pattern: 0.5 * pattern, site=f"{site}:1")
    with pk.attach(family.model, half):
        by_pattern = family.run()
    with pk.attach(family.model, pk.Edit(z_site, lambda z: 0.5 * z)):
        by_z = family.run()
    assert_close_to_largest(by_pattern, by_z)


@pytest.mark.parametrize(("name", "site"), NATIVE_TOO)
def test_a_masked_score_is_a_renormalised_pattern(built, name, site):
    family, scores_site = built(name), site.replace("pattern", "scores")

    def hide_first_key(scores: Tensor) -> Tensor:
        hidden = scores.clone()
        hidden[:, :, 1:, 0] = -torch.inf
        return hidden

    def renormalised(pattern: Tensor) -> Tensor:
        rest = pattern.clone()
        rest[:, :, 1:, 0] = 0
        return rest / rest.sum(-1, keepdim=True)

    with pk.attach(family.model, pk.Edit(scores_site, hide_first_key)):
        by_scores = family.run()
    with pk.attach(family.model, pk.SetPattern(renormalised, site=site)):
        by_pattern = family.run()
    assert_close_to_largest(by_scores, by_pattern)
    assert (by_scores - family.run()).abs().max() > 1e-5 * by_scores.abs().max()


@pytest.mark.parametrize(("name", "site"), NATIVE_TOO)
def test_gradients_flow_through_an_edited_pattern(built, name, site):
    """The derivative of a loss in the factor on one head's pattern, against differences."""
    family = built(name)
    probe = torch.randn(family.run().shape, generator=torch.Generator().manual_seed(3))

    def loss(omega: Tensor) -> Tensor:
        item = pk.SetPattern(lambda pattern: omega * pattern, site=f"{site}:1")
        with pk.attach(family.model, item):
            output = family.output(family.model(*family.args, **family.kwargs))
        return (output * probe).sum()

    omega = torch.tensor(0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(omega), omega)
    step = 0.05  # in float32: of fourth order, so that the step can stay well above rounding
    with torch.no_grad():
        near = loss(omega + step) - loss(omega - step)
        far = loss(omega + 2 * step) - loss(omega - 2 * step)
    difference = (8 * near - far) / (12 * step)
    assert difference.abs() > 1e-3
    torch.testing.assert_close(slope, difference, rtol=2e-2, atol=1e-3)
