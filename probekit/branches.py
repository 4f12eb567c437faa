"""Several settings of interventions in one forward: the batch repeated, each copy edited apart."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .attachment import attach
from .errors import ProbekitError
from .hooksite import HookSite
from .items import (
    Firing,
    Intervention,
    Item,
    Observer,
    WeightIntervention,
    describe,
    require_item,
)
from .measurement import Measurement
from .site import Site

#: Named inputs that carry the batch, the likeliest first.
_BATCHED = ("input", "input_ids", "pixel_values", "inputs_embeds", "decoder_input_ids")
_PLAIN = (bool, int, float, complex, str, torch.dtype, torch.device)


@dataclass(frozen=True)
class Branch:
    """What one setting gave: its output, and its observers' results by name."""

    items: tuple[Item, ...]
    output: Any
    measurements: Mapping[str, Measurement]

    def __getitem__(self, name: str) -> Measurement:
        return self.measurements[name]


def sweep(
    model: nn.Module, settings: Iterable[Item | Sequence[Item]], *inputs: Any, **kwargs: Any
) -> list[Branch]:
    """Run ``model`` under each setting, all in one forward.

    Every input is repeated once a setting along its batch, and each item acts on its own copy of
    the whole batch: it sees what it would see in a forward of its own, so that also what depends
    on the batch (a Clamp by the batch's mean) is exact. Numbers differ from separate forwards only
    by the rounding of larger matrix products; and, in training mode, by dropout, which each copy
    draws for itself: call ``model.eval()`` first, or two equal settings differ. No gradients.

    The batch is that of the first positional tensor, or else of ``input_ids``, ``pixel_values`` and
    the like. Tensors of another first axis, such as a mask for all examples, are shared by all
    settings, and so are vectors of whole numbers, such as ``position_ids``.

    Args:
        settings: an item or a sequence of items each; an empty sequence is the unedited model.
        inputs, kwargs: of the model's forward; tensors have the batch first.

    Raises:
        ProbekitError: no settings, or one that is no item; an intervention on weights, which all
        copies share, or an observer that asks for gradients; inputs without a batch, or of a kind
        that cannot be repeated (a cache); an output or a site that is not resolved by example
        (CLIP's similarity matrix).
    """
    each = _checked(settings)
    batch = _batch(inputs, kwargs)
    count = len(each)
    parts = [
        _OneEdited(item, index, count)
        if isinstance(item, Intervention)
        else _OneRead(item=item, index=index, count=count)
        for index, items in enumerate(each)
        for item in items
        if isinstance(item, Intervention | Observer)
    ]
    with torch.no_grad(), attach(model, *parts) as run:
        output = model(
            *(_repeated(value, batch, count) for value in inputs),
            **{name: _repeated(value, batch, count) for name, value in kwargs.items()},
        )
    return [
        Branch(
            items,
            _own(output, index, count, batch),
            {i.key: run[f"{i.key}[{index}]"] for i in items if isinstance(i, Observer)},
        )
        for index, items in enumerate(each)
    ]


class _OneEdited(Intervention):
    """An intervention on the examples of one setting."""

    def __init__(self, item: Intervention, index: int, count: int) -> None:
        self._item, self._index, self._count = item, index, count
        self.needs_tokens = item.needs_tokens  # type: ignore[misc]

    def sites(self) -> tuple[Site, ...]:
        return self._item.sites()

    def edit(self, x: Tensor, at: Firing) -> Tensor:
        parts = list(x.chunk(self._count))
        own = _at(x, at, self._index, self._count)
        parts[self._index] = self._item.edit(parts[self._index], own)
        return torch.cat(parts)


@dataclass(frozen=True, kw_only=True)
class _OneRead(Observer):
    """An observer of the examples of one setting."""

    item: Observer
    index: int
    count: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.item.key}[{self.index}]")
        object.__setattr__(self, "iterations", self.item.iterations)
        object.__setattr__(self, "needs_tokens", self.item.needs_tokens)

    def sites(self) -> tuple[Site, ...]:
        return self.item.sites()

    def measure(self, x: Tensor, at: Firing) -> Any:
        own = _at(x, at, self.index, self.count)
        return self.item.measure(x.chunk(self.count)[self.index], own)

    def combine(self, total: Any, new: Any) -> Any:
        return self.item.combine(total, new)

    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        return self.item.finish(totals)


