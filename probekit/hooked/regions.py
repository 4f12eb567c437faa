"""Where numbers lie, for good: rectangles of parameters.

A view is lost when ``model.double()`` or ``model.to(device)`` gives a parameter new memory. A
parameter and a rectangle of it are not; and where parameters share memory (GPT-2's Q is a part
of its fused projection) each of them gets its own, since after such a move they no longer do.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .parameters import WeightSlice

Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Region:
    """Some of the numbers of one parameter; ``boxes`` tile them, None means all."""

    parameter: nn.Parameter
    boxes: tuple[Box, ...] | None

    def views(self, tensor: Tensor) -> list[Tensor]:
        """Those numbers of ``tensor``, shaped like the parameter, without their graph."""
        tensor = tensor.detach()
        return [tensor] if self.boxes is None else [tensor[box] for box in self.boxes]

    def read(self, tensor: Tensor) -> list[Tensor]:
        """Copies of them."""
        return [view.clone() for view in self.views(tensor)]

    @torch.no_grad()
    def write(self, tensor: Tensor, values: list[Tensor]) -> None:
        """Set them, in the tensor's own precision and place."""
        for view, value in zip(self.views(tensor), values, strict=True):
            view.copy_(value)

    @torch.no_grad()
    def zero(self, tensor: Tensor) -> None:
        for view in self.views(tensor):
            view.zero_()

    def without(self, gradient: Tensor) -> Tensor:
        """``gradient`` with zeros there, differentiable."""
        if self.boxes is None:
            return torch.zeros_like(gradient)
        rest = gradient.clone()
        for box in self.boxes:
            rest[box] = 0
        return rest


def regions(model: nn.Module, slices: Iterable[WeightSlice]) -> list[Region]:
    """Where the numbers of ``slices`` lie, in every parameter that holds some of them now."""
    shadows: dict[int, Tensor | None] = {}  # by storage: which of its numbers; None means all
    for each in slices:
        storage = each.view.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes() // each.view.element_size()
        if each.view.numel() == size:
            shadows[place] = None
        elif place not in shadows:
            shadows[place] = torch.zeros(size, dtype=torch.bool, device=each.view.device)
        shadow = shadows[place]
        if shadow is not None:
            _same_memory(shadow, each.view).fill_(True)
    found: list[Region] = []
    for parameter in dict.fromkeys(model.parameters()):
        place = parameter.untyped_storage().data_ptr()
        if place not in shadows or not parameter.numel():
            continue
        shadow = shadows[place]
        mask = None if shadow is None else _same_memory(shadow, parameter)
        if mask is None or mask.all():
            found.append(Region(parameter, None))
        elif mask.any():
            found.append(Region(parameter, tuple(_boxes(mask.cpu()))))
    return found


def _same_memory(shadow: Tensor, tensor: Tensor) -> Tensor:
    """The elements of ``shadow``, as long as the storage, that lie where those of ``tensor`` do."""
    return shadow.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _boxes(mask: Tensor) -> list[Box]:
    """Rectangles that tile the true part of ``mask``: runs of equal rows, then within a row."""
    if not mask.ndim:
        return [()] if mask else []
    change = (mask[1:] != mask[:-1]).reshape(len(mask) - 1, -1).any(1).nonzero().flatten() + 1
    return [
        (slice(start, stop), *rest)
        for start, stop in pairwise([0, *change.tolist(), len(mask)])
        for rest in _boxes(mask[start])
    ]
