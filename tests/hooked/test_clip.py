"""CLIP: both towers hooked with their own shapes, unedited outputs HF's own, every edit causal."""

import copy

import pytest
import torch
from checks import captured, noise_hook
from families import bridged, tiny_clip
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import CLIPModel

# name of the tower -> positions, heads, d_head, layers
SHAPES = {"text": (7, 4, 8, 2), "vision": (5, 2, 12, 3)}
PARTS = ["hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out"]
HEAD_PARTS = ["attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z"]
AROUND = [
    "text_embed",
    "text_ln_final",
    "text_projection",
    "vision_embed",
    "vision_ln_pre",
    "vision_ln_final",
    "vision_projection",
]


@pytest.fixture(scope="module")
def models() -> tuple[TransformerBridge, CLIPModel]:
    """A bridge and an unwrapped eager copy of the same random CLIP."""
    torch.manual_seed(0)
    config = tiny_clip(text={"layer_norm_eps": 1e-5}, vision={"layer_norm_eps": 1e-3})
    return bridged(CLIPModel(config))


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Token ids that end in EOS, a mask with right padding, pixels."""
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 48, (2, 7), generator=rng)
    ids[0, 6], ids[1, 4] = 49, 49
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    return ids, mask, torch.randn(2, 3, 16, 16, generator=rng)


def forward(bridge: TransformerBridge, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    ids, mask, pixels = inputs
    with torch.no_grad():
        return bridge(ids, attention_mask=mask, pixel_values=pixels).logits_per_text


def read(bridge: TransformerBridge, inputs: tuple[Tensor, Tensor, Tensor], name: str) -> Tensor:
    return captured(bridge, name, lambda: forward(bridge, inputs))


def with_noise(
    bridge: TransformerBridge, inputs: tuple[Tensor, Tensor, Tensor], name: str
) -> Tensor:
    with bridge.hooks(fwd_hooks=[(name, noise_hook())]):
        return forward(bridge, inputs)


def test_outputs_equal_eager(models, inputs):
    bridge, plain = models
    ids, mask, pixels = inputs
    with torch.no_grad():
        ours = bridge(ids, attention_mask=mask, pixel_values=pixels)
        theirs = plain(input_ids=ids, attention_mask=mask, pixel_values=pixels)
    for field in ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds"):
        torch.testing.assert_close(getattr(ours, field), getattr(theirs, field), rtol=0, atol=0)


def test_each_tower_has_its_config(models):
    text, vision = models[0].cfg, models[0].cfg.vision
    assert (text.n_heads, text.d_head, text.d_model, text.n_layers) == (4, 8, 32, 2)
    assert (text.n_ctx, text.d_mlp, text.eps, text.attention_dir) == (16, 64, 1e-5, "causal")
    assert (vision.n_heads, vision.d_head, vision.d_model, vision.n_layers) == (2, 12, 24, 3)
    assert (vision.n_ctx, vision.d_mlp, vision.eps) == (5, 48, 1e-3)
    assert vision.attention_dir == "bidirectional"


@pytest.mark.parametrize("part", HEAD_PARTS)
@pytest.mark.parametrize("tower", SHAPES)
def test_head_hooks_have_the_shape_of_their_tower(models, inputs, tower, part):
    pos, heads, d_head, layers = SHAPES[tower]
    for layer in range(layers):
        tensor = read(models[0], inputs, f"{tower}_blocks.{layer}.{part}")
        assert tensor.shape == (2, pos, heads, d_head)


@pytest.mark.parametrize("part", PARTS + HEAD_PARTS)
@pytest.mark.parametrize("tower", SHAPES)
def test_edit_in_a_block_reaches_the_output(models, inputs, tower, part):
    bridge, _ = models
    clean = forward(bridge, inputs)
    for layer in range(SHAPES[tower][3]):
        edited = with_noise(bridge, inputs, f"{tower}_blocks.{layer}.{part}")
        assert (edited - clean).abs().max() > 1e-5


@pytest.mark.parametrize("component", AROUND)
def test_edit_around_the_blocks_reaches_the_output(models, inputs, component):
    bridge, _ = models
    edited = with_noise(bridge, inputs, f"{component}.hook_out")
    assert (edited - forward(bridge, inputs)).abs().max() > 1e-5


def test_w_q_is_split_by_the_heads_of_the_tower(models):
    bridge, plain = models
    assert bridge.text_blocks[0].attn.W_Q.shape == (4, 32, 8)
    w_q = bridge.vision_blocks[0].attn.W_Q
    weight = plain.vision_model.encoder.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(w_q[1], weight[12:24].T)


def test_a_config_without_vision_tower_is_refused(models):
    cfg = copy.deepcopy(models[0].cfg)
    del cfg.vision_config
    with pytest.raises(ValueError) as error:
        build_bridge_from_module(models[1], "CLIPModel", tl_config=cfg)
    assert str(error.value) == (
        "cfg has no vision_config, from which the vision tower's heads and widths are read. "
        "Build the bridge with hf_config=model.config instead of tl_config."
    )
