"""The contributions at a model's sites sum to its residual stream."""

import families
import pytest
import torch
from torch import Tensor

import probekit as pk
from probekit.site import parse_site
from probekit.sitemap import SiteMap


def recorded(family: families.Family, addresses: list[str]) -> list[Tensor]:
    records = [pk.Record(address, name=address) for address in addresses]
    with pk.attach(family.model, *records) as run:
        family.run()
    return [run[address].values for address in addresses]


@pytest.mark.parametrize("family", ["bert", "bert encoder"], indirect=True)
def test_bert_adds_attn_out_before_its_norm(family):
    for layer in range(2):
        assert SiteMap(family.model).resolve(parse_site(f"{layer}.attn_out"))[0].name == (
            f"blocks.{layer}.attn.o.hook_out"
        )
        pre, attn_out, mid, mlp_out, post = recorded(
            family,
            [
                f"{layer}.{p}"
                for p in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
            ],
        )
        bert = getattr(family.eager, "bert", family.eager)
        hf = bert.encoder.layer[layer]
        expected = hf.attention.output.LayerNorm(pre + attn_out)
        torch.testing.assert_close(mid, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(post, hf.output.LayerNorm(mid + mlp_out), rtol=0, atol=1e-5)


PRE_NORM = [("native", ""), ("gpt2", ""), ("vit", ""), ("dinov2", ""), ("t5", "encoder.")]
PRE_NORM += [("clip", "text."), ("clip", "vision.")]


@pytest.mark.parametrize(("name", "stack"), PRE_NORM)
def test_pre_norm_blocks_sum_to_the_residual(built, name, stack):
    for layer in range(3 if stack == "vision." else 2):
        pre, attn_out, mid, mlp_out, post = recorded(
            built(name),
            [
                f"{stack}{layer}.{part}"
                for part in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
            ],
        )
        torch.testing.assert_close(mid, pre + attn_out, rtol=0, atol=1e-5)
        torch.testing.assert_close(post, mid + mlp_out, rtol=0, atol=1e-5)
        assert attn_out.abs().max() > 1e-3 and mlp_out.abs().max() > 1e-3


def test_the_decoder_of_t5_sums_to_the_residual(built):
    for layer in range(2):
        parts = ("resid_pre", "self.attn_out", "self.resid_mid", "cross.attn_out")
        parts += ("cross.resid_mid", "mlp_out", "resid_post")
        pre, attn_out, mid, cross_out, mid2, mlp_out, post = recorded(
            built("t5"), [f"decoder.{layer}.{part}" for part in parts]
        )
        torch.testing.assert_close(mid, pre + attn_out, rtol=0, atol=1e-5)
        torch.testing.assert_close(mid2, mid + cross_out, rtol=0, atol=1e-5)
        torch.testing.assert_close(post, mid2 + mlp_out, rtol=0, atol=1e-5)
        assert min(t.abs().max() for t in (attn_out, cross_out, mlp_out)) > 1e-3
