"""The seam: attention whose scores and pattern an edit can reach.

TransformerLens 4 fires ``hook_attn_scores`` and ``hook_pattern`` of Hugging Face-backed models
after the value product, so that an edit there changes nothing. probekit registers one attention
function through Hugging Face's public ``AttentionInterface``; it passes the scores and the
pattern through the bridge's own hook points *before* the value product. While neither carries a
hook it calls SDPA, at SDPA's speed. Our native attention calls the same function.

Source: transformers' "Attention Interface" documentation; the attention itself is Vaswani et
al. 2017, equation 1.
"""

import copy
import functools
import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from weakref import WeakKeyDictionary, WeakSet

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .errors import ProbekitError
from .flags import all_modules
from .ledger import Ledger
from .transforms import primal

NAME = "probekit"
_TAPS = "_probekit_taps"
_HIDDEN = 5e3  # scores this far below the best of their row can only come from a mask
_CONTEXT = "probekit"


@dataclass(frozen=True)
class AttentionContext:
    """What an observer at a pattern may want besides the pattern.

    ``masked`` are the masked scores before any edit, ``scores`` the same after edits at the
    scores, ``pattern`` their softmax before edits at the pattern. ``mask`` is True at visible
    keys; None where the mask was additive or is not known.
    """

    masked: Float[Tensor, "batch head query key"]
    scores: Float[Tensor, "batch head query key"] | None = None
    pattern: Float[Tensor, "batch head query key"] | None = None
    mask: Bool[Tensor, "#batch #head query key"] | None = None

    def untouched(self, pattern: Tensor) -> bool:
        """Whether ``pattern`` is still the softmax of ``scores``: not replaced, not edited."""
        own = self.pattern
        if own is None or own.is_inference():
            return False
        same = pattern.data_ptr() == own.data_ptr() and pattern.shape == own.shape
        return same and own._version == 0  # an edit in place would have counted it up

    def visible(self) -> Bool[Tensor, "#batch query key"]:
        """Which keys each query may attend to: the mask, which all heads share.

        Its batch is 1 where all examples share it too.
        """
        if self.mask is not None:
            return self.mask[:, 0]
        scores = self.masked[:, 0]
        # Masks of -1e9 and -1e4 are about as well: so far below the row's best, a softmax is 0.
        reach = scores.amax(-1, keepdim=True) - _HIDDEN
        return (scores > torch.finfo(scores.dtype).min / 2) & (scores > reach)

    def primal(self) -> "AttentionContext":
        """The same outside of ``torch.func`` transforms, for observers to keep."""
        rest = (self.scores, self.pattern, self.mask)
        return AttentionContext(
            primal(self.masked), *(field if field is None else primal(field) for field in rest)
        )

    def part(self, index: int, count: int) -> "AttentionContext":
        """The context of one of ``count`` equal parts of the batch."""
        fields = (self.masked, self.scores, self.pattern, self.mask)
        shared = [field is None or len(field) < count for field in fields]
        return AttentionContext(
            *(
                field if same else field.chunk(count)[index]  # type: ignore[union-attr]
                for field, same in zip(fields, shared, strict=True)
            )
        )


#: What a model may ask of its attention that this one does not do.
_UNKNOWN_ATTENTION = {
    "softcap": "soft-capped scores",
    "s_aux": "attention sinks",
    "cache": "a paged cache",
}


@dataclass(frozen=True)
class _Taps:
    scores: HookPoint
    pattern: HookPoint

    @property
    def active(self) -> bool:
        scores, pattern = self.scores, self.pattern
        return bool(
            scores._forward_hooks
            or pattern._forward_hooks
            or scores._backward_hooks
            or pattern._backward_hooks
            or scores._forward_pre_hooks
            or pattern._forward_pre_hooks
            or scores._backward_pre_hooks
            or pattern._backward_pre_hooks
        )


def context_of(hook: HookPoint) -> AttentionContext | None:
    """The attention context of a firing ``hook_pattern``; None outside the seam."""
    return hook.ctx.get(_CONTEXT)


