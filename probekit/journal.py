"""Weights written while attached, and undone in whatever order the attachments end.

Each write keeps what it overwrote. Undoing one that is not the latest first takes the later ones
back, newest first, and then puts them on again, so that after the last one every number is bit
for bit what it was, also where the model has been moved or converted meanwhile (then it is the
old number in the new precision).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .held import settle
from .hooked.parameters import WeightSlice
from .hooked.regions import Region, regions
from .ledger import Ledger

_Values = list[list[Tensor]]


class _Write:
    def __init__(self, places: list[Region]) -> None:
        self.places = places
        self.before = self._read()
        self.values: _Values = []

    def undo(self) -> None:
        self.values = self._read()  # with what training made of them
        self._write(self.before)

    def redo(self) -> None:
        self.before = self._read()
        self._write(self.values)

    def _read(self) -> _Values:
        return [place.read(place.parameter) for place in self.places]

    def _write(self, values: _Values) -> None:
        for place, value in zip(self.places, values, strict=True):
            place.write(place.parameter, value)


@contextmanager
def written(
    model: nn.Module, slices: Sequence[WeightSlice], values: Sequence[Tensor]
) -> Iterator[None]:
    """Write ``values`` into ``slices`` of the parameters of ``model`` until the block ends."""
    journal = Ledger.of(model, "journal")
    settle(model)
    write = _Write(regions(model, slices))
    try:
        journal.append(write)
        with torch.no_grad():
            for each, value in zip(slices, values, strict=True):
                each.view.copy_(value)
        yield
    finally:
        _remove(model, journal, write)


def _remove(model: nn.Module, journal: Ledger, write: _Write) -> None:
    if write not in journal:  # interrupted before anything was written
        return
    settle(model)
    at = journal.index(write)
    for later in reversed(journal[at:]):
        later.undo()
    del journal[at]
    for later in journal[at:]:
        later.redo()
