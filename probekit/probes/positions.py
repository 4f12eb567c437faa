"""Which positions a probe reads: checked when it is built, marked when a sequence is seen."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from ..errors import ProbekitError


def checked_positions(
    positions: Sequence[int] | None, word: str = "positions"
) -> tuple[int, ...] | None:
    """The positions as a tuple of whole numbers, or None for all; ``word`` names the argument.

    Raises:
        ProbekitError: empty, or not whole numbers.
    """
    if positions is None:
        return None
    chosen = tuple(positions)
    if not chosen or not all(isinstance(position, int) for position in chosen):
        raise ProbekitError(f"{word} are whole numbers, such as (5,), not {positions!r}")
    return chosen


def chosen_positions(
    positions: Sequence[int], length: int, device: torch.device, word: str = "positions"
) -> Bool[Tensor, " length"]:
    """True at the chosen positions of a sequence of ``length``; negative ones count from its end.

    Raises:
        ProbekitError: some of them lie outside.
    """
    outside = [position for position in positions if not -length <= position < length]
    if outside:
        raise ProbekitError(
            f"{word}={tuple(positions)}: {outside} lie outside the {length} positions"
        )
    chosen = torch.zeros(length, dtype=torch.bool, device=device)
    chosen[list(positions)] = True
    return chosen
