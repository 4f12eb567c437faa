"""The mechanics under an attachment: hooks put in and out, one edit applied."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint, LensHandle

from . import seam
from .errors import ProbekitError, SiteError
from .hooksite import HookSite, hook_points
from .items import Firing, Intervention, Item, describe


@dataclass(eq=False)
class AttachedHook:
    """One item at one site, while attached."""

    item: Item
    site: HookSite
    fired: int = 0
    by_hand: int = 0  # of these, outside any forward
    forward: int = 0  # real ones count from 1
    iteration: int = 0
    edit: str = "none"
    change: float | None = None
    handle: LensHandle | None = None
    tokens_hook: HookPoint | None = None


def recomputing() -> bool:
    """Whether this thread is in a backward pass, where what fires has fired before: see
    :mod:`probekit.forwards`."""
    return torch._C._current_graph_task_id() != -1


def read_masks(hooks: list[AttachedHook], cleanup: ExitStack) -> set[HookPoint]:
    """Where TransformerLens computes the attention itself, pass its mask on from the scores.

    The seam publishes mask and scores; elsewhere an observer of the pattern gets them from here.
    Returns the patterns whose context is published so; :func:`forget_masks` withdraws it.
    """
    read: set[HookPoint] = set()
    # Only these are measured once more in a backward pass.
    differentiable = {h.site.hook for h in hooks if getattr(h.item, "differentiable", False)}
    for hook in hooks:
        pattern, scores = hook.site.hook, hook.site.scores_hook
        if hook.site.part != "pattern" or scores is None or pattern in read:
            continue

        def publish(tensor: Tensor, hook: HookPoint, _pattern: HookPoint = pattern) -> None:
            if _pattern in differentiable or not recomputing():
                seam.publish_context(_pattern, seam.AttentionContext(tensor.detach()))

        cleanup.callback(remove_hook, scores, scores.add_hook(publish, prepend=True))
        read.add(pattern)
    cleanup.callback(forget_masks, read)
    return read


def forget_masks(patterns: Iterable[HookPoint]) -> None:
    """Let go of the last scores that :func:`read_masks` published; they are large."""
    for pattern in patterns:
        seam.publish_context(pattern, None)


def token_hook(model: nn.Module, site: HookSite) -> HookPoint:
    """The hook that sees the token ids which the stack of ``site`` embeds.

    Raises:
        SiteError: that stack embeds no tokens.
    """
    hooks = hook_points(model)
    # What belongs to no stack (logits) belongs to the decoder where there is one.
    for stack in dict.fromkeys((site.stack, site.stack or "decoder")):
        name = f"{stack}_embed" if stack else "embed"
        embedding = getattr(getattr(model, name, None), "original_component", None)
        embeds = isinstance(embedding, nn.Embedding) or hasattr(embedding, "token_embedding")
        if embeds and f"{name}.hook_in" in hooks:
            return hooks[f"{name}.hook_in"]
    raise SiteError(f"site '{site}' belongs to a stack that embeds no token ids")


def remove_hook(point: HookPoint, handle: LensHandle) -> None:
    """Take out one hook, and no other."""
    handle.hook.remove()
    point.fwd_hooks[:] = [kept for kept in point.fwd_hooks if kept is not handle]


def is_there(hook: AttachedHook) -> bool:
    """Whether a hook that was put in still is where it was put."""
    assert hook.handle is not None
    return hook.handle.hook.id in hook.site.hook._forward_hooks


def apply_edit(item: Intervention, site: HookSite, tensor: Tensor, at: Firing) -> Tensor:
    """The whole tensor after ``item`` has edited it, or the head of it that the site names.

    Raises:
        ProbekitError: the edit returned no tensor, or one of another shape.
    """
    # An edit written into the residual must not read the tensor that it overwrites.
    source = tensor.clone() if site.write == "in place" else tensor
    if site.head is None:
        return _checked(item, site, source, item.edit(source, at))
    part = site.narrow(source)
    edited = _checked(item, site, part, item.edit(part, at))
    whole = source.clone()
    site.narrow(whole).copy_(edited)
    return whole


def _checked(item: Intervention, site: HookSite, before: Tensor, after: Any) -> Tensor:
    if not isinstance(after, Tensor):
        raise ProbekitError(
            f"{describe(item)} at {site} returned {type(after).__name__}; an edit returns a tensor"
        )
    if after.shape != before.shape:
        raise ProbekitError(
            f"{describe(item)} at {site} returned shape {tuple(after.shape)}, "
            f"not {tuple(before.shape)}"
        )
    if after.dtype != before.dtype:
        raise ProbekitError(
            f"{describe(item)} at {site} returned {after.dtype}, not {before.dtype}"
        )
    return after


def weigh(hook: AttachedHook, before: Tensor, after: Tensor, in_place: bool) -> None:
    """Note in the receipt how far an edit went."""
    change = float((after.detach() - before).norm())
    hook.change = max(change, hook.change or 0.0)
    if hook.change:
        hook.edit = "in place" if in_place else "returned"
