"""T5: the embeddings of both stacks fire and are causal; nothing else differs."""

import copy

import pytest
import torch
from checks import captured, noise_hook
from families import bridged, tiny_t5
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_config_from_hf
from transformer_lens.model_bridge.supported_architectures.t5 import T5ArchitectureAdapter
from transformers import T5ForConditionalGeneration

ARCHITECTURE = "T5ForConditionalGeneration"
HOOKS = ("hook_in", "hook_out")
EMBEDDINGS = ["encoder_embed.hook_out", "decoder_embed.hook_out"]


@pytest.fixture(scope="module", params=["relu", "gated-gelu"])
def models(request) -> tuple[TransformerBridge, T5ForConditionalGeneration]:
    """A bridge and an unwrapped eager copy of the same random T5, of either published kind."""
    torch.manual_seed(0)
    tied = request.param == "relu"
    config = tiny_t5(feed_forward_proj=request.param, tie_word_embeddings=tied)
    return bridged(T5ForConditionalGeneration(config))


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randint(2, 50, (2, 7), generator=rng), torch.randint(2, 50, (2, 4), generator=rng)


def forward(bridge: TransformerBridge, inputs: tuple[Tensor, Tensor]) -> Tensor:
    ids, decoder_ids = inputs
    with torch.no_grad():
        return bridge(ids, decoder_input=decoder_ids)


def test_outputs_equal_eager(models, inputs):
    bridge, plain = models
    ids, decoder_ids = inputs
    with torch.no_grad():
        expected = plain(input_ids=ids, decoder_input_ids=decoder_ids).logits
    torch.testing.assert_close(forward(bridge, inputs), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embedding_fires_once_with_the_tokens_of_its_stack(models, inputs, name):
    bridge, plain = models
    only = captured(bridge, name, lambda: forward(bridge, inputs))
    ids = inputs[EMBEDDINGS.index(name)]
    torch.testing.assert_close(only, plain.shared.weight[ids].detach(), rtol=0, atol=0)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_edit_of_an_embedding_reaches_the_output(models, inputs, name):
    bridge, _ = models
    clean = forward(bridge, inputs)
    with bridge.hooks(fwd_hooks=[(name, noise_hook())]):
        edited = forward(bridge, inputs)
    assert (edited - clean).abs().max() > 1e-5


def test_weights_stay_tied(models):
    bridge, _ = models
    assert bridge.W_E.data_ptr() == bridge.encoder_embed.W_E.data_ptr()
    assert bridge.W_E.data_ptr() == bridge.decoder_embed.W_E.data_ptr()


def test_only_the_embedding_hooks_differ_from_transformer_lens(models):
    bridge, plain = models
    cfg = build_bridge_config_from_hf(plain.config, ARCHITECTURE, "t5", torch.float32)
    theirs = TransformerBridge(copy.deepcopy(plain), T5ArchitectureAdapter(cfg), None).hook_dict
    live = {f"{stack}_embed.{hook}" for stack in ("encoder", "decoder") for hook in HOOKS}
    dead = {"hook_embed", *(f"embed.{hook}" for hook in HOOKS)}
    assert set(bridge.hook_dict) - set(theirs) == live
    assert set(theirs) - set(bridge.hook_dict) == dead
