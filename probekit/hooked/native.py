"""Native toy models: TransformerLens's own small transformer, with our attention in it.

TransformerLens's native attention always has biases, fires its score hook after the softmax, and
never uses SDPA. Ours calls the seam instead, so that scores and pattern are live and an unhooked
forward runs at SDPA's speed; norms and MLPs are TransformerLens's. :data:`NATIVE_FIELDS` are what
a native model's config may say beyond TransformerLens's.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.model_bridge.sources.native.init import initialize_native_model
from transformer_lens.model_bridge.sources.native.model import NativeBlock, NativeModel

from .. import seam
from ..errors import CardError

_UNSUPPORTED = {
    "parallel_attn_mlp": False,
    "use_qk_norm": False,
    "use_local_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "positional_embedding_type": "standard",
    "attn_scores_soft_cap": -1.0,
    "use_attn_scale": True,
    "attn_scale": -1.0,
}

#: Config keys that TransformerLens does not have, with what its native models do.
NATIVE_FIELDS: dict[str, Any] = {
    "attention_bias": True,  # whether the four attention projections carry biases
    "attention_init": "linear",  # or "packed", as nn.MultiheadAttention: Xavier over [Q; K; V]
    "post_norm": False,  # whether the norms come after the residual sums (post-LN)
    "unembed_bias": False,  # whether the unembedding carries a bias
}


class NativeAttention(nn.Module):
    """Multi-head attention through the seam; ``cfg.attention_bias`` says whether it has biases."""

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__()
        bias = native_field(cfg, "attention_bias")
        width = cfg.n_heads * cfg.d_head
        self.d_head = cfg.d_head
        self.is_causal = cfg.attention_dir == "causal"
        self.q = nn.Linear(cfg.d_model, width, bias=bias)
        self.k = nn.Linear(cfg.d_model, width, bias=bias)
        self.v = nn.Linear(cfg.d_model, width, bias=bias)
        self.o = nn.Linear(width, cfg.d_model, bias=bias)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch pos d_model"],
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Float[Tensor, "batch pos d_model"], None]:
        """Attention output; the second element stands for the pattern, which the seam hooks."""
        batch, length, _width = hidden_states.shape
        q, k, v = (
            project(hidden_states).view(batch, length, -1, self.d_head).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        mask = _full_mask(attention_mask, length, self.is_causal)
        z, _ = seam.attention(self, q, k, v, mask)
        return self.o(z.reshape(batch, length, -1)), None


class PostNormBlock(NativeBlock):
    """Norms after the residual sums: ``x = ln1(x + attn(x)); x = ln2(x + mlp(x))``.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.1.
    """

    def forward(
        self,
        hidden_states: Float[Tensor, "batch pos d_model"],
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "batch pos d_model"]]:
        attn_out, _ = self.attn(hidden_states, attention_mask, position_ids)
        mid = self.ln1(hidden_states + attn_out)
        return (self.ln2(mid + self.mlp(mid)),)


def native_field(cfg: TransformerBridgeConfig, name: str) -> Any:
    """What a config says under one of :data:`NATIVE_FIELDS`."""
    return getattr(cfg, name, NATIVE_FIELDS[name])


def _full_mask(padding: Tensor | None, length: int, causal: bool) -> Tensor | None:
    """The boolean mask ``[batch, 1, query, key]`` of a padding mask; None where none is needed."""
    if padding is None:
        return None
    if padding.ndim != 2:
        raise CardError(
            f"a native model takes attention_mask [batch, pos], not {tuple(padding.shape)}"
        )
    visible = padding.bool()[:, None, None, :]
    if not causal:
        return visible
    return visible & torch.ones(length, length, dtype=torch.bool, device=padding.device).tril()


def build_native(cfg: TransformerBridgeConfig, seed: int | None) -> TransformerBridge:
    """A native bridge with fresh weights; the global random state is left as it was.

    With ``cfg.init_weights`` TransformerLens's initialisation, else PyTorch's default.

    Raises:
        CardError: the config asks for something that native models would silently ignore.
    """
    for key, supported in _UNSUPPORTED.items():
        if getattr(cfg, key, supported) != supported:
            raise CardError(f"native models do not support {key}={getattr(cfg, key)!r}")
    if (cfg.n_key_value_heads or cfg.n_heads) != cfg.n_heads:
        raise CardError("native models do not support grouped heads (n_key_value_heads)")
    if native_field(cfg, "post_norm") and cfg.attn_only:
        raise CardError("native models with post_norm need MLPs; leave attn_only out")
    if native_field(cfg, "attention_init") not in ("linear", "packed"):
        raise CardError(f"attention_init is linear or packed, not {cfg.attention_init!r}")  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[]):
        torch.seed() if seed is None else torch.manual_seed(seed)
        model = _modules(cfg)
        if cfg.init_weights:
            initialize_native_model(model, cfg, seed)
        elif native_field(cfg, "attention_init") == "packed":
            for block in model.layers:
                _initialize_packed(block.attn)  # type: ignore[arg-type]
    return build_bridge_from_module(
        model,
        "TransformerLensNative",
        tl_config=cfg,
        model_name=cfg.model_name,
        post_adapter_hook=_place_resid_mid if native_field(cfg, "post_norm") else None,
    )


def _modules(cfg: TransformerBridgeConfig) -> NativeModel:
    model = NativeModel(cfg)
    if native_field(cfg, "post_norm"):
        for layer in range(cfg.n_layers):
            model.layers[layer] = PostNormBlock(cfg)
    for block in model.layers:
        block.attn = NativeAttention(cfg)  # type: ignore[assignment]
    if native_field(cfg, "unembed_bias"):
        model.head = nn.Linear(cfg.d_model, model.head.out_features)
    return model


@torch.no_grad()
def _initialize_packed(attn: NativeAttention) -> None:
    """As ``nn.MultiheadAttention``: Xavier-uniform over the rows of Q, K and V; biases zero."""
    rows, d_model = attn.q.weight.shape
    bound = math.sqrt(6 / (3 * rows + d_model))
    for linear in (attn.q, attn.k, attn.v):
        linear.weight.uniform_(-bound, bound)
    for linear in (attn.q, attn.k, attn.v, attn.o):
        if linear.bias is not None:
            linear.bias.zero_()


def _place_resid_mid(adapter: ArchitectureAdapter) -> None:
    """In a post-norm block the input of ``ln2`` is the sum before the norm, not the stream."""
    blocks = adapter.component_mapping["blocks"]  # type: ignore[index]
    blocks.hook_aliases = {**blocks.hook_aliases, "hook_resid_mid": "ln1.hook_out"}
