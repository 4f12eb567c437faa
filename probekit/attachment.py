"""Attaching items to a model: ``attach`` puts hooks in, runs them in order, takes them out.

Guarantees (each has a property test): after exit, by any path, hooks, flags, parameters and
buffers are what they were; items act in the order given at a shared site; every site is resolved
before the first hook is added; a hook that never fired is an error; only hooks that this
attachment added are removed; gradient checkpointing changes no gradient and no reading (see
:mod:`probekit.forwards`).
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from . import seam
from .errors import DecorativeHookError, HookNeverFiredError, ProbekitError, unknown
from .flags import Flags, forward_roots
from .forwards import Forwards
from .hooks import (
    AttachedHook,
    apply_edit,
    forget_masks,
    is_there,
    read_masks,
    recomputing,
    remove_hook,
    token_hook,
    weigh,
)
from .items import (
    Firing,
    Intervention,
    Item,
    Observer,
    WeightChange,
    WeightIntervention,
    describe,
    require_item,
)
from .measurement import Measurement
from .receipt import Receipt, ReceiptRow
from .site import Site, parse_site
from .sitemap import SiteMap
from .streaming import Stream
from .transforms import outside, primal, transformed


def attach(model: nn.Module, *items: Item) -> "Attachment":
    """Attach observers and interventions to ``model``; active until the block or ``detach`` ends.

    Example::

        with pk.attach(model, pk.HeadScale(layer=0, head=0, omega=0.5), pk.VDI()) as run:
            model(tokens)
        run["vdi"].values

    Args:
        model: a model of :func:`probekit.load`, any TransformerLens bridge, or any object with
            TransformerLens hook points and a ``cfg``.
        items: acting, at a shared site, in the order given.

    Raises:
        SiteError: an address matches nothing; DecorativeHookError: an edit there could not reach
        the output; ProbekitError: not an item, or two observers of one name. Nothing has been
        attached or run when these are raised.
        HookNeverFiredError: on a clean exit, when some hook never fired.

    Warns:
        UserWarning: then, when others have removed a hook, by ``model.reset_hooks()`` say.
    """
    return Attachment(model, items)


class Attachment:
    """Items attached to one model; a context manager, also ended by :meth:`detach`.

    ``run[name]`` is an observer's :class:`Measurement` over all forwards so far, ``run.fired``
    how often each hook fired, ``run.receipt`` what each item did.
    """

    def __init__(self, model: nn.Module, items: Sequence[Item]) -> None:
        self.model = model
        self._streams = _streams(items)
        sitemap = SiteMap(model)
        self._hooks = [
            hook
            for item in items
            if not isinstance(item, WeightIntervention)
            for hook in _resolve(item, sitemap)
        ]
        self._weights = [
            (item, item.prepare(model)) for item in items if isinstance(item, WeightIntervention)
        ]
        self._changes: list[tuple[WeightIntervention, WeightChange]] = []
        self._forwards = Forwards()
        self._masked: set[HookPoint] = set()
        self._cleanup = ExitStack()
        self._active = True
        try:
            self._install()
        except BaseException:
            self._remove()
            raise

    def _install(self) -> None:
        self._cleanup.callback(Flags(self.model).restore)
        if any(hook.site.needs_seam for hook in self._hooks):
            seam.acquire(self.model)
            self._cleanup.callback(seam.release, self.model)
        for root in forward_roots(self.model):
            begin = root.register_forward_pre_hook(self._begin, prepend=True)
            self._cleanup.callback(begin.remove)
            end = root.register_forward_hook(self._end, always_call=True)
            self._cleanup.callback(end.remove)
        for item, change in self._weights:
            made = self._cleanup.enter_context(change)
            self._changes += [(item, one) for one in made]
        for point in {hook.tokens_hook for hook in self._hooks} - {None}:
            assert point is not None
            handle = point.add_hook(self._forwards.keep_tokens, prepend=True)
            self._cleanup.callback(remove_hook, point, handle)
        observing = [hook for hook in self._hooks if isinstance(hook.item, Observer)]
        self._masked = read_masks(observing, self._cleanup)
        for hook in self._hooks:
            hook.handle = hook.site.hook.add_hook(self._runner(hook))
            self._cleanup.callback(remove_hook, hook.site.hook, hook.handle)

    def _begin(self, root: nn.Module, *_: Any) -> None:
        self._forwards.begin(root)

    def _end(self, root: nn.Module, *_: Any) -> None:
        if self._forwards.end(root):
            forget_masks(self._masked)

    def _runner(self, hook: AttachedHook) -> Any:
        act = self._observe if isinstance(hook.item, Observer) else self._edit

        def run(tensor: Tensor, hook: HookPoint, _hook: AttachedHook = hook) -> Tensor | None:
            return act(_hook, tensor, self._forwards.firing(_hook, seam.context_of(hook)))

        return run

    def _observe(self, hook: AttachedHook, tensor: Tensor, at: Firing) -> None:
        observer = hook.item
        assert isinstance(observer, Observer)
        stream, again = self._streams[observer.key], recomputing()
        if (again and not observer.differentiable) or not stream.wants(at.iteration):
            return
        around = nullcontext() if observer.differentiable else torch.no_grad()
        if transformed(tensor) and not observer.differentiable:
            # What a transform has wrapped dies with it, and has no memory that could be read.
            context = None if at.attention is None else at.attention.primal()
            tensor, at, around = primal(tensor), replace(at, attention=context), outside()
        with around:
            # Where it asks for gradients also when it is run again: checkpointing compares how
            # many tensors autograd keeps.
            version = None if tensor.is_inference() else tensor._version
            new = observer.measure(tensor if observer.differentiable else tensor.detach(), at)
            if version is not None and tensor._version != version:
                raise ProbekitError(
                    f"{describe(observer)} wrote into the activation at {hook.site}; an observer "
                    "works on a copy, x.clone()"
                )
            if not again:
                stream.add(hook.site, hook.forward, at.iteration, new)

    def _edit(self, hook: AttachedHook, tensor: Tensor, at: Firing) -> Tensor | None:
        item, site = hook.item, hook.site
        assert isinstance(item, Intervention)
        power_of_two = hook.fired & (hook.fired - 1) == 0 and not recomputing()
        before = tensor.detach().clone() if power_of_two else None
        edited = apply_edit(item, site, tensor, at)
        if site.write == "in place":
            edited = tensor.copy_(edited)
        if before is not None:
            weigh(hook, before, edited, in_place=edited is tensor)
        return None if edited is tensor else edited

    def __enter__(self) -> "Attachment":
        if not self._active:
            raise ProbekitError("this attachment has ended; call pk.attach again for another")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lost = self._lost()
        self._remove()
        if error is None:
            self._check_fired()
            _warn_of(lost)

    def detach(self) -> None:
        """Remove every hook of this attachment; a second call does nothing.

        Raises:
            HookNeverFiredError: some hook never fired (everything has been removed by then).
        """
        if self._active:
            lost = self._lost()
            self._remove()
            self._check_fired()
            _warn_of(lost)

    def _remove(self) -> None:
        self._active = False
        self._cleanup.close()

    def _lost(self) -> list[AttachedHook]:
        """The hooks that others have taken out."""
        return [hook for hook in self._hooks if self._active and not is_there(hook)]

    def _check_fired(self) -> None:
        never = [hook for hook in self._hooks if not hook.fired]
        if never:
            raise HookNeverFiredError(
                _never_fired(never, run=self._forwards.count > 0 or len(never) < len(self._hooks))
            )

    def __getitem__(self, name: str) -> Measurement:
        if name not in self._streams:
            raise ProbekitError(unknown("observer of this attachment", name, self._streams))
        return self._streams[name].result()

    def __iter__(self) -> Iterator[str]:
        return iter(self._streams)

    def keys(self) -> list[str]:
        """The names of the observers."""
        return list(self._streams)

    _ipython_key_completions_ = keys

    @property
    def fired(self) -> dict[str, int]:
        """How often each hook fired, by hook name."""
        return {hook.site.name: hook.fired for hook in self._hooks}

    @property
    def receipt(self) -> Receipt:
        """What each item did at each of its sites."""
        return Receipt(
            tuple(
                ReceiptRow(
                    describe(hook.item),
                    str(hook.site),
                    hook.site.name,
                    hook.fired,
                    hook.edit,
                    hook.change,
                )
                for hook in self._hooks
            )
            + tuple(
                ReceiptRow(
                    describe(item), change.address, change.parameter, 0, change.edit, change.norm
                )
                for item, change in self._changes
            )
        )

    def __repr__(self) -> str:
        state = "attached" if self._active else "detached"
        return (
            f"Attachment({type(self.model).__name__}, {len(self._hooks)} hooks, {state}, "
            f"results: {', '.join(self._streams) or 'none'})"
        )

    def _repr_html_(self) -> str:
        return self.receipt._repr_html_()


def _streams(items: Sequence[Item]) -> dict[str, Stream]:
    streams: dict[str, Stream] = {}
    for item in items:
        require_item(item)
        if isinstance(item, Observer):
            if item.key in streams:
                raise ProbekitError(
                    f"two observers are named {item.key!r}; give one of them another name=..."
                )
            streams[item.key] = Stream(item)
    return streams


def _resolve(item: Observer | Intervention, sitemap: SiteMap) -> list[AttachedHook]:
    wanted = item.sites()
    addresses = (wanted,) if isinstance(wanted, str | Site) else wanted
    sites = [found for each in addresses for found in sitemap.resolve(parse_site(each))]
    if isinstance(item, Intervention):
        for site in sites:
            if site.write == "refused":
                raise DecorativeHookError(
                    f"{describe(item)} at {site} ({site.name}): {site.why_not}"
                )
    tokens = [token_hook(sitemap.model, site) if item.needs_tokens else None for site in sites]
    return [
        AttachedHook(item, site, tokens_hook=hook) for site, hook in zip(sites, tokens, strict=True)
    ]


def _warn_of(lost: list[AttachedHook]) -> None:
    if lost:
        warnings.warn(
            f"hooks of this attachment were removed while it was attached, {len(lost)} of them, as "
            f"at {lost[0].site.name} (model.reset_hooks() does so); later forwards ran without",
            stacklevel=3,
        )


def _never_fired(hooks: list[AttachedHook], run: bool) -> str:
    names = ", ".join(hook.site.name for hook in hooks[:3]) + (", ..." if len(hooks) > 3 else "")
    if not run:
        return f"the model was never run while attached, so nothing fired at {names}"
    return (
        f"{len(hooks)} hooks never fired: {names}. That part of the model did not run in this "
        "forward, or TransformerLens wires no call there (a flag such as cfg.use_attn_result, an "
        "attention implementation that keeps no pattern); pk.list_sites(model) shows the sites"
    )
