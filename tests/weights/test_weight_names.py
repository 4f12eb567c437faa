"""The rules of names, one example a family and type, and the refusal of a model known in part."""

import doctest

import pytest

from probekit.errors import ProbekitError
from probekit.weights import check_complete, names, place

NAMES = {
    "encoder.layer.3.attention.self.key.weight": ("k", "encoder", 3, "weight"),
    "bert.encoder.layer.3.attention.output.dense.bias": ("o", "encoder", 3, "bias"),
    "encoder.layer.3.attention.output.LayerNorm.weight": ("norm", "encoder", 3, "weight"),
    "encoder.layer.3.intermediate.dense.weight": ("mlp_up", "encoder", 3, "weight"),
    "encoder.layer.3.output.dense.weight": ("mlp_down", "encoder", 3, "weight"),
    "embeddings.word_embeddings.weight": ("embedding", "", None, "weight"),
    "embeddings.LayerNorm.bias": ("norm", "", None, "bias"),
    "pooler.dense.weight": ("pooler", "", None, "weight"),
    "decoder.block.2.layer.0.SelfAttention.q.weight": ("q", "decoder", 2, "weight"),
    "decoder.block.2.layer.1.EncDecAttention.o.weight": ("cross_o", "decoder", 2, "weight"),
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
        "position_bias",
        "decoder",
        0,
        "weight",
    ),
    # Old checkpoints have one that the model never reads.
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": (
        "other",
        "decoder",
        0,
        "weight",
    ),
    "blocks.4.attn.qkv.weight": ("qkv", "", 4, "weight"),
    "blocks.4.attn.proj.weight": ("o", "", 4, "weight"),
    "encoder.block.2.layer.1.DenseReluDense.wi.weight": ("mlp_up", "encoder", 2, "weight"),
    "encoder.block.2.layer.1.DenseReluDense.wi_0.weight": ("mlp_gate", "encoder", 2, "weight"),
    "encoder.block.2.layer.1.DenseReluDense.wi_1.weight": ("mlp_up", "encoder", 2, "weight"),
    "encoder.block.2.layer.1.DenseReluDense.wo.weight": ("mlp_down", "encoder", 2, "weight"),
    "encoder.block.2.layer.1.layer_norm.weight": ("norm", "encoder", 2, "weight"),
    "shared.weight": ("embedding", "", None, "weight"),
    "lm_head.weight": ("other", "", None, "weight"),
    "text_model.encoder.layers.1.self_attn.out_proj.weight": ("o", "text", 1, "weight"),
    "vision_model.encoder.layers.1.mlp.fc2.weight": ("mlp_down", "vision", 1, "weight"),
    "vision_model.pre_layrnorm.weight": ("norm", "vision", None, "weight"),
    "visual_projection.weight": ("projection", "", None, "weight"),
    "visual.transformer.resblocks.7.attn.in_proj_weight": ("qkv", "vision", 7, "weight"),
    "visual.transformer.resblocks.7.attn.in_proj_bias": ("qkv", "vision", 7, "bias"),
    "transformer.resblocks.7.mlp.c_proj.weight": ("mlp_down", "", 7, "weight"),
    "visual.proj": ("projection", "vision", None, "weight"),
    "dinov2.encoder.layer.0.attention.attention.value.weight": ("v", "encoder", 0, "weight"),
    "encoder.layer.0.mlp.weights_in.weight": ("mlp_gate_up", "encoder", 0, "weight"),
    "encoder.layer.0.layer_scale1.lambda1": ("other", "encoder", 0, "weight"),
    "layers.0.attention.o_proj.weight": ("o", "", 0, "weight"),
    "transformer.h.0.attn.c_proj.weight": ("o", "", 0, "weight"),
    "transformer.h.0.mlp.c_proj.weight": ("mlp_down", "", 0, "weight"),
    "model.layers.5.mlp.gate_proj.weight": ("mlp_gate", "", 5, "weight"),
    "model.layers.5.self_attn.q_norm.weight": ("norm", "", 5, "weight"),
    "model.layers.5.linear_attn.out_proj.weight": ("other", "", 5, "weight"),
    "mtp.layers.0.self_attn.q_proj.weight": ("other", "", None, "weight"),
    "layers.0.mlp.fc_out.weight": ("mlp_down", "", 0, "weight"),
    "unembed.weight": ("other", "", None, "weight"),
}


@pytest.mark.parametrize("name", NAMES)
def test_places(name):
    found = place(name)
    assert (found.type, found.stack, found.layer, found.kind) == NAMES[name]


def test_examples_in_docstrings():
    assert doctest.testmod(names) == (0, 1)


def layers(*types: str, depth: int) -> list[str]:
    known = {"q": "self_attn.q_proj", "up": "mlp.up_proj"}
    return [f"model.layers.{i}.{known[t]}.weight" for i in range(depth) for t in types]


def test_complete_models():
    check_complete(map(place, layers("q", "up", depth=3)))
    check_complete(map(place, layers("q", "up", depth=3)), {"": 3})
    hybrid = [*layers("up", depth=4), *layers("q", depth=1)]
    check_complete(map(place, hybrid), {"": 4}, {"": 1})


def test_a_missing_layer_is_refused():
    lacking = layers("q", "up", depth=3)[:-1]
    message = (
        r"^every layer needs one matrix of each type, but there are mlp_up: 2 of 3; found: model "
        r"has 3 q, 2 mlp_up$"
    )
    with pytest.raises(ProbekitError, match=message):
        check_complete(map(place, lacking))
    with pytest.raises(ProbekitError, match=r"there are q: 3 of 4, mlp_up: 3 of 4; found"):
        check_complete(map(place, layers("q", "up", depth=3)), {"": 4})


def test_a_stack_without_queries_is_refused():
    known = [place("layers.0.mlp.up_proj.weight"), place("layers.0.mlp.down_proj.weight")]
    with pytest.raises(ProbekitError, match="q: 0 of 1"):
        check_complete(known)


def test_nothing_recognised():
    with pytest.raises(ProbekitError, match=r"^no query, key or MLP matrices were recognised by"):
        check_complete([place("tower.weight")])
