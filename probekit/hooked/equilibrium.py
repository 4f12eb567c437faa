"""Building equilibrium models: with weights of their own, or around another model's blocks."""

import copy

import torch
from torch import nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from ..errors import CardError, ProbekitError
from .equilibrium_block import (
    ACTIVATIONS,
    EquilibriumBlock,
    HookedAttention,
    HookedMLP,
    WrappedBlock,
)
from .equilibrium_model import ARCHITECTURE, EquilibriumModel, HookedEmbedding, HookedUnembed


def build_equilibrium(cfg: TransformerBridgeConfig, seed: int | None) -> EquilibriumModel:
    """A model of own blocks: weights N(0, 1 / inputs), embeddings that sum to unit variance.

    Raises:
        CardError: the config asks for what this model does not have.
    """
    _check(cfg)
    with torch.random.fork_rng(devices=[]):
        torch.seed() if seed is None else torch.manual_seed(seed)
        outside: dict[str, nn.Module] = {
            "embed": HookedEmbedding(cfg.d_vocab, cfg.d_model),
            "pos_embed": HookedEmbedding(cfg.n_ctx, cfg.d_model),
            "unembed": HookedUnembed(cfg.d_model, cfg.d_vocab),
        }
        blocks: list[nn.Module] = [EquilibriumBlock(cfg) for _ in range(cfg.n_layers)]
        model = EquilibriumModel(cfg, blocks, outside)
        _initialise(model)
    return model.eval()


def equilibrium(
    block: nn.Module,
    *,
    damping: float = 1.0,
    step_size: float = 0.1,
    n_steps: int = 150,
) -> EquilibriumModel:
    """Wrap a hooked block, or a hooked model with its embeddings, as an equilibrium model.

    The block's components and hooks are used as they are, and its weights are shared: attention
    and MLP are added side by side, ``Attn(LN1 z) + MLP(LN2 z)``, also where the block itself runs
    them one after the other. A model's blocks act one after the other.

    Example:
        >>> import probekit as pk
        >>> model = pk.equilibrium(pk.load("grokking", seed=0), n_steps=20)
        >>> model(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 1000])

    Raises:
        ProbekitError: no block with ln1 and attn (and ln2 and mlp), a post-norm block, or a
        damping, step_size or n_steps that makes no sense.
    """
    _check_relaxation(damping, step_size, n_steps)
    whole = isinstance(block, TransformerBridge)
    source = getattr(block, "cfg", None) if whole else getattr(block, "config", None)
    parts = list(block.blocks) if whole else [block]  # type: ignore[arg-type]
    if source is None:
        raise ProbekitError(
            f"{type(block).__name__} carries no config; give a block such as "
            "pk.load('grokking').blocks[0], or a whole bridge"
        )
    if getattr(source, "post_norm", False):
        raise ProbekitError("a post-norm block cannot be wrapped; its norms follow the sums")
    cfg = copy.deepcopy(source)
    cfg.architecture, cfg.parallel_attn_mlp = ARCHITECTURE, True
    for name, value in (("damping", damping), ("step_size", step_size), ("n_steps", n_steps)):
        setattr(cfg, name, value)
    names = ("embed", "pos_embed", "ln_final", "unembed") if whole else ()
    outside = {name: getattr(block, name) for name in names if hasattr(block, name)}
    return EquilibriumModel(cfg, [WrappedBlock(each) for each in parts], outside).eval()


def fresh_equilibrium(model: EquilibriumModel, seed: int) -> EquilibriumModel:
    """The same architecture with fresh random weights, in the same place and precision.

    Raises:
        ProbekitError: it wraps another model's blocks; take the twin of that model and wrap it.
    """
    if any(isinstance(block, WrappedBlock) for block in model.blocks):
        raise ProbekitError(
            "an equilibrium model that wraps another has that one's weights; wrap its random twin: "
            "pk.equilibrium(pk.random_twin(inner, seed))"
        )
    first = next(model.parameters())
    twin = build_equilibrium(copy.deepcopy(model.cfg), seed).to(first.device, first.dtype)
    return twin.train(model.training)


def _check(cfg: TransformerBridgeConfig) -> None:
    wanted = {
        "normalization_type": ("LN",),
        "act_fn": ACTIVATIONS,
        "parallel_attn_mlp": (True,),
        "attention_dir": ("causal", "bidirectional"),
        "positional_embedding_type": ("standard",),
        "gated_mlp": (False,),
    }
    wrong = [
        f"{key}={getattr(cfg, key)!r} (possible: {', '.join(map(repr, values))})"
        for key, values in wanted.items()
        if getattr(cfg, key) not in values
    ]
    if (cfg.n_key_value_heads or cfg.n_heads) != cfg.n_heads:
        wrong.append("grouped heads (n_key_value_heads)")
    if wrong:
        raise CardError(f"equilibrium models do not support {'; '.join(wrong)}")
    _check_relaxation(cfg.damping, cfg.step_size, cfg.n_steps)  # type: ignore[attr-defined]


def _check_relaxation(damping: float, step_size: float, n_steps: int) -> None:
    if not (damping > -1 and step_size > 0 and type(n_steps) is int and n_steps >= 0):
        raise CardError(
            f"damping={damping!r}, step_size={step_size!r}, n_steps={n_steps!r}: damping must be "
            "above -1, step_size above 0 and n_steps a whole number"
        )


@torch.no_grad()
def _initialise(model: EquilibriumModel) -> None:
    for name in ("embed", "pos_embed"):
        nn.init.normal_(model.submodules[name].weight, std=0.5**0.5)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                module.bias.zero_()
    for module in model.modules():
        scaled = {HookedAttention: "o", HookedMLP: "fc_out"}.get(type(module))
        if scaled is not None:
            getattr(module, scaled).weight.mul_(model.cfg.residual_init)  # type: ignore[attr-defined]
