"""The effect-size guard: run a model without and with interventions, and compare the outputs."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .attachment import attach
from .errors import ProbekitError
from .items import (
    Firing,
    Intervention,
    Item,
    WeightIntervention,
    describe,
    require_item,
)
from .receipt import Receipt
from .site import Site


class _Tap(Intervention):
    """Hooks where another intervention hooks, and edits nothing."""

    def __init__(self, item: Intervention) -> None:
        self._item = item

    def __repr__(self) -> str:
        return describe(self._item)

    def sites(self) -> tuple[Site, ...]:
        return self._item.sites()

    def edit(self, x: Tensor, at: Firing) -> Tensor:
        return x


def verify(model: nn.Module, items: Item | Sequence[Item], *inputs: Any, **kwargs: Any) -> Receipt:
    """Run once without and once with ``items``, on the same attention path and random state.

    Args:
        items: one item or several; observers run along.
        inputs, kwargs: of the model's forward.

    Returns:
        the receipt, with ``output_change``: the largest absolute difference in any output.

    Raises:
        ProbekitError: there is no intervention among ``items``; and whatever ``attach`` raises.

    Warns:
        UserWarning: an edit was non-zero and no output moved by one bit (``receipt.silent``).
    """
    chosen = list(items) if isinstance(items, Sequence) else [items]
    for item in chosen:
        require_item(item)
    if not any(isinstance(item, Intervention | WeightIntervention) for item in chosen):
        raise ProbekitError("verify needs at least one intervention")
    # Hooks at the same sites: an untapped baseline would run SDPA and differ in rounding.
    taps = [
        _Tap(item) if isinstance(item, Intervention) else item
        for item in chosen
        if not isinstance(item, WeightIntervention)
    ]
    before, _ = _run(model, taps, inputs, kwargs)
    after, receipt = _run(model, chosen, inputs, kwargs)
    receipt = replace(receipt, output_change=_largest_change(before, after))
    if receipt.silent:
        warnings.warn(
            f"an edit was applied and the output did not change by one bit:\n{receipt}",
            stacklevel=2,
        )
    return receipt


def _run(
    model: nn.Module, items: Sequence[Item], inputs: tuple, kwargs: Mapping[str, Any]
) -> tuple[list[Tensor], Receipt]:
    devices = [0] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.no_grad(), attach(model, *items) as run:
        output = model(*inputs, **kwargs)
    return list(_tensors(output)), run.receipt


def _tensors(output: Any) -> Iterator[Tensor]:
    """Every floating-point tensor in an output of any nesting."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output.detach()
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)


def _largest_change(before: list[Tensor], after: list[Tensor]) -> float:
    if not before:
        raise ProbekitError("the model's output holds no floating-point tensor to compare")
    if [t.shape for t in before] != [t.shape for t in after]:
        return float("inf")
    changes = [(b - a).abs().max().double() for b, a in zip(before, after, strict=True)]
    return float(torch.stack(changes).max())  # NaN stays NaN
