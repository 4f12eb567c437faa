"""Mean cosines by bands of path similarity, as published and without overlap.

Path similarities are ``1 / (1 + d)``, d a whole number of edges. The published bands leave out
similarity 1, have one that is always empty, [.9, 1), and count 1/20 in two.

Source: the write-up "Geometric Terrain Analysis", and its critique, section B6.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError

Bounds = tuple[float, float]

_ABOVE_ZERO = math.nextafter(0, 1)
PUBLISHED_BANDS: tuple[Bounds, ...] = (
    (0.9, 1.0),
    (0.5, 0.9),
    (0.25, 0.5),
    (0.1, 0.25),
    (0.05, 0.1),
    (_ABOVE_ZERO, math.nextafter(0.05, 1)),  # (0, .05]
)
"""``low <= similarity < high``; edges: none, 1, 2-3, 4-9, 10-19, 19 and more."""

DISJOINT_BANDS: tuple[Bounds, ...] = (
    (0.9, math.nextafter(1, 2)),
    *PUBLISHED_BANDS[1:-1],
    (_ABOVE_ZERO, 0.05),
)
"""The same as a partition; edges: 0, 1, 2-3, 4-9, 10-19, 20 and more."""


@dataclass(frozen=True)
class Band:
    """Pairs with ``low <= similarity < high`` and their mean cosine, NaN without any."""

    low: float
    high: float
    pairs: int
    mean: float


def band_cosines(
    similarity: Float[Tensor, " pair"],
    cosines: Float[Tensor, " pair"],
    bands: Sequence[Bounds] = PUBLISHED_BANDS,
) -> list[Band]:
    """The mean cosine in each band; the write-up shows bands of 10 pairs or more.

    Raises:
        ProbekitError: other lengths, or a band whose bounds do not rise.
    """
    if len(similarity) != len(cosines):
        raise ProbekitError(
            f"band_cosines needs values of the same pairs, not {len(similarity)} and {len(cosines)}"
        )
    found = []
    for low, high in bands:
        if not low < high:
            raise ProbekitError(f"a band needs low < high, not {low} and {high}")
        own = cosines[(similarity >= low) & (similarity < high)].double()
        found.append(Band(low, high, len(own), float(own.mean())))
    return found
