"""The equilibrium model's own block: attention and MLP side by side, in real or complex numbers.

Every activation passes its hook point; a hook point that carries no hook is not even called, so
that an unhooked force costs what plain code costs. The maths is holomorphic in the state, which
holomorphic equilibrium propagation needs: LayerNorm's variance is not conjugated, the softmax is a
ratio of exponentials from which the largest *real* part is taken, GELU has its tanh form.

It misleads where the erf form of GELU is asked for: that one is real only.

Source: the dossier "EP below-CE-2.1 divergence", sections 1 and 3; holomorphic EP, https://arxiv.org/abs/2209.00530
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint

from ..errors import ProbekitError
from ..transforms import outside

ACTIVATIONS = ("gelu", "gelu_new")


def hooked_at(point: Any) -> bool:
    """Whether anything listens there."""
    return bool(point._forward_hooks or point._backward_hooks or point._forward_pre_hooks)


def fire(point: Any, x: Tensor) -> Tensor:
    """``point(x)`` of a hook point, skipped while nothing is hooked there."""
    return point(x) if hooked_at(point) else x


def linear(layer: nn.Linear, x: Inexact[Tensor, "*rest d_in"]) -> Inexact[Tensor, "*rest d_out"]:
    """``x W^T + b``; real weights act on the real and the imaginary part alike."""
    own = layer._parameters  # a module's own attribute look-up costs as much as a small product
    weight, bias = own["weight"], own["bias"]
    assert weight is not None
    if x.is_complex():
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    return F.linear(x, weight, bias)


def layer_norm(
    x: Inexact[Tensor, "*rest d"],
    weight: Float[Tensor, " d"],
    bias: Float[Tensor, " d"],
    eps: float,
) -> Inexact[Tensor, "*rest d"]:
    """``(x - mean x) / sqrt(mean (x - mean x)^2 + eps) * weight + bias``, no conjugation."""
    if not x.is_complex():
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def rms_norm(x: Inexact[Tensor, "*rest d"], eps: float) -> Inexact[Tensor, "*rest d"]:
    """``x / sqrt(mean x^2 + eps)``, no conjugation."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def softmax(scores: Inexact[Tensor, "*rest key"]) -> Inexact[Tensor, "*rest key"]:
    """``exp(s - max Re s) / sum exp(s - max Re s)`` over the last axis."""
    if not scores.is_complex():
        return scores.softmax(-1)
    powers = (scores - scores.real.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def gelu(x: Inexact[Tensor, "*rest"], act_fn: str) -> Inexact[Tensor, "*rest"]:
    """GELU by its erf (``gelu``) or its tanh form (``gelu_new``).

    Raises:
        ProbekitError: the erf form of a complex number.
    """
    if not x.is_complex():
        return F.gelu(x, approximate="tanh" if act_fn == "gelu_new" else "none")
    if act_fn != "gelu_new":
        raise ProbekitError(
            f"act_fn={act_fn!r} is real only, and the state is complex; load the model with "
            "act_fn='gelu_new', the tanh form"
        )
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class HookedNorm(nn.Module):
    """LayerNorm with a hook on its output."""

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__()
        self.eps = cfg.eps
        self.weight = nn.Parameter(torch.ones(cfg.d_model))
        self.bias = nn.Parameter(torch.zeros(cfg.d_model))
        self.hook_out = HookPoint()

    def forward(self, x: Inexact[Tensor, "*rest d_model"]) -> Inexact[Tensor, "*rest d_model"]:
        own: Any = self._parameters  # as in linear
        normed = layer_norm(x, own["weight"], own["bias"], self.eps)
        return fire(self._modules["hook_out"], normed)


class HookedAttention(nn.Module):
    """Multi-head attention; ``hook_q`` and ``hook_k`` see what is multiplied, after any qk-norm.

    With ``own_token`` derivatives see each position's own key and value only: the value is the
    same, and the Jacobian is block-diagonal over positions. Under a causal mask its blocks are
    the diagonal blocks of the full Jacobian.
    """

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__()
        bias = bool(getattr(cfg, "attention_bias", False))
        width = cfg.n_heads * cfg.d_head
        self.d_head, self.eps = cfg.d_head, cfg.eps
        self.causal = cfg.attention_dir == "causal"
        self._mask: Tensor | None = None  # added to the scores; kept from call to call
        self.qk_norm = bool(cfg.use_qk_norm)
        self.q, self.k, self.v = (nn.Linear(cfg.d_model, width, bias=bias) for _ in range(3))
        self.o = nn.Linear(width, cfg.d_model, bias=bias)
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (HookPoint() for _ in range(4))
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        #: The projections by the names that weight interventions use.
        self.submodules: dict[str, nn.Linear] = {"q": self.q, "k": self.k, "v": self.v, "o": self.o}

    def forward(
        self, x: Inexact[Tensor, "batch pos d_model"], own_token: bool = False
    ) -> Inexact[Tensor, "batch pos d_model"]:
        layers, points, d_head = self.submodules, self._modules, self.d_head
        batch, length, _ = x.shape
        q, k, v = [linear(layers[name], x).view(batch, length, -1, d_head) for name in "qkv"]
        if self.qk_norm:
            q, k = rms_norm(q, self.eps), rms_norm(k, self.eps)
        q = fire(points["hook_q"], q).transpose(1, 2)
        k = fire(points["hook_k"], k).transpose(1, 2)
        v = fire(points["hook_v"], v).transpose(1, 2)
        keys, values = (k.detach(), v.detach()) if own_token else (k, v)
        scores = q @ keys.transpose(2, 3)
        if own_token:  # adds zero, with the derivative by the own key
            scores = scores + torch.diag_embed((q * (k - keys)).sum(-1))
        scores = self._scaled(scores)
        pattern = fire(points["hook_pattern"], softmax(fire(points["hook_attn_scores"], scores)))
        z = pattern @ values
        if own_token:
            z = z + pattern.diagonal(dim1=-2, dim2=-1)[..., None] * (v - values)
        z = fire(points["hook_z"], z.transpose(1, 2))
        return linear(layers["o"], z.flatten(-2))

    def _scaled(self, scores: Tensor) -> Tensor:
        scale = self.d_head**-0.5
        if not self.causal:
            return scores * scale
        length, dtype = scores.shape[-1], scores.real.dtype
        mask = self._mask
        if mask is None or (len(mask), mask.dtype, mask.device) != (length, dtype, scores.device):
            with outside():  # what is made inside a transform dies with it
                # Finite, so that its derivative is 0 and not NaN.
                low = torch.full((length, length), torch.finfo(dtype).min, dtype=dtype)
                mask = self._mask = low.triu(1).to(scores.device)
        return torch.add(mask, scores, alpha=scale)


class HookedMLP(nn.Module):
    """``GELU(x W_in + b_in) W_out + b_out``."""

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__()
        self.act_fn = str(cfg.act_fn)
        self.fc_in = nn.Linear(cfg.d_model, cfg.d_mlp or 4 * cfg.d_model, bias=False)
        self.fc_out = nn.Linear(cfg.d_mlp or 4 * cfg.d_model, cfg.d_model, bias=False)
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()
        #: The two matrices by the names that weight interventions use.
        self.submodules: dict[str, nn.Linear] = {"in": self.fc_in, "out": self.fc_out}

    def forward(
        self, x: Inexact[Tensor, "batch pos d_model"]
    ) -> Inexact[Tensor, "batch pos d_model"]:
        layers, points = self.submodules, self._modules
        pre = fire(points["hook_pre"], linear(layers["in"], x))
        return linear(layers["out"], fire(points["hook_post"], gelu(pre, self.act_fn)))


class EquilibriumBlock(nn.Module):
    """What a block adds to its stream: ``Attn(LN1 h) + MLP(LN2 h)``, side by side.

    ``hook_resid_pre`` sees ``h``, ``hook_resid_post`` the sum of ``h`` and what is added.
    """

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__()
        self.ln1, self.attn = HookedNorm(cfg), HookedAttention(cfg)
        self.submodules: dict[str, nn.Module] = {"ln1": self.ln1, "attn": self.attn}
        if not cfg.attn_only:
            self.ln2, self.mlp = HookedNorm(cfg), HookedMLP(cfg)
            self.submodules |= {"ln2": self.ln2, "mlp": self.mlp}
            self.hook_mlp_out = HookPoint()
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()
        self.hook_attn_out = HookPoint()

    #: Whether derivatives can be restricted to each position's own key and value.
    has_own_token = True

    def forward(
        self, h: Inexact[Tensor, "batch pos d_model"], own_token: bool = False
    ) -> Inexact[Tensor, "batch pos d_model"]:
        parts: Any = self._modules
        h = fire(parts["hook_resid_pre"], h)
        added = fire(parts["hook_attn_out"], parts["attn"](parts["ln1"](h), own_token))
        if "mlp" in parts:
            added = added + fire(parts["hook_mlp_out"], parts["mlp"](parts["ln2"](h)))
        return through_post(parts["hook_resid_post"], h, added)


class WrappedBlock(nn.Module):
    """The same sum made of the components of another hooked block, whose own hooks fire."""

    has_own_token = False

    def __init__(self, block: Any) -> None:
        super().__init__()
        names = [name for name in ("ln1", "attn", "ln2", "mlp") if hasattr(block, name)]
        if names[:2] != ["ln1", "attn"] or len(names) == 3:
            raise ProbekitError(
                f"{type(block).__name__} has {', '.join(names) or 'no named parts'}; an "
                "equilibrium block needs ln1 and attn, and with an MLP also ln2 and mlp (pre-norm)"
            )
        self.submodules: dict[str, nn.Module] = {name: getattr(block, name) for name in names}
        for name, component in self.submodules.items():
            self.add_module(name, component)
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()

    def forward(
        self, h: Float[Tensor, "batch pos d_model"], own_token: bool = False
    ) -> Float[Tensor, "batch pos d_model"]:
        if h.is_complex():
            raise ProbekitError(
                "a wrapped block is real only, and the state is complex; use pk.load('equilibrium')"
            )
        h = fire(self.hook_resid_pre, h)
        # SDPA's fused kernels have no forward-mode derivative.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            attended = self.submodules["attn"](self.submodules["ln1"](h))
        added = attended[0] if isinstance(attended, tuple) else attended
        if "mlp" in self.submodules:
            added = added + self.submodules["mlp"](self.submodules["ln2"](h))
        return through_post(self.hook_resid_post, h, added)


def through_post(point: HookPoint, h: Tensor, added: Tensor) -> Tensor:
    """What is added after an edit of the sum; exactly ``added`` where nothing is hooked."""
    if not hooked_at(point):
        return added
    total = h + added
    edited = point(total)
    return added if edited is total else edited - h
