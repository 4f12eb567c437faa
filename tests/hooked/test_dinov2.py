"""DINOv2: layer scale inside the contributions, both kinds of MLP, with or without a classifier."""

import pytest
import torch
from checks import captured, noise_hook
from families import bridged, tiny_dinov2
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import Dinov2Config, Dinov2ForImageClassification, Dinov2Model, PreTrainedModel

LAYERS, POSITIONS, HEADS, D_HEAD = 2, 5, 4, 8
PARTS = ["hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out"]
HEAD_PARTS = ["attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z"]


def config(use_swiglu_ffn: bool) -> Dinov2Config:
    return tiny_dinov2(
        mlp_ratio=3,
        layerscale_value=0.3,
        layer_norm_eps=1e-4,
        initializer_range=0.3,
        use_swiglu_ffn=use_swiglu_ffn,
        num_labels=5,
    )


@pytest.fixture(scope="module", params=["Dinov2Model", "Dinov2ForImageClassification"])
def model_class(request) -> type[PreTrainedModel]:
    return {c.__name__: c for c in (Dinov2Model, Dinov2ForImageClassification)}[request.param]


@pytest.fixture(scope="module", params=[False, True], ids=["mlp", "swiglu"])
def models(request, model_class) -> tuple[TransformerBridge, PreTrainedModel]:
    """A bridge and an unwrapped eager copy of the same random DINOv2."""
    torch.manual_seed(0)
    model = model_class(config(use_swiglu_ffn=request.param))
    for name, parameter in model.named_parameters():
        if "lambda1" in name:  # a layer scale that differs between features
            torch.nn.init.uniform_(parameter, 0.1, 0.9)
    return bridged(model)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def forward(bridge: TransformerBridge, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return bridge(pixels)


def read(bridge: TransformerBridge, pixels: Tensor, name: str) -> Tensor:
    return captured(bridge, name, lambda: forward(bridge, pixels))


def with_noise(bridge: TransformerBridge, pixels: Tensor, name: str) -> Tensor:
    with bridge.hooks(fwd_hooks=[(name, noise_hook())]):
        return forward(bridge, pixels)


def test_outputs_equal_eager(models, pixels):
    bridge, plain = models
    with torch.no_grad():
        theirs = plain(pixels)
    expected = theirs.logits if hasattr(theirs, "logits") else theirs.last_hidden_state
    torch.testing.assert_close(forward(bridge, pixels), expected, rtol=0, atol=0)


def test_config_is_the_model_s(models):
    bridge, plain = models
    cfg, hf_mlp = bridge.cfg, getattr(plain, "dinov2", plain).encoder.layer[0].mlp
    down = hf_mlp.down_proj if cfg.gated_mlp else hf_mlp.fc2
    assert (cfg.n_heads, cfg.d_head, cfg.d_model, cfg.n_layers) == (HEADS, D_HEAD, 32, LAYERS)
    assert (cfg.n_ctx, cfg.d_mlp, cfg.eps) == (POSITIONS, down.in_features, 1e-4)
    assert (cfg.attention_dir, cfg.is_visual_model) == ("bidirectional", True)
    assert cfg.act_fn == ("silu" if cfg.gated_mlp else "gelu")


@pytest.mark.parametrize("part", HEAD_PARTS)
def test_head_hooks_are_split_by_head(models, pixels, part):
    for layer in range(LAYERS):
        tensor = read(models[0], pixels, f"blocks.{layer}.{part}")
        assert tensor.shape == (2, POSITIONS, HEADS, D_HEAD)


@pytest.mark.parametrize("part", PARTS + HEAD_PARTS)
def test_edit_in_a_block_reaches_the_output(models, pixels, part):
    bridge, _ = models
    clean = forward(bridge, pixels)
    for layer in range(LAYERS):
        edited = with_noise(bridge, pixels, f"blocks.{layer}.{part}")
        assert (edited - clean).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["hook_embed", "ln_final.hook_out", "unembed.hook_out"])
def test_edit_around_the_blocks_reaches_the_output(models, pixels, name):
    bridge, plain = models
    if name.startswith("unembed") and not hasattr(plain, "classifier"):
        assert name not in bridge.hook_dict
        return
    edited = with_noise(bridge, pixels, name)
    assert (edited - forward(bridge, pixels)).abs().max() > 1e-5


def test_contributions_include_layer_scale(models, pixels):
    bridge, plain = models
    for layer in range(LAYERS):
        pre, post, attn, mlp = (read(bridge, pixels, f"blocks.{layer}.{part}") for part in PARTS)
        torch.testing.assert_close(post - pre, attn + mlp, rtol=0, atol=1e-5)
        scale = getattr(plain, "dinov2", plain).encoder.layer[layer].layer_scale1.lambda1
        unscaled = read(bridge, pixels, f"blocks.{layer}.attn.hook_out")
        torch.testing.assert_close(attn, unscaled * scale)
