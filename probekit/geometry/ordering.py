"""Whether items with a natural order, such as digits, lie in that order.

The correlation of cosine with the distance of places says that neighbours are alike. Anything that
drifts does that: a random walk of ten steps reads -.84 (:func:`digit_order_walk`), and a chain in
which only neighbours are alike -.60. So it shows order, and no arithmetic. Pairs share items: their
number is no sample size, hence Mantel's permutation of items.

All work in float64.

Source: N. Mantel 1967, "The detection of disease clustering and a generalized regression approach";
the write-up "Geometric Terrain Analysis" (its digit manifold).
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError
from .cosines import pair_cosines

TIE = 1e-12
"""Correlations closer than this are one: a reversed order sums the same terms otherwise."""


@dataclass(frozen=True)
class Mantel:
    """``r`` of the pairs, and the shares of permutations that reach at most, or at least, r."""

    r: float
    p_below: float
    p_above: float


@dataclass(frozen=True)
class DigitOrder:
    """Correlations of cosine with ``|i - j|``; ``p`` is Mantel's for the Pearson one, from below.

    ``adjacent`` and ``distant`` are the mean cosines at ``|i - j|`` = 1 and above.
    """

    pearson: float
    spearman: float
    p: float
    adjacent: float
    distant: float


def digit_order(
    x: Float[Tensor, "item dim"], *, permutations: int = 10_000, seed: int = 0
) -> DigitOrder:
    """Pearson and Spearman correlation of ``cos(x_i, x_j)`` with ``|i - j|``, pairs i < j.

    Null: :func:`digit_order_null` for independent rows, :func:`digit_order_walk` for what any
    drift gives. Check that each digit is one token: the first piece of several is a bare prefix.

    Args:
        x: one row an item, in their order.
        permutations: of the items, for p.
        seed: of those.

    Raises:
        ProbekitError: fewer than 4 items, one of length 0, or permutations no whole number from 1.
    """
    check_sizes(permutations=permutations)
    _check_items("digit_order", x)
    items = torch.arange(len(x), dtype=torch.float64, device=x.device)
    steps = (items[:, None] - items).abs()
    first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
    cosines, distances = pair_cosines(x), steps[first, second]
    table = torch.zeros_like(steps)
    table[first, second] = cosines
    tested = mantel(steps, table + table.T, permutations=permutations, seed=seed)
    ranks = (scipy.stats.rankdata(pairs.cpu().numpy()) for pairs in (distances, cosines))
    return DigitOrder(
        tested.r,
        float(np.corrcoef(*ranks)[0, 1]),
        tested.p_below,
        float(cosines[distances == 1].mean()),
        float(cosines[distances > 1].mean()),
    )


def mantel(
    x: Float[Tensor, "item item"],
    y: Float[Tensor, "item item"],
    *,
    permutations: int = 10_000,
    seed: int = 0,
) -> Mantel:
    """Pearson correlation over pairs i < j of two symmetric matrices, and how often chance has it.

    ``p = (1 + #{r* <= r}) / (1 + permutations)``, r* with the items of y permuted by NumPy's
    ``default_rng(seed)``; ``p_above`` counts >=. The smallest p is 1 / (1 + permutations). It asks
    whether y has anything to do with x, not with what else follows x (frequency, part of speech).

    Raises:
        ProbekitError: other than two symmetric matrices of one size from 3, constant pairs, or
            permutations no whole number from 1.
    """
    check_sizes(permutations=permutations)
    if x.shape != y.shape or len(x) < 3 or not all(torch.allclose(one, one.T) for one in (x, y)):
        raise ProbekitError(
            f"mantel needs two symmetric matrices of 3 items or more, not {tuple(x.shape)} and "
            f"{tuple(y.shape)}; both are [item, item]"
        )
    first, second = _standard_pairs(x), _standard_pairs(y)
    rng = np.random.default_rng(seed)
    r = (first * second).sum()
    drawn = np.empty(permutations)
    for i in range(permutations):
        order = rng.permutation(len(x))
        drawn[i] = (first * second[np.ix_(order, order)]).sum()
    below, above = (drawn <= r + TIE).sum(), (drawn >= r - TIE).sum()
    return Mantel(
        float(r), float((1 + below) / (1 + permutations)), float((1 + above) / (1 + permutations))
    )


def digit_order_null(items: int) -> float:
    """Deviation of the Pearson correlation for independent rows, ``1 / sqrt(pairs - 1)``; mean 0.

    .151 for ten items, as if pairs were independent: for isotropic rows their cosines are
    uncorrelated.

    Raises:
        ProbekitError: items is no whole number from 1, or below 4.
    """
    check_sizes(items=items)
    if items < 4:
        raise ProbekitError(f"digit_order needs 4 items or more, not {items}")
    return 1 / math.sqrt(items * (items - 1) / 2 - 1)


def digit_order_walk(items: int, dim: int, draws: int, seed: int) -> tuple[float, float]:
    """Mean and deviation of the Pearson correlation for Gaussian random walks, drawn.

    Item i is the sum of i + 1 steps: in many dimensions its cosine with item j is
    ``sqrt((i + 1) / (j + 1))``, and the correlation of ten items -.85 with no other structure.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1, fewer than 4 items or 2 draws.
    """
    check_sizes(items=items, dim=dim, draws=draws)
    if items < 4 or draws < 2:
        raise ProbekitError(
            f"digit_order_walk needs 4 items and 2 draws or more, not {items} and {draws}"
        )
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.triu_indices(items, items, 1)
    steps = (second - first).double()
    drawn = []
    for _ in range(draws):
        walk = torch.randn(items, dim, generator=generator, dtype=torch.float64).cumsum(0)
        drawn.append(torch.corrcoef(torch.stack([steps, pair_cosines(walk)]))[0, 1])
    return float(torch.stack(drawn).mean()), float(torch.stack(drawn).std())


def _standard_pairs(x: Tensor) -> np.ndarray:
    """The pairs i < j with mean 0 and length 1; all others 0 on one side, kept on both for y."""
    matrix = x.double().cpu().numpy()
    upper = np.triu_indices(len(matrix), 1)
    pairs = matrix[upper] - matrix[upper].mean()
    length = np.linalg.norm(pairs)
    if not length > 0:
        raise ProbekitError(
            "mantel needs pairs that differ, not all alike or NaN; leave out rows of length 0"
        )
    # Each pair stands twice, i < j and j < i: lengths of 1 / sqrt(2) make their product r.
    standard = np.zeros_like(matrix)
    standard[upper] = pairs / (length * math.sqrt(2))
    return standard + standard.T


def _check_items(name: str, x: Tensor) -> None:
    lengths = x.double().norm(dim=-1)
    if len(x) < 4 or not (lengths > 0).all():
        raise ProbekitError(
            f"{name} needs 4 items or more, none of length 0, not {tuple(x.shape)} with "
            f"{int((~(lengths > 0)).sum())} of length 0 or NaN"
        )