def publish_context(hook: HookPoint, context: AttentionContext | None) -> None:
    """Make ``context`` what :func:`context_of` answers for ``hook``; None withdraws it."""
    if context is None:
        hook.ctx.pop(_CONTEXT, None)
    else:
        hook.ctx[_CONTEXT] = context


def attention(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_head"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: object,
) -> tuple[Float[Tensor, "batch query head d_head"], None]:
    """Attention with live scores and pattern, in the form of Hugging Face's interface.

    Args:
        module: the attention module that calls; its taps were set by :func:`acquire`.
        attention_mask: boolean (True = visible) or additive, broadcast to the scores; or None.
        scaling: factor on q·k; None means ``d_head ** -0.5``.
        position_bias: added to the scores before the mask (T5).

    Raises:
        ProbekitError: the model asks for soft-capped scores, attention sinks or a paged cache,
            which this function would otherwise compute wrongly.
    """
    _refuse_unknown_attention(module, kwargs)
    taps: _Taps | None = module.__dict__.get(_TAPS)
    if taps is None or not taps.active:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            position_bias=position_bias,
        )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    # In place where nobody else holds the scores yet: each pass over them costs a percent.
    scores = torch.matmul(query, key.transpose(2, 3))
    scores.mul_(query.shape[-1] ** -0.5 if scaling is None else scaling)
    if position_bias is not None:
        scores = scores + position_bias
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    masked, mask = _mask(scores, attention_mask, causal)
    scores = taps.scores(masked)
    # Half precision is upcast, as Hugging Face's eager attention does for most families.
    exact = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    # In inference mode too, a tensor that counts its edits: AttentionContext.untouched reads it.
    with torch.inference_mode(False) if exact.is_inference() else nullcontext():
        pattern = exact.softmax(-1).to(query.dtype)
    publish_context(taps.pattern, AttentionContext(masked, scores, pattern, mask))
    try:
        pattern = taps.pattern(pattern)
    finally:
        publish_context(taps.pattern, None)
    del masked, scores, exact, mask  # as large as the pattern: free for the value product to use
    pattern = nn.functional.dropout(pattern, p=dropout, training=module.training)
    # No weights are returned: the bridge would fire its pattern hook on them a second time.
    return torch.matmul(pattern, value).transpose(1, 2).contiguous(), None


def _mask(scores: Tensor, mask: Tensor | None, causal: bool) -> tuple[Tensor, Tensor | None]:
    """The masked scores, written over ``scores`` if that can be, and the mask as booleans."""
    queries, keys = scores.shape[-2:]
    if mask is None:
        mask = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=scores.device)
        if not causal or queries == 1:
            return scores, mask
        mask = mask.tril(keys - queries)
    if mask.dtype != torch.bool:
        return scores + mask, None
    # Added, as Hugging Face's eager attention does: a quarter of the time of masked_fill.
    hidden = torch.where(mask, scores.new_zeros(()), torch.finfo(scores.dtype).min)
    return scores.add_(hidden), mask.expand(-1, -1, queries, keys)


def _refuse_unknown_attention(module: nn.Module, kwargs: dict[str, object]) -> None:
    if _UNKNOWN_ATTENTION.keys().isdisjoint(kwargs):
        return
    for key, meaning in _UNKNOWN_ATTENTION.items():
        if kwargs.get(key) is not None:
            raise ProbekitError(
                f"{type(module).__name__} uses {meaning}, which probekit's attention does not "
                "compute; load this model with TransformerLens's own bridge and eager attention"
            )


def delegating(attn: nn.Module) -> bool:
    """Whether this attention bridge hands its computation to a Hugging Face module.

    Those are the ones whose pattern and score hooks TransformerLens fires after the fact.
    """
    return (
        isinstance(attn, AttentionBridge)
        and type(attn).forward is AttentionBridge.forward
        and not getattr(attn.original_component, "accepts_pattern_fn", False)
    )


