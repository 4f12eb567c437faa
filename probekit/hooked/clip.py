"""Hooks for Hugging Face's ``CLIPModel``: the text and the vision tower, each with its own shapes.

Hook names are those of any other TransformerLens bridge, under two stacks:
``text_blocks.0.attn.q.hook_out``, ``vision_blocks.3.hook_resid_post``. Around the stacks lie

    text_embed -> text_blocks -> text_ln_final -> text_projection
    vision_embed -> vision_ln_pre -> vision_blocks -> vision_ln_final -> vision_projection

Both towers are pre-LayerNorm: ``resid_post = resid_pre + attn_out + mlp_out`` holds in each block.
The text tower is causal, the vision tower bidirectional. ``cfg`` describes the text tower and
``cfg.vision`` the vision tower; their head counts and widths differ, so every attention bridge is
given the config of its own tower.

It misleads in one place: HF applies the vision tower's ``post_layernorm`` to the class token only,
so ``vision_ln_final`` sees ``[batch, d_model]`` and patches never pass through it.

Learning Transferable Visual Models From Natural Language Supervision, https://arxiv.org/abs/2103.00020
"""

from typing import Any

from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.generalized_components import (
    AttentionBridge,
    BlockBridge,
    LinearBridge,
    MLPBridge,
    NormalizationBridge,
)
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources import build_bridge_config_from_hf


class ClipArchitectureAdapter(ArchitectureAdapter):
    """Map both towers of ``CLIPModel`` to TransformerLens components.

    Weight processing (LayerNorm folding, compatibility mode) is refused: TransformerLens does it
    for a single stack called ``blocks``. A forward returns HF's ``CLIPOutput``; there is no
    next-token loss.
    """

    supports_generation = False
    supports_causal_loss = False
    supports_compatibility_mode = False
    cfg: Any  # a TransformerBridgeConfig with one field more, `vision`

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__(cfg)
        self.supports_fold_ln = False
        self.weight_processing_conversions = {}
        self.cfg.is_multimodal = True
        self.cfg.vision = _vision_cfg(cfg)
        self._extract_vision_dims(cfg)
        _set_tower_defaults(self.cfg, attention_dir="causal")
        _set_tower_defaults(self.cfg.vision, attention_dir="bidirectional")
        self.component_mapping = {**_text_tower(self.cfg), **_vision_tower(self.cfg.vision)}

    def prepare_model(self, hf_model: Any) -> None:
        """Record the device of the loaded model for the vision tower too."""
        self.cfg.vision.device = self.cfg.device

    def setup_hook_compatibility(self, bridge: Any) -> None:
        """Split q, k, v, z by head; TransformerLens does so only in stacks whose names it knows."""
        for block in (*bridge.text_blocks, *bridge.vision_blocks):
            block.attn.setup_hook_compatibility()


def _vision_cfg(cfg: TransformerBridgeConfig) -> TransformerBridgeConfig:
    """The vision tower's hooked config, translated from HF's ``vision_config``."""
    hf_vision = getattr(cfg, "vision_config", None)
    if hf_vision is None:
        raise ValueError(
            "cfg has no vision_config, from which the vision tower's heads and widths are read. "
            "Build the bridge with hf_config=model.config instead of tl_config."
        )
    vision = build_bridge_config_from_hf(hf_vision, "CLIPVisionModel", cfg.model_name, cfg.dtype)
    vision.is_visual_model = True
    return vision


def _set_tower_defaults(cfg: TransformerBridgeConfig, attention_dir: str) -> None:
    """What HF's config leaves unsaid about a CLIP tower."""
    cfg.attention_dir = attention_dir
    cfg.normalization_type = "LN"
    cfg.positional_embedding_type = "standard"
    cfg.final_rms = False
    cfg.gated_mlp = False
    cfg.attn_only = False


def _text_tower(cfg: TransformerBridgeConfig) -> dict[str, GeneralizedComponent]:
    return {
        # Not EmbeddingBridge: the module sums two tables, so it has no single weight W_E.
        "text_embed": GeneralizedComponent(name="text_model.embeddings"),
        "text_blocks": _blocks("text_model.encoder.layers", cfg, is_causal=True),
        "text_ln_final": _norm("text_model.final_layer_norm", cfg),
        "text_projection": LinearBridge(name="text_projection"),
    }


def _vision_tower(cfg: TransformerBridgeConfig) -> dict[str, GeneralizedComponent]:
    return {
        # Not VisionEmbeddingsBridge: it always passes bool_masked_pos, which CLIP does not take.
        "vision_embed": GeneralizedComponent(name="vision_model.embeddings"),
        "vision_ln_pre": _norm("vision_model.pre_layrnorm", cfg),
        "vision_blocks": _blocks("vision_model.encoder.layers", cfg, is_causal=False),
        "vision_ln_final": _norm("vision_model.post_layernorm", cfg),
        "vision_projection": LinearBridge(name="visual_projection"),
    }


def _blocks(name: str, cfg: TransformerBridgeConfig, is_causal: bool) -> BlockBridge:
    return BlockBridge(
        name=name,
        submodules={
            "ln1": _norm("layer_norm1", cfg),
            "attn": AttentionBridge(
                name="self_attn",
                config=cfg,
                is_causal=is_causal,
                submodules={
                    "q": LinearBridge(name="q_proj"),
                    "k": LinearBridge(name="k_proj"),
                    "v": LinearBridge(name="v_proj"),
                    "o": LinearBridge(name="out_proj"),
                },
            ),
            "ln2": _norm("layer_norm2", cfg),
            "mlp": MLPBridge(
                name="mlp",
                config=cfg,
                submodules={"in": LinearBridge(name="fc1"), "out": LinearBridge(name="fc2")},
            ),
        },
    )


def _norm(name: str, cfg: TransformerBridgeConfig) -> NormalizationBridge:
    return NormalizationBridge(name=name, config=cfg, use_native_layernorm_autograd=True)
