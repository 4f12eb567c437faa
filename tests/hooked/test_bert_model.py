"""The bare BertModel: BERT's hooks without prefix and head, with or without a pooler."""

import copy

import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import BertConfig, BertForMaskedLM, BertModel

from probekit.hooked.adapters import register_adapters

CONFIG = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,
}
PARTS = ["hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out"]
HEAD_PARTS = ["attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z"]


@pytest.fixture(scope="module", params=[True, False], ids=["pooler", "no pooler"])
def models(request) -> tuple[TransformerBridge, BertModel]:
    """A bridge and an unwrapped eager copy of the same random BertModel."""
    register_adapters()
    torch.manual_seed(0)
    model = BertModel(BertConfig(**CONFIG), add_pooling_layer=request.param).eval()
    model.set_attn_implementation("eager")
    plain = copy.deepcopy(model)
    return build_bridge_from_module(model, "BertModel", hf_config=model.config), plain


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    return ids, torch.tensor([[1] * 7, [1] * 5 + [0] * 2])


def forward(bridge: TransformerBridge, inputs: tuple[Tensor, Tensor]) -> Tensor:
    ids, mask = inputs
    with torch.no_grad():
        return bridge(ids, attention_mask=mask)


def with_noise(bridge: TransformerBridge, inputs: tuple[Tensor, Tensor], name: str) -> Tensor:
    rng = torch.Generator().manual_seed(2)

    def add_noise(tensor: Tensor, hook: object) -> Tensor:
        return tensor + torch.randn(tensor.shape, generator=rng)

    with bridge.hooks(fwd_hooks=[(name, add_noise)]):
        return forward(bridge, inputs)


def test_outputs_equal_eager(models, inputs):
    bridge, plain = models
    ids, mask = inputs
    with torch.no_grad():
        expected = plain(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(forward(bridge, inputs), expected, rtol=0, atol=0)


@pytest.mark.parametrize("part", HEAD_PARTS)
def test_head_hooks_are_split_by_head(models, inputs, part):
    shapes: list[torch.Size] = []
    with models[0].hooks(fwd_hooks=[(f"blocks.1.{part}", lambda z, hook: shapes.append(z.shape))]):
        forward(models[0], inputs)
    assert shapes == [(2, 7, 3, 8)]


@pytest.mark.parametrize("part", PARTS + HEAD_PARTS)
def test_edit_in_a_block_reaches_the_output(models, inputs, part):
    bridge, _ = models
    clean = forward(bridge, inputs)
    for layer in range(2):
        edited = with_noise(bridge, inputs, f"blocks.{layer}.{part}")
        assert (edited - clean).abs().max() > 1e-5


def test_edit_of_the_embedding_reaches_the_output(models, inputs):
    bridge, _ = models
    edited = with_noise(bridge, inputs, "hook_embed")
    assert (edited - forward(bridge, inputs)).abs().max() > 1e-5


def test_pooler_is_hooked_where_there_is_one(models):
    bridge, plain = models
    assert ("pooler.hook_out" in bridge.hook_dict) == (plain.pooler is not None)


def test_hooks_are_those_of_the_masked_language_model_without_its_head(models):
    masked = BertForMaskedLM(BertConfig(**CONFIG))
    theirs = build_bridge_from_module(masked, "BertForMaskedLM", hf_config=masked.config).hook_dict
    head = {name for name in theirs if name.startswith(("mlm_head", "unembed", "ln_final"))}
    ours = {name for name in models[0].hook_dict if not name.startswith("pooler")}
    assert ours == set(theirs) - head - {"hook_unembed"}
