"""Native toy models: TransformerLens's own small transformer, with our attention in it.

TransformerLens's native attention always has biases, fires its score hook after the softmax, and
never uses SDPA. Ours calls the seam instead, so that scores and pattern are live and an unhooked
forward runs at SDPA's speed; everything else (norms, MLPs, block order) is TransformerLens's.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.model_bridge.sources.native.init import initialize_native_model
from transformer_lens.model_bridge.sources.native.model import NativeModel

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


class NativeAttention(nn.Module):
    """Multi-head attention through the seam; ``cfg.attention_bias`` (default true) sets biases."""

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__()
        bias = getattr(cfg, "attention_bias", True)
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
    with torch.random.fork_rng(devices=[]):
        torch.seed() if seed is None else torch.manual_seed(seed)
        model = NativeModel(cfg)
        for block in model.layers:
            block.attn = NativeAttention(cfg)  # type: ignore[assignment]
        if cfg.init_weights:
            initialize_native_model(model, cfg, seed)
    return build_bridge_from_module(
        model, "TransformerLensNative", tl_config=cfg, model_name=cfg.model_name
    )
