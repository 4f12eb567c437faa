"""Attaching items to a model: ``attach`` puts hooks in, runs them in order, takes them out.

Guarantees (each has a property test): after exit, by any path, hooks, flags, parameters and
buffers are what they were; items act in the order given at a shared site; every site is resolved
before the first hook is added; a hook that never fired is an error; only hooks that this
attachment added are removed.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint, LensHandle

from . import seam
from .errors import DecorativeHookError, HookNeverFiredError, ProbekitError, unknown
from .items import Firing, Intervention, Item, Observer, describe
from .measurement import Measurement
from .receipt import Receipt, ReceiptRow
from .sitemap import HookSite, SiteMap
from .streaming import Stream


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
    """
    return Attachment(model, items)


@dataclass
class _Hook:
    """One item at one site, while attached."""

    item: Item
    site: HookSite
    fired: int = 0
    forward: int = -1
    iteration: int = 0
    edit: str = "none"
    change: float | None = None
    handle: LensHandle | None = None


@dataclass(eq=False)
class _State:
    """What must be as it was: module modes and requires_grad."""

    modes: list[tuple[nn.Module, bool]] = field(default_factory=list)
    grads: list[tuple[nn.Parameter, bool]] = field(default_factory=list)

    @classmethod
    def of(cls, model: nn.Module) -> "_State":
        # Both roots: a wrapped model is no submodule of its bridge, nor are all of its modules.
        modules = {module: None for root in _roots(model) for module in root.modules()}
        parameters = {p: None for root in _roots(model) for p in root.parameters()}
        return cls(
            [(module, module.training) for module in modules],
            [(parameter, parameter.requires_grad) for parameter in parameters],
        )

    def restore(self) -> None:
        for module, training in self.modes:
            module.training = training
        for parameter, requires_grad in self.grads:
            parameter.requires_grad_(requires_grad)


class Attachment:
    """Items attached to one model; a context manager, also ended by :meth:`detach`.

    ``run[name]`` is an observer's :class:`Measurement` over all forwards so far, ``run.fired``
    how often each hook fired, ``run.receipt`` what each item did.
    """

    def __init__(self, model: nn.Module, items: Sequence[Item]) -> None:
        self.model = model
        self._streams = _streams(items)
        sitemap = SiteMap(model)
        self._hooks = [hook for item in items for hook in _resolve(item, sitemap)]
        self._forward, self._depth = 0, 0
        self._cleanup = ExitStack()
        self._active = True
        try:
            self._install()
        except BaseException:
            self._remove()
            raise

    def _install(self) -> None:
        self._cleanup.callback(_State.of(self.model).restore)
        if any(hook.site.needs_seam for hook in self._hooks):
            seam.acquire(self.model)
            self._cleanup.callback(seam.release, self.model)
        for root in _roots(self.model):
            begin = root.register_forward_pre_hook(self._begin, prepend=True)
            self._cleanup.callback(begin.remove)
            end = root.register_forward_hook(self._end, always_call=True)
            self._cleanup.callback(end.remove)
        _read_masks([h for h in self._hooks if isinstance(h.item, Observer)], self._cleanup)
        for hook in self._hooks:
            hook.handle = hook.site.hook.add_hook(self._runner(hook))
            self._cleanup.callback(_remove_hook, hook.site.hook, hook.handle)

    def _begin(self, *_: Any) -> None:
        if self._depth == 0:
            self._forward += 1
        self._depth += 1

    def _end(self, *_: Any) -> None:
        self._depth -= 1

    def _runner(self, hook: _Hook) -> Any:
        act = self._observe if isinstance(hook.item, Observer) else self._edit

        def run(tensor: Tensor, hook: HookPoint, _hook: _Hook = hook) -> Tensor | None:
            _hook.fired += 1
            # Outside any forward (a block called by hand) each firing is its own forward.
            forward = self._forward if self._depth else -_hook.fired
            _hook.iteration = _hook.iteration + 1 if forward == _hook.forward else 0
            _hook.forward = forward
            at = Firing(_hook.site, _hook.iteration, seam.context_of(hook))
            return act(_hook, tensor, at)

        return run

    def _observe(self, hook: _Hook, tensor: Tensor, at: Firing) -> None:
        observer = hook.item
        assert isinstance(observer, Observer)
        stream = self._streams[observer.key]
        if not stream.wants(at.iteration):
            return
        if observer.differentiable:
            stream.add(hook.site, hook.forward, at.iteration, observer.measure(tensor, at))
            return
        with torch.no_grad():
            stream.add(hook.site, hook.forward, at.iteration, observer.measure(tensor.detach(), at))

    def _edit(self, hook: _Hook, tensor: Tensor, at: Firing) -> Tensor | None:
        item, site = hook.item, hook.site
        assert isinstance(item, Intervention)
        weigh = hook.fired & (hook.fired - 1) == 0
        before = tensor.detach().clone() if weigh else None
        edited = _apply(item, site, tensor, at)
        if site.write == "in place":
            edited = tensor.copy_(edited)
        if before is not None:
            _weigh(hook, before, edited, in_place=edited is tensor)
        return None if edited is tensor else edited

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()
        if error is None:
            self._check_fired()

    def detach(self) -> None:
        """Remove every hook of this attachment; a second call does nothing.

        Raises:
            HookNeverFiredError: some hook never fired (everything has been removed by then).
        """
        if self._active:
            self._remove()
            self._check_fired()

    def _remove(self) -> None:
        self._active = False
        self._cleanup.close()

    def _check_fired(self) -> None:
        never = [hook for hook in self._hooks if not hook.fired]
        if never:
            raise HookNeverFiredError(_never_fired(never, self._forward))

    def __getitem__(self, name: str) -> Measurement:
        if name not in self._streams:
            raise ProbekitError(unknown("observer of this attachment", name, self._streams))
        return self._streams[name].result()

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
        if not isinstance(item, (Observer, Intervention)):
            raise ProbekitError(
                f"{item!r} is neither an observer nor an intervention; "
                "see pk.list_probes() and pk.list_interventions()"
            )
        if isinstance(item, Observer):
            if item.key in streams:
                raise ProbekitError(
                    f"two observers are named {item.key!r}; give one of them another name=..."
                )
            streams[item.key] = Stream(item)
    return streams


