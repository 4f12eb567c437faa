"""Accumulating an observer's statistics over forwards, and over firings within one forward."""

from dataclasses import replace
from typing import Any

import torch

from .errors import ProbekitError
from .hooksite import HookSite
from .items import Observer
from .measurement import Measurement, padded


class Stream:
    """The running statistics of one observer in one attachment.

    With ``iterations="last"`` the statistics of the newest firing wait until the next forward
    begins: only then is it known to have been the last.
    """

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._totals: dict[int | None, dict[HookSite, Any]] = {}
        self._pending: dict[HookSite, tuple[int, Any]] = {}

    def wants(self, iteration: int) -> bool:
        """Whether this firing counts under the observer's ``iterations``."""
        every = self.observer.iterations
        if every == "first":
            return iteration == 0
        return every in ("last", "all") or iteration % int(every) == 0

    def add(self, site: HookSite, forward: int, iteration: int, new: Any) -> None:
        """Fold one firing in."""
        if self.observer.iterations == "last":
            waiting = self._pending.get(site)
            if waiting and waiting[0] != forward:
                self._fold(None, site, waiting[1])
            self._pending[site] = (forward, new)
        else:
            self._fold(None if self.observer.iterations == "first" else iteration, site, new)

    def _fold(self, iteration: int | None, site: HookSite, new: Any) -> None:
        totals = self._totals.setdefault(iteration, {})
        totals[site] = self.observer.combine(totals[site], new) if site in totals else new

    def result(self) -> Measurement:
        """The measurement over everything seen so far; the stream goes on.

        Raises:
            ProbekitError: nothing has fired yet.
        """
        for site, (_, waiting) in self._pending.items():
            self._fold(None, site, waiting)
        self._pending.clear()
        if not self._totals:
            raise ProbekitError(
                f"observer {self.observer.key!r} has seen nothing yet; run the model first"
            )
        if None in self._totals:
            return self.observer.finish(self._totals[None])
        sets = {frozenset(map(str, totals)) for totals in self._totals.values()}
        if len(sets) > 1:
            raise ProbekitError(
                f"observer {self.observer.key!r}: its sites fired different numbers of times in a "
                "forward (such as an encoder once, a decoder at each step); give it a site of one "
                "stack, or iterations='last'"
            )
        return _over_iterations(
            {iteration: self.observer.finish(t) for iteration, t in sorted(self._totals.items())}
        )


def _over_iterations(results: dict[Any, Measurement]) -> Measurement:
    measured = list(results.values())
    first, rows = measured[0], [result.rows for result in measured]
    # A forward with fewer iterations may also have been a shorter one: its rows end earlier.
    coords = {dim: max((r.coords[dim] for r in measured), key=len) for dim in first.dims}
    shape = tuple(map(len, coords.values()))
    nulls = [r.null.expand_as(r.values) for r in measured if r.null is not None]
    return replace(
        first,
        values=torch.stack([padded(result.values, shape) for result in measured]),
        null=torch.stack([padded(null, shape) for null in nulls]) if nulls else None,
        dims=("iteration", *first.dims),
        coords={"iteration": list(results), **coords},
        rows=None
        if first.rows is None
        else _over_iterations({k: row for k, row in zip(results, rows, strict=True) if row}),
    )
