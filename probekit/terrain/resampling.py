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
    drawn = [np.bincount(rng.integers(nodes, size=nodes), minlength=nodes) for _ in range(draws)]
    counts = torch.from_numpy(np.stack(drawn)).double()
    weights = counts[:, sample.first] * counts[:, sample.second]
    x, ys = similarity.double(), cosines.double()
    high, low = x >= HIGH, x < LOW
    return {
        "pearson": _pearson(x, ys, weights),
        "nouns": _pearson(x[nouns], ys[:, nouns], weights[:, nouns]),
        "gradient": _mean(ys[:, high], weights[:, high]) - _mean(ys[:, low], weights[:, low]),
        "preservation": _mean(kept.double(), counts),
    }


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
    """[setting, item] and [draw, item] to [draw, setting]."""
    return weights @ values.T / weights.sum(-1, keepdim=True)


def _pearson(x: Tensor, ys: Tensor, weights: Tensor) -> Tensor:
    # Near 0, so that squares of means take nothing away that matters.
    x, ys = (x - x.mean())[None], ys - ys.mean(-1, keepdim=True)
    mean_x, mean_y = _mean(x, weights), _mean(ys, weights)
    covariance = _mean(x * ys, weights) - mean_x * mean_y
    variance_x = _mean(x.square(), weights) - mean_x.square()
    return covariance / (variance_x * (_mean(ys.square(), weights) - mean_y.square())).sqrt()
