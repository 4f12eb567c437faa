"""Which parameter goes where; what the published grouping leaves out."""

import pytest
from families import tiny_native

from probekit.hooked.model import weights
from probekit.training import complete_groups, published_groups
from probekit.training.timescales import BETAS


def test_the_published_grouping_leaves_out_unembedding_and_final_norm() -> None:
    groups = published_groups(weights(tiny_native()))
    assert groups["left out"] == ["ln_out.weight", "ln_out.bias", "head.weight"]
    assert all(name.startswith("layers.0.") for name in groups["fast"])
    assert {"tok_embed.weight", "pos.weight", "layers.1.attn.q.weight"} <= set(groups["slow"])


def test_the_complete_grouping_holds_every_parameter_once() -> None:
    names = list(weights(tiny_native()))
    groups = complete_groups(names)
    assert sorted(groups["fast"] + groups["slow"]) == sorted(names)
    assert groups["fast"] == published_groups(names)["fast"]


def test_the_fast_group_forgets_in_twenty_steps_and_the_slow_in_a_hundred() -> None:
    (_, fast), (_, slow) = BETAS
    assert (1 / (1 - fast), 1 / (1 - slow)) == pytest.approx((20, 100))
