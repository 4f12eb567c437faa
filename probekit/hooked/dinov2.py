"""Hooks for Hugging Face's ``Dinov2Model`` and ``Dinov2ForImageClassification``.

DINOv2 is a pre-LayerNorm vision transformer with layer scale: the output of attention and of the
MLP is multiplied by a learned vector before it joins the residual stream,

    resid_mid = resid_pre + ls1(attn(ln1(resid_pre)))
    resid_post = resid_mid + ls2(mlp(ln2(resid_mid)))

So ``hook_attn_out`` and ``hook_mlp_out`` point at ``ls1.hook_out`` and ``ls2.hook_out``: they hold
what is really added, and ``resid_post - resid_pre = attn_out + mlp_out``. The unscaled outputs stay
readable as ``attn.hook_out`` and ``mlp.hook_out``.

It misleads in training with ``drop_path_rate > 0``: stochastic depth acts after layer scale, so
the sum holds in eval mode only.

DINOv2, https://arxiv.org/abs/2304.07193; layer scale, https://arxiv.org/abs/2103.17239
"""

from typing import Any

from torch import nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.generalized_components import (
    AttentionBridge,
    BlockBridge,
    LinearBridge,
    NormalizationBridge,
)
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.generalized_components.vision_classifier_head import (
    VisionClassifierHeadBridge,
)


class Dinov2ArchitectureAdapter(ArchitectureAdapter):
    """Map DINOv2, with or without a classifier, to TransformerLens components.

    Weight processing is refused: centring or folding writing weights ignores layer scale.
    """

    supports_generation = False
    supports_causal_loss = False
    supports_compatibility_mode = False

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__(cfg)
        self.supports_fold_ln = False
        self.weight_processing_conversions = {}
        self.cfg.is_visual_model = True
        self.cfg.attention_dir = "bidirectional"
        self.cfg.normalization_type = "LN"
        self.cfg.positional_embedding_type = "standard"
        self.cfg.final_rms = False
        self.cfg.attn_only = False
        self.component_mapping = self._components(prefix="")

    def prepare_model(self, hf_model: Any) -> None:
        """Read from the model what the bridge config does not carry: prefix, head, kind of MLP."""
        base = getattr(hf_model, "dinov2", hf_model)
        self._read_mlp(base.config)
        self.component_mapping = self._components(prefix="" if base is hf_model else "dinov2.")
        if isinstance(getattr(hf_model, "classifier", None), nn.Linear):
            self.component_mapping["unembed"] = VisionClassifierHeadBridge(name="classifier")

    def _read_mlp(self, hf_config: Any) -> None:
        """Set the MLP's kind and width; HF's config states a ratio, not a width."""
        self.cfg.gated_mlp = hf_config.use_swiglu_ffn
        self.cfg.d_mlp = int(hf_config.hidden_size * hf_config.mlp_ratio)
        if self.cfg.gated_mlp:
            # SwiGLU has three matrices: HF keeps two thirds of the width, in multiples of 8.
            self.cfg.d_mlp = (int(self.cfg.d_mlp * 2 / 3) + 7) // 8 * 8
            self.cfg.act_fn = "silu"

    def _components(self, prefix: str) -> dict[str, GeneralizedComponent]:
        return {
            # Not VisionEmbeddingsBridge: it passes interpolate_pos_encoding, which DINOv2 lacks.
            "embed": GeneralizedComponent(name=f"{prefix}embeddings"),
            "blocks": self._blocks(f"{prefix}encoder.layer"),
            "ln_final": self._norm(f"{prefix}layernorm"),
        }

    def _blocks(self, name: str) -> BlockBridge:
        mlp = self._gated_mlp() if self.cfg.gated_mlp else self._ungated_mlp(up="fc1", down="fc2")
        return BlockBridge(
            name=name,
            hook_alias_overrides={
                "hook_attn_out": "ls1.hook_out",
                "hook_mlp_out": "ls2.hook_out",
            },
            submodules={
                "ln1": self._norm("norm1"),
                "attn": self._attention(),
                "ls1": GeneralizedComponent(name="layer_scale1"),
                "ln2": self._norm("norm2"),
                "mlp": mlp,
                "ls2": GeneralizedComponent(name="layer_scale2"),
            },
        )

    def _attention(self) -> AttentionBridge:
        return AttentionBridge(
            name="attention",
            config=self.cfg,
            is_causal=False,
            submodules={part: LinearBridge(name=f"{part}_proj") for part in "qkvo"},
        )

    def _norm(self, name: str) -> NormalizationBridge:
        return NormalizationBridge(name=name, config=self.cfg, use_native_layernorm_autograd=True)
