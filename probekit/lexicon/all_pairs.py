"""The correlation over all pairs of entries, exactly, with the deviation of resampled entries.

Samples of pairs, and seeds that draw them, estimate this number; it takes seconds.

Source: as :mod:`probekit.lexicon.inference`.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError
from ..geometry.similarity import unit_rows
from .inference import Bootstrap

_ROWS = 512  # of the table at once


def all_pairs_bootstrap(
    similarity: Float[Tensor, "first second"],
    x: Float[Tensor, "entry dim"],
    *,
    draws: int = 200,
    seed: int = 0,
) -> Bootstrap:
    """Pearson correlation of similarity with cosine over all pairs, entries resampled.

    A pair counts as often as its two entries were drawn, multiplied; pairs of an entry with itself
    are none, and pairs whose similarity is NaN are left out.

    Args:
        similarity: symmetric, of every pair.
        x: a vector of each entry, none of length 0.
        draws: of all entries, each ``rng.integers(entries, size=entries)``.
        seed: of NumPy's ``default_rng``.

    Raises:
        ProbekitError: tables of other lengths, or draws no whole number from 1.
    """
    check_sizes(draws=draws)
    entries = len(x)
    if similarity.shape != (entries, entries):
        raise ProbekitError(
            f"all_pairs_bootstrap needs the similarity of all {entries} entries, not "
            f"{tuple(similarity.shape)}"
        )
    rng = np.random.default_rng(seed)
    counts = [
        np.bincount(rng.integers(entries, size=entries), minlength=entries) for _ in range(draws)
    ]
    # The first column counts every entry once: the correlation itself.
    weights = torch.from_numpy(np.stack([np.ones(entries), *counts], axis=1))
    moments = torch.zeros(6, draws + 1, dtype=torch.float64)
    units = unit_rows(x)
    for start in range(0, entries, _ROWS):
        rows = slice(start, min(start + _ROWS, entries))
        a, b = similarity[rows].double(), units[rows] @ units.T
        kept = ~a.isnan()
        kept[torch.arange(len(a)), torch.arange(start, start + len(a))] = False
        a, b = (torch.where(kept, values, 0) for values in (a, b))
        for row, table in enumerate((kept.double(), a, b, a * a, b * b, a * b)):
            moments[row] += (table @ weights * weights[rows]).sum(0)
    r = _correlation(moments)
    low, high = np.quantile(r[1:].numpy(), [0.025, 0.975])
    return Bootstrap(float(r[0]), float(r[1:].std(correction=0)), float(low), float(high))


def _correlation(moments: Float[Tensor, "six draw"]) -> Float[Tensor, " draw"]:
    number, a, b, aa, bb, ab = moments
    covariance = ab - a * b / number
    return covariance / ((aa - a * a / number) * (bb - b * b / number)).sqrt()
