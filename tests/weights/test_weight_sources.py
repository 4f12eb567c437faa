"""Folders and models hold the same matrices; fused ones split as the module's forward does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertModel,
    CLIPModel,
    Dinov2Model,
    GPT2LMHeadModel,
    PreTrainedModel,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5ForConditionalGeneration,
    ViTModel,
)

from probekit.errors import ProbekitError
from probekit.weights import WeightSource, read_weights
from probekit.weights.input_norms import input_norms

QWEN: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
    "head_dim": 8,
}


def gated_t5() -> PreTrainedModel:
    sizes: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return T5ForConditionalGeneration(families.tiny_t5(**sizes))


def qwen3_5() -> PreTrainedModel:
    linear: dict[str, Any] = {"linear_num_value_heads": 2, "linear_num_key_heads": 2}
    return Qwen3_5ForCausalLM(Qwen3_5TextConfig(num_hidden_layers=4, **linear, **QWEN))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(families.tiny_bert()),
    "t5": lambda: T5ForConditionalGeneration(families.tiny_t5()),
    "t5 gated": gated_t5,
    "clip": lambda: CLIPModel(families.tiny_clip()),
    "dinov2": lambda: Dinov2Model(families.tiny_dinov2()),
    "dinov2 gated": lambda: Dinov2Model(families.tiny_dinov2(use_swiglu_ffn=True)),
    "vit": lambda: ViTModel(families.tiny_vit()),
    "gpt2": lambda: GPT2LMHeadModel(families.tiny_gpt2()),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=2, **QWEN)),
    "qwen3.5": qwen3_5,
}


def matrices(source: WeightSource) -> dict[tuple, Tensor]:
    return {
        (e.type, e.stack, e.layer): e.read()
        for e in source.entries
        if e.layer is not None and e.is_matrix and e.type != "other"
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_holds_what_the_model_does(name, tmp_path):
    model = MODELS[name]()
    model.save_pretrained(tmp_path)
    folder, memory = read_weights(tmp_path), read_weights(model)
    stored, kept = matrices(folder), matrices(memory)
    assert stored.keys() == kept.keys()
    for key, matrix in kept.items():
        assert torch.equal(stored[key], matrix), key
    assert folder.heads == memory.heads and None not in folder.heads.values()
    assert folder.post_norm == memory.post_norm == (name == "bert")
    for stack in memory.stacks:
        roles = input_norms(memory, stack)
        assert roles.keys() == input_norms(folder, stack).keys()
        depth = 1 + max(layer for _, s, layer in kept if s == stack)
        needed = {(i, role) for i in range(depth) for role in ("attention", "mlp")}
        assert needed <= roles.keys(), name


@pytest.mark.parametrize("name", ["native", "bert", "t5", "clip", "dinov2", "vit"])
def test_hooked_models(name, built):
    family = built(name)
    source = read_weights(family.model)
    types = {e.type for e in source.entries if e.is_matrix and e.layer is not None}
    assert {"q", "k", "v", "o", "mlp_up", "mlp_down"} <= types
    if family.eager is not None:
        expected = matrices(read_weights(family.eager))
        ours = matrices(source)
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_open_clips_fused_projection(tmp_path):
    """torch's own attention, whose in_proj_weight open_clip keeps."""
    d, torch_attention = 12, nn.MultiheadAttention(12, 3)
    tensors: dict[str, Tensor] = {"visual.proj": torch.randn(d, 4)}
    for tower in ("visual.transformer", "transformer"):
        tensors |= {
            f"{tower}.resblocks.0.attn.{name}": tensor.detach().clone()
            for name, tensor in torch_attention.named_parameters()
        }
        tensors[f"{tower}.resblocks.0.mlp.c_fc.weight"] = torch.randn(48, d)
        tensors[f"{tower}.resblocks.0.mlp.c_proj.weight"] = torch.randn(d, 48)
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    towers = {
        "vision_cfg": {"width": d, "head_width": 4, "layers": 1},
        "text_cfg": {"width": d, "heads": 6, "layers": 1},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": towers}))
    source = read_weights(tmp_path)
    assert source.heads == {"vision": 3, "text": 6}
    x = torch.randn(5, d)
    q, k, v = nn.functional._in_projection_packed(  # type: ignore[attr-defined]
        x, x, x, torch_attention.in_proj_weight, torch_attention.in_proj_bias
    )
    for type, expected in (("q", q), ("k", k), ("v", v)):
        weight = source.find(type, "vision")[0].read()
        bias = source.find(type, "vision", "bias")[0].read()
        torch.testing.assert_close(x @ weight.T + bias, expected.detach())


def test_gpt2s_transposed_projection():
    model: Any = GPT2LMHeadModel(families.tiny_gpt2())
    source, x = read_weights(model), torch.randn(5, 32)
    block = model.transformer.h[1]
    expected = block.attn.c_attn(x).split(32, dim=-1)
    for type, value in zip("qkv", expected, strict=True):
        weight, bias = (source.find(type, "", kind)[1].read() for kind in ("weight", "bias"))
        torch.testing.assert_close(x @ weight.T + bias, value.detach())
    up = source.find("mlp_up", "")[1].read()
    torch.testing.assert_close(x @ up.T + block.mlp.c_fc.bias.detach(), block.mlp.c_fc(x).detach())


def test_qwen3_5_queries_are_told_from_their_gates():
    model = qwen3_5()
    source = read_weights(model)
    assert list(source.find("q", "")) == [3] and source.heads == {"": 4}
    projection = model.model.layers[3].self_attn.q_proj
    x = torch.randn(5, 32)
    queries, gates = projection(x).view(5, 4, 16).chunk(2, dim=-1)
    for type, value in (("q", queries), ("q_gate", gates)):
        torch.testing.assert_close(x @ source.find(type, "")[3].read().T, value.flatten(1).detach())
    gamma = input_norms(source, "")[3, "attention"].gamma.read()
    torch.testing.assert_close(gamma, 1 + model.model.layers[3].input_layernorm.weight.detach())


def test_berts_norms_follow_what_they_scale():
    model = BertModel(families.tiny_bert())
    norms = input_norms(read_weights(model), "")
    names = {place: norm.gamma.name for place, norm in norms.items()}
    assert names[0, "attention"] == "embeddings.LayerNorm.weight"
    assert names[0, "mlp"] == "encoder.layer.0.attention.output.LayerNorm.weight"
    assert names[1, "attention"] == "encoder.layer.0.output.LayerNorm.weight"


def test_a_t5_decoder_has_a_norm_before_each_of_three():
    norms = input_norms(read_weights(T5ForConditionalGeneration(families.tiny_t5())), "decoder")
    stem = "decoder.block.1.layer"
    for at, role in enumerate(("attention", "cross", "mlp")):
        assert norms[1, role].gamma.name == f"{stem}.{at}.layer_norm.weight"


def test_shards_with_an_index(tmp_path):
    model: Any = BertModel(families.tiny_bert())
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    source = read_weights(tmp_path)
    assert torch.equal(
        source.find("mlp_up", "")[1].read(), model.encoder.layer[1].intermediate.dense.weight
    )
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(ProbekitError, match=r" lacks model-.*; give a folder that save_pretrained"):
        read_weights(tmp_path)


def test_a_config_gives_seeded_random_weights():
    config = families.tiny_bert()
    one, same, other = (matrices(read_weights(config, seed=s)) for s in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["q", "", 0], other["q", "", 0])


def test_refusals(tmp_path):
    with pytest.raises(ProbekitError, match=r" has no safetensors files; give a folder that"):
        read_weights(tmp_path)
    with pytest.raises(ProbekitError, match=r"^source is a model, .*, not int$"):
        read_weights(3)
    with pytest.raises(ProbekitError, match=r"^heads must be a whole number from 1, not 0$"):
        read_weights(Path("x"), heads=0)
