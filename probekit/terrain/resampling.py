"""Curves of several settings over the same definitions, resampled together.

Definitions, not pairs, are what was drawn; so definitions are resampled, and the draws are the same
for every curve, which lets a difference of two curves have an interval of its own.

Source: Snijders and Borgatti 1999, as :func:`probekit.lexicon.token_bootstrap`, whose draws these
are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..checks import check_sizes
from ..lexicon import PairSample
from ..lexicon.alignment import HIGH, LOW


def resampled_curves(
    similarity: Float[Tensor, " pair"],
    cosines: Float[Tensor, "setting pair"],
    kept: Float[Tensor, "setting node"],
    nouns: Bool[Tensor, " pair"],
    sample: PairSample,
    *,
    draws: int = 200,
    seed: int = 0,
) -> dict[str, Float[Tensor, "draw setting"]]:
    """Of definitions drawn with replacement, what each setting reads.

    A pair counts as often as its two definitions were drawn, multiplied.

    Args:
        similarity: of the sample's pairs; none is NaN.
        cosines: of those pairs, by setting.
        kept: of each definition, its cosine with the unmodulated encoding.
        nouns: which pairs are of nouns.
        draws: each ``rng.integers(nodes, size=nodes)`` of ``default_rng(seed)``.

    Returns:
        ``pearson``, ``nouns`` (Pearson of their pairs), ``gradient`` and ``preservation``.
    """
    check_sizes(draws=draws)
    rng, nodes = np.random.default_rng(seed), kept.shape[1]
    similarity, cosines, kept = similarity.double(), cosines.double(), kept.double()
    high, low = similarity >= HIGH, similarity < LOW
    found: dict[str, list[Tensor]] = {
        name: [] for name in ("pearson", "nouns", "gradient", "preservation")
    }
    for _ in range(draws):
        drawn = torch.from_numpy(np.bincount(rng.integers(nodes, size=nodes), minlength=nodes))
        counts = drawn.double()
        weights = counts[sample.first] * counts[sample.second]
        found["pearson"].append(_pearson(similarity, cosines, weights))
        found["nouns"].append(_pearson(similarity, cosines, weights * nouns))
        found["gradient"].append(_mean(cosines, weights * high) - _mean(cosines, weights * low))
        found["preservation"].append(_mean(kept, counts))
    return {name: torch.stack(values) for name, values in found.items()}


def difference(
    one: Mapping[str, Any], other: Mapping[str, Any], name: str, alpha: float | int
) -> tuple[float, float, float]:
    """A reading of one curve less another's at an alpha that both have, and its 95 % interval.

    Args:
        one, other: of :func:`probekit.terrain.modulation.curve_readings`.
        name: of the reading.
    """
    places = [curve["alphas"].index(alpha) for curve in (one, other)]
    first, second = (
        np.array(curve["resampled"][name])[:, place]
        for curve, place in zip((one, other), places, strict=True)
    )
    low, high = np.quantile(first - second, [0.025, 0.975])
    return one[name][places[0]] - other[name][places[1]], float(low), float(high)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return values @ weights / weights.sum()


def _pearson(x: Tensor, ys: Tensor, weights: Tensor) -> Tensor:
    weights = weights / weights.sum()
    x, ys = x - weights @ x, ys - (ys @ weights)[:, None]
    spread = (weights @ x.square()) * (ys.square() @ weights)
    return (ys * x) @ weights / spread.sqrt()
