"""The bare BertModel: BERT's hooks without prefix and head, with or without a pooler."""

import pytest
import torch
from checks import noise_hook
from families import bridged, tiny_bert
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import BertForMaskedLM, BertModel

CONFIG = tiny_bert(initializer_range=0.3)
PARTS = ["hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out"]
HEAD_PARTS = ["attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z"]


@pytest.fixture(scope="module", params=[True, False], ids=["pooler", "no pooler"])
def models(request) -> tuple[TransformerBridge, BertModel]:
    """A bridge and an unwrapped eager copy of the same random BertModel."""
    torch.manual_seed(0)
    return bridged(BertModel(CONFIG, add_pooling_layer=request.param))


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    return ids, torch.tensor([[1] * 7, [1] * 5 + [0] * 2])


def forward(bridge: TransformerBridge, inputs: tuple[Tensor, Tensor]) -> Tensor:
    ids, mask = inputs
    with torch.no_grad():
        return bridge(ids, attention_mask=mask)


def with_noise(bridge: TransformerBridge, inputs: tuple[Tensor, Tensor], name: str) -> Tensor:
    with bridge.hooks(fwd_hooks=[(name, noise_hook())]):
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
    assert shapes == [(2, 7, 4, 8)]


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
    masked, _ = bridged(BertForMaskedLM(CONFIG))
    theirs = masked.hook_dict
    head = {name for name in theirs if name.startswith(("mlm_head", "unembed", "ln_final"))}
    ours = {name for name in models[0].hook_dict if not name.startswith("pooler")}
    assert ours == set(theirs) - head - {"hook_unembed"}
