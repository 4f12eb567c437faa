"""Logits of a native model at its last position, computing nothing that they do not need.

A toy's loss often reads one position only. In the last layer that takes one query, one MLP row
and one unembedding, where the model's forward computes all of them: a quarter of a grokking
step's time. Hooks do not fire here; monitors run the model itself.
"""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..errors import ProbekitError

_ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}


def readout_logits(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch d_vocab"]:
    """``model(tokens)[:, -1]``, with the same gradients, for pre-norm native models.

    Raises:
        ProbekitError: the model is not native, or has another norm, activation or MLP.
    """
    cfg = model.cfg
    plain = cfg.normalization_type == "LN" and not (cfg.gated_mlp or cfg.attn_only)
    native = cfg.architecture == "TransformerLensNative"
    if not (native and plain and cfg.act_fn in _ACTIVATIONS):
        raise ProbekitError(
            f"readout_logits computes native models with LN and {' or '.join(_ACTIVATIONS)} MLPs "
            f"only, not {cfg.architecture} with {cfg.normalization_type} and {cfg.act_fn}; call "
            "the model instead"
        )
    positions = model.pos_embed.weight[: tokens.shape[1]]
    resid = F.embedding(tokens, model.embed.weight) + positions
    for block in model.blocks[:-1]:
        resid = _block(block, resid, resid, cfg)
    resid = _block(model.blocks[-1], resid, resid[:, -1:], cfg)
    return _linear(model.unembed, _norm(model.ln_final, resid[:, 0], cfg.eps))


def _block(
    block: Any,
    resid: Float[Tensor, "batch pos d_model"],
    readers: Float[Tensor, "batch query d_model"],
    cfg: Any,
) -> Float[Tensor, "batch query d_model"]:
    """One pre-norm block for the positions ``readers``, the last ones of ``resid``."""
    attn, eps = block.attn, cfg.eps
    normed = _norm(block.ln1, resid, eps)
    queries = readers.shape[1]
    q = _heads(attn.q, normed[:, -queries:], cfg)
    k, v = _heads(attn.k, normed, cfg), _heads(attn.v, normed, cfg)
    # A single query is the last position, which sees every key under either mask.
    causal = queries > 1 and cfg.attention_dir == "causal"
    z = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    mid = readers + _linear(attn.o, z.transpose(1, 2).flatten(2))
    hidden = _linear(getattr(block.mlp, "in"), _norm(block.ln2, mid, eps))
    activation = _ACTIVATIONS[cfg.act_fn]
    return mid + _linear(block.mlp.out, activation(hidden))


def _heads(project: Any, x: Tensor, cfg: Any) -> Float[Tensor, "batch head pos d_head"]:
    shape = (*x.shape[:2], cfg.n_heads, cfg.d_head)
    return _linear(project, x).view(shape).transpose(1, 2)


def _linear(module: Any, x: Tensor) -> Tensor:
    return F.linear(x, module.weight, getattr(module.original_component, "bias", None))


def _norm(module: Any, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], module.weight, module.bias, eps)
