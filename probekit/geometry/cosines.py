"""Cosines of many pairs: their distribution, what the mean follows from, and crowding at a value.

Cosines of a table say little by themselves. The mean is that of the rows' common part
(:func:`mean_cosine_prediction`), and some pair lies next to any constant one cares to name, as
there are millions: what a special constant would show is more pairs than its neighbourhood has
(:func:`density_ratio`).

All work in float64; deviations divide by the number of pairs.

Source: the write-up "Geometric Terrain Analysis", its sections on embeddings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import check_finite, check_positive, check_share, check_sizes
from ..errors import ProbekitError
from .similarity import cosine_similarity, unit_rows

PERCENTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class CosineStats:
    """Mean, deviation and quantiles of cosines; ``quantiles`` by the share below."""

    mean: float
    std: float
    quantiles: dict[float, float]


def pair_cosines(
    x: Float[Tensor, "rows dim"], pairs: Int[Tensor, "pair two"] | None = None
) -> Float[Tensor, " pair"]:
    """Cosines of the given pairs of rows, or of all pairs i < j in the order (0, 1), (0, 2), ...

    All pairs take memory of rows^2 numbers: pass a sample of a large table. NaN where a row has
    length 0.

    Raises:
        ProbekitError: fewer than 2 rows, or pairs that are not [pair, 2] or name no row.
    """
    if len(x) < 2:
        raise ProbekitError(f"pair_cosines needs two rows at least, not {tuple(x.shape)}")
    if pairs is None:
        units = unit_rows(x)
        first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
        return (units @ units.T)[first, second]
    if pairs.shape[1] != 2 or not ((pairs >= 0) & (pairs < len(x))).all():
        raise ProbekitError(
            f"pairs must be [pair, 2] of row indices from 0 to {len(x) - 1}, not "
            f"{tuple(pairs.shape)} up to {int(pairs.max()) if pairs.numel() else 'nothing'}"
        )
    return cosine_similarity(x[pairs[:, 0]], x[pairs[:, 1]])


def cosine_stats(
    cosines: Float[Tensor, " pair"], quantiles: Sequence[float] = PERCENTILES
) -> CosineStats:
    """Mean, standard deviation and quantiles (linear) of cosines.

    Null: mean 0 and deviation :func:`cosine_null` for independent isotropic rows; the deviation is
    ``1 / sqrt(PR)`` for centred rows of another spectrum. Pairs share rows: the mean of p pairs of
    n rows is known as n values are, not p.

    Raises:
        ProbekitError: no cosines, one that is NaN, or a quantile outside [0, 1].
    """
    if not len(cosines) or cosines.isnan().any():
        raise ProbekitError(
            f"cosine_stats needs cosines, not {len(cosines)} with "
            f"{int(cosines.isnan().sum())} NaN; leave out rows of length 0"
        )
    for share in quantiles:
        check_share("each of quantiles", share)
    cosines = cosines.double()
    found = np.quantile(cosines.cpu().numpy(), list(quantiles)).tolist()
    return CosineStats(
        float(cosines.mean()),
        float(cosines.std(correction=0)),
        dict(zip(quantiles, found, strict=True)),
    )


def cosine_null(dim: int) -> float:
    """Deviation of the cosine of independent isotropic rows, ``1 / sqrt(dim)``; the mean is 0.

    Raises:
        ProbekitError: dim is no whole number from 1.
    """
    check_sizes(dim=dim)
    return 1 / math.sqrt(dim)


def mean_cosine_prediction(x: Float[Tensor, "*batch rows dim"]) -> Float[Tensor, "*batch"]:
    """``|mean x|^2 / mean |x|^2``: the mean cosine that a common part alone gives.

    For rows of equal length it is the mean over all pairs, those of a row with itself included;
    otherwise near it where norms do not go with directions. Agreement says that centring removes
    the mean cosine, and any constant read into it.
    """
    x = x.double()
    return x.mean(-2).square().sum(-1) / x.square().sum(-1).mean(-1)


def window_share(values: Float[Tensor, " pair"], centre: float, half_width: float) -> float:
    """Share of values with ``|value - centre| < half_width``; for any smooth distribution not 0.

    Proportional to the width: :func:`density_ratio` is what can be surprising.

    Raises:
        ProbekitError: no values, centre no finite number or half_width none above 0.
    """
    _check_window(values, centre, half_width)
    return float(((values.double() - centre).abs() < half_width).double().mean())


def density_ratio(values: Float[Tensor, " pair"], centre: float, half_width: float) -> float:
    """:func:`window_share` over the local density: what four neighbouring windows lead to expect.

    With p(j) the share within half_width of ``centre + 2 j half_width``, expected is ``ln p(0) =
    (4 ln p(-1) + 4 ln p(1) - ln p(-2) - ln p(2)) / 6``: exact where ln p is a cubic, as on a
    Gaussian's flank. Null: 1, with relative deviation about ``1.4 / sqrt(count)`` of independent
    values; cosines of pairs that share rows scatter more. NaN where a neighbouring window is
    empty: there the sample has nothing to say.

    Raises:
        ProbekitError: no values, centre no finite number or half_width none above 0.
    """
    own, *neighbours = (
        window_share(values, centre + 2 * step * half_width, half_width)
        for step in (0, -2, -1, 1, 2)
    )
    if min(neighbours) == 0:
        return math.nan
    weights = (-1, 4, 4, -1)
    expected = sum(w * math.log(p) for w, p in zip(weights, neighbours, strict=True)) / 6
    return own / math.exp(expected)


def _check_window(values: Tensor, centre: float, half_width: float) -> None:
    check_finite("centre", centre)
    check_positive("half_width", half_width)
    if not len(values):
        raise ProbekitError("a window's share needs values, not none; pass pair_cosines")
