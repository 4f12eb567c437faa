"""Weights written while attached, and undone in whatever order the attachments end.

Each write keeps what it overwrote. Undoing one that is not the latest first takes the later ones
back, newest first, and then puts them on again, so that after the last one every number is bit
for bit what it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


@dataclass(eq=False)
class _Write:
    views: Sequence[Tensor]
    values: Sequence[Tensor]
    before: list[Tensor] = field(default_factory=list)

    def apply(self) -> None:
        self.before = [view.clone() for view in self.views]
        for view, value in zip(self.views, self.values, strict=True):
            view.copy_(value)

    def undo(self) -> None:
        self.values = [view.clone() for view in self.views]  # with what training made of them
        for view, value in zip(self.views, self.before, strict=True):
            view.copy_(value)


_writes: "WeakKeyDictionary[nn.Module, list[_Write]]" = WeakKeyDictionary()


@contextmanager
def written(model: nn.Module, views: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Write ``values`` into ``views`` of the parameters of ``model`` until the block ends."""
    journal = _writes.setdefault(model, [])
    write = _Write(views, values)
    with torch.no_grad():
        write.apply()
    journal.append(write)
    try:
        yield
    finally:
        _remove(journal, write)


@torch.no_grad()
def _remove(journal: list[_Write], write: _Write) -> None:
    at = journal.index(write)
    for later in reversed(journal[at:]):
        later.undo()
    del journal[at]
    for later in journal[at:]:
        later.apply()