def _at(x: Tensor, at: Firing, index: int, count: int) -> Firing:
    """The firing as the setting would see it alone."""
    if len(x) % count:
        raise ProbekitError(
            f"{at.site} has {len(x)} entries along its first axis, so it is not resolved by "
            f"example and cannot be shared by {count} settings; run them one by one"
        )
    return replace(
        at,
        attention=at.attention and at.attention.part(index, count),
        tokens=None if at.tokens is None else at.tokens.chunk(count)[index],
    )


def _checked(settings: Any) -> list[tuple[Item, ...]]:
    """The items of each setting."""
    if isinstance(settings, Item) or not isinstance(settings, Iterable):
        raise ProbekitError(f"settings are a list, of items or of lists of them, not {settings!r}")
    each: list[tuple[Item, ...]] = []
    for one in settings:
        items: tuple[Any, ...]
        items = tuple(one) if isinstance(one, Sequence) and not isinstance(one, str) else (one,)
        for item in items:
            require_item(item)
            _require_shareable(item)
        each.append(items)
    if not each:
        raise ProbekitError("sweep was given no setting; () is the unedited model")
    return each


def _require_shareable(item: Item) -> None:
    if isinstance(item, WeightIntervention):
        raise ProbekitError(
            f"{describe(item)} changes weights, which all settings of one forward share; "
            "attach it around the sweep, or run the settings one by one"
        )
    if isinstance(item, Observer) and item.differentiable:
        raise ProbekitError(
            f"{describe(item)} asks for gradients, and a sweep runs without; attach it in a "
            "forward of its own"
        )


def _batch(inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    named = [kwargs.get(name) for name in _BATCHED]
    for value in (*inputs, *named, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim and not _is_vector_of_indices(value):
            return len(value)
    raise ProbekitError("sweep needs at least one tensor input with a batch")


def _repeated(value: Any, batch: int, count: int) -> Any:
    if isinstance(value, Tensor):
        shared = value.ndim == 0 or len(value) != batch or _is_vector_of_indices(value)
        return value if shared else torch.cat([value] * count)
    if value is None or isinstance(value, _PLAIN):
        return value
    raise ProbekitError(
        f"an input of type {type(value).__name__} cannot be repeated for each setting; give "
        "tensors, or run the settings one by one"
    )


def _is_vector_of_indices(value: Tensor) -> bool:
    """Such as position_ids and cache_position, which are for all examples."""
    return value.ndim == 1 and not value.is_floating_point()


def _own(output: Any, index: int, count: int, batch: int) -> Any:
    """The part of an output, of any nesting, that belongs to one setting."""
    if isinstance(output, Tensor):
        if output.ndim == 0 or len(output) != batch * count:
            raise ProbekitError(
                f"an output of shape {tuple(output.shape)} is not resolved by example; run the "
                "settings one by one"
            )
        return output.chunk(count)[index]
    if isinstance(output, Mapping):
        if "logits_per_image" in output:
            raise ProbekitError(
                "a contrastive output compares each example with all others; run the settings one "
                "by one, or sweep one tower"
            )
        return type(output)(
            **{name: _own(value, index, count, batch) for name, value in output.items()}
        )
    if isinstance(output, tuple | list):
        parts = [_own(value, index, count, batch) for value in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    if hasattr(output, "batch_select_indices"):  # a cache of keys and values
        part = copy.deepcopy(output)
        part.batch_select_indices(torch.arange(index * batch, (index + 1) * batch))
        return part
    if output is None or isinstance(output, _PLAIN):
        return output
    raise ProbekitError(
        f"an output of type {type(output).__name__} cannot be split into settings; run them one by "
        "one, or turn that output off"
    )
