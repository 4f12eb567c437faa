"""Which parameter goes where; what the published grouping leaves out."""

from families import tiny_native

from probekit.hooked.model import weights
from probekit.training import complete_groups, published_groups


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
