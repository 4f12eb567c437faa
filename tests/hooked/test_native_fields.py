"""What native models add to TransformerLens's: post-LN blocks, packed initialisation, biases."""

import pytest
import torch
from torch import nn

import probekit as pk

SMALL = {"d_model": 32, "d_head": 8, "d_mlp": 48, "n_ctx": 10, "d_vocab": 20}


def interleaved(**overrides):
    return pk.load("interleaved", seed=0, **{**SMALL, **overrides})


def torch_layer(model, layer):
    """PyTorch's own encoder layer with the weights of a native post-LN block."""
    block = model.original_model.layers[layer]
    linear = {name: getattr(block.attn, name).original_component for name in "qkvo"}
    theirs = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, batch_first=True)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([linear[n].weight for n in "qkv"]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([linear[n].bias for n in "qkv"]))
        theirs.self_attn.out_proj.load_state_dict(linear["o"].state_dict())
        for ours, own in (
            (block.mlp.fc_in, theirs.linear1),
            (block.mlp.fc_out, theirs.linear2),
            (block.ln1, theirs.norm1),
            (block.ln2, theirs.norm2),
        ):
            own.load_state_dict(ours.original_component.state_dict())
    return theirs


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
def test_a_post_norm_block_is_pytorchs_encoder_layer(direction):
    model = interleaved(n_layers=2, attention_dir=direction)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    tokens = torch.randint(20, (3, 10))
    with pk.attach(model, pk.Record("resid_pre"), pk.Record("0.resid_post", name="out")) as run:
        model(tokens)
    mask = nn.Transformer.generate_square_subsequent_mask(10) if direction == "causal" else None
    before = run["record"].values
    expected = torch_layer(model, 0)(before[0], src_mask=mask)
    torch.testing.assert_close(run["out"].values, expected)
    torch.testing.assert_close(before[1], expected)


def test_resid_mid_of_a_post_norm_block_is_the_stream_and_causal():
    model, tokens = interleaved(n_layers=2), torch.randint(20, (2, 10))
    seen = pk.Record("1.resid_mid")
    with pk.attach(model, seen, pk.Edit("1.resid_mid", torch.zeros_like)) as run:
        edited = model(tokens)
    mid = run["record"].values
    torch.testing.assert_close(mid.mean(-1), torch.zeros(2, 10), atol=1e-5, rtol=0)
    torch.testing.assert_close(mid.std(-1, correction=0), torch.ones(2, 10), atol=1e-3, rtol=0)
    # With a stream of zeros every position has the same logits.
    torch.testing.assert_close(edited, edited[:1, :1].expand_as(edited))


def test_packed_initialisation_is_that_of_multihead_attention():
    model = pk.load("interleaved", seed=1, d_vocab=10)
    attn = model.original_model.layers[0].attn
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(128, 4).requires_grad_(False)
    bound = theirs.in_proj_weight.abs().max()
    for name in "qkv":
        weight = getattr(attn, name).original_component.weight.detach()
        assert weight.abs().max() == pytest.approx(float(bound), rel=1e-3)
        torch.testing.assert_close(weight.std(), theirs.in_proj_weight.std(), rtol=0.02, atol=0)
    for name in "qkvo":
        assert not getattr(attn, name).original_component.bias.any()
    assert not theirs.in_proj_bias.any() and not theirs.out_proj.bias.any()


def test_swapping_the_unembedding_takes_its_bias_along():
    host, donor = interleaved(), pk.load("interleaved", seed=1, **SMALL)
    final = torch.randn(1, 1, 32)
    with pk.attach(host, pk.SwapWeights(donor, parts=("UNEMBED",))):
        torch.testing.assert_close(host.unembed(final), donor.unembed(final))
    assert not torch.equal(host.unembed(final), donor.unembed(final))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"attention_init": "kaiming"}, "linear or packed"), ({"attn_only": True}, "post_norm")],
)
def test_impossible_native_configs_are_refused(overrides, message):
    with pytest.raises(pk.CardError, match=message):
        interleaved(**overrides)