def serves(model: nn.Module) -> bool:
    """Whether the attention of ``model`` can be routed through the seam.

    Not where Hugging Face computes some of it otherwise than through its interface (GPT-J, LED):
    that would lose its masks, which the interface's users get in another form. Nor need it where
    TransformerLens computes all of it itself (GPT-2, Llama).
    """
    handed_on = [attn for attn in all_modules(model) if delegating(attn)]
    return bool(handed_on) and all(
        any(_asks_the_interface(type(module)) for module in attn.original_component.modules())  # type: ignore[union-attr]
        for attn in handed_on
    )


@functools.cache
def _asks_the_interface(kind: type[nn.Module]) -> bool:
    """As its code says; of our own classes, that it calls :func:`attention`."""
    code = getattr(inspect.unwrap(kind.forward), "__code__", None)
    names = () if code is None else code.co_names
    return "ALL_ATTENTION_FUNCTIONS" in names or {"seam", "attention"} <= set(names)


_users: "WeakKeyDictionary[nn.Module, int]" = WeakKeyDictionary()
_tapped: "WeakKeyDictionary[nn.Module, WeakSet[nn.Module]]" = WeakKeyDictionary()


def acquire(model: nn.Module) -> None:
    """Route the attention of ``model``, which it :func:`serves`, through the seam; undone by as
    many :func:`release`.

    The model gets Hugging Face configs of its own meanwhile: a config may be shared with other
    models, which then could switch this one's attention, or have theirs switched.
    """
    register()
    _users[model] = _users.get(model, 0) + 1
    if _users[model] == 1:
        tap(model)
        before = Ledger.of(model, "configs")  # on the model: a hook of it may refer to it again
        before[:] = configs(model)
        copies: dict[int, object] = {}  # one memo: configs that share parts go on sharing them
        for module, config in before:
            module.__dict__["config"] = copy.deepcopy(config, copies)
    # Each time: the user may have set another implementation in between.
    for _, config in configs(model):
        if config._attn_implementation != NAME:
            config._attn_implementation = NAME


def release(model: nn.Module) -> None:
    """Give back one :func:`acquire`; the last one restores the configs that were there."""
    _users[model] -= 1
    if _users[model]:
        return
    before = Ledger.of(model, "configs")
    for module, config in before:
        module.__dict__["config"] = config
    before.clear()
    for module in _tapped.pop(model):
        module.__dict__.pop(_TAPS, None)
    del _users[model]


def tap(model: nn.Module) -> None:
    """Tell Hugging Face's attention modules inside ``model`` their bridges' hook points."""
    _tapped[model] = WeakSet()
    for attn in filter(delegating, list(model.modules())):
        taps = _Taps(attn.hook_attn_scores, attn.hook_pattern)  # type: ignore[arg-type]
        for module in attn.original_component.modules():  # type: ignore[union-attr]
            if _TAPS not in module.__dict__:  # a deep copy of a model brings its own
                module.__dict__[_TAPS] = taps
                _tapped[model].add(module)


def register() -> None:
    """Make the seam known to transformers (idempotent), and see that it works, once a process.

    The mask function must be registered too: without it padding and causal masks are dropped.
    Where tensors hold no numbers there is nothing to see; a later call looks.

    Raises:
        ProbekitError: it does not work with the versions that are installed.
    """
    from .seam_check import check_seam, tensors_hold_numbers  # which use what is above

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    if not check_seam.cache_info().currsize and tensors_hold_numbers():
        check_seam()


def configs(model: nn.Module) -> list[tuple[nn.Module, PretrainedConfig]]:
    """Every module with a Hugging Face config, and that config; parents first."""
    inner = getattr(model, "original_model", None)
    roots = [root for root in (inner, model) if isinstance(root, nn.Module)]
    return [
        (module, module.__dict__["config"])
        for module in all_modules(*roots)
        if isinstance(module.__dict__.get("config"), PretrainedConfig)
    ]