def _resolve(item: Item, sitemap: SiteMap) -> list[_Hook]:
    sites = [found for site in item.sites() for found in sitemap.resolve(site)]
    if isinstance(item, Intervention):
        for site in sites:
            if site.write == "refused":
                raise DecorativeHookError(
                    f"{describe(item)} at {site} ({site.name}): {site.why_not}"
                )
    return [_Hook(item, site) for site in sites]


def _roots(model: nn.Module) -> list[nn.Module]:
    """The modules whose call is a forward pass: the bridge, and the model that it wraps."""
    inner = getattr(model, "original_model", None)
    return [model] + ([inner] if isinstance(inner, nn.Module) and inner is not model else [])


def _read_masks(hooks: list[_Hook], cleanup: ExitStack) -> None:
    """Where TransformerLens computes the attention itself, pass its mask on from the scores.

    The seam publishes mask and scores; elsewhere an observer of the pattern gets them from here.
    """
    read: set[HookPoint] = set()
    for hook in hooks:
        pattern, scores = hook.site.hook, hook.site.scores_hook
        if hook.site.part != "pattern" or scores is None or pattern in read:
            continue

        def publish(tensor: Tensor, hook: HookPoint, _pattern: HookPoint = pattern) -> None:
            seam.publish_context(_pattern, seam.AttentionContext(tensor.detach()))

        cleanup.callback(_remove_hook, scores, scores.add_hook(publish, prepend=True))
        cleanup.callback(seam.publish_context, pattern, None)
        read.add(pattern)


def _remove_hook(point: HookPoint, handle: LensHandle) -> None:
    handle.hook.remove()
    point.fwd_hooks[:] = [kept for kept in point.fwd_hooks if kept is not handle]


def _apply(item: Intervention, site: HookSite, tensor: Tensor, at: Firing) -> Tensor:
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
    return after


def _weigh(hook: _Hook, before: Tensor, after: Tensor, in_place: bool) -> None:
    change = float((after.detach() - before).norm())
    hook.change = max(change, hook.change or 0.0)
    if hook.change:
        hook.edit = "in place" if in_place else "returned"


def _never_fired(hooks: list[_Hook], forwards: int) -> str:
    names = ", ".join(hook.site.name for hook in hooks[:3]) + (", ..." if len(hooks) > 3 else "")
    if not forwards:
        return f"the model was never run while attached, so nothing fired at {names}"
    return (
        f"{len(hooks)} hooks never fired: {names}. That part of the model did not run in this "
        "forward, or TransformerLens wires no call there (a flag such as cfg.use_attn_result, an "
        "attention implementation that keeps no pattern); pk.list_sites(model) shows the sites"
    )
