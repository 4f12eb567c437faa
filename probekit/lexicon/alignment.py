"""Does closeness in a representation follow similarity in WordNet, beyond parts of speech?

Correlations over pairs, and what else explains them. With NLTK's simulated root the pair of parts
of speech is most of the variance of path similarity (:func:`eta_squared`), so a model that knows an
adjective from a noun correlates with it. :func:`partial_correlation` asks within pairs of parts of
speech. Pairs share entries: :mod:`probekit.lexicon.inference` says how sure a correlation is.

Source: the write-up "Geometric Terrain Analysis", and its critique, sections B6 and D.
"""

from dataclasses import dataclass

import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ProbekitError

HIGH, LOW = 0.25, 0.10
"""Published bounds of high and low path similarity: ways of 3 edges or fewer, of 10 or more."""


@dataclass(frozen=True)
class Alignment:
    """Correlations of similarity with cosine over ``pairs`` pairs."""

    pearson: float
    spearman: float
    pairs: int


@dataclass(frozen=True)
class Gradient:
    """Mean cosines at high and at low similarity, and their difference.

    ``standardised`` is the difference over the deviation of all cosines: a difference of mean
    cosines grows with their spread.
    """

    high: float
    low: float
    gradient: float
    standardised: float


def alignment(similarity: Float[Tensor, " pair"], cosines: Float[Tensor, " pair"]) -> Alignment:
    """Pearson and Spearman correlation over the pairs whose similarity is no NaN.

    Null: 0; its deviation is that of node permutations, not ``1 / sqrt(pairs)``.

    Raises:
        ProbekitError: fewer than 3 such pairs, all alike, or a NaN cosine.
    """
    _check_pairs("alignment", similarity, cosines)
    kept = ~similarity.isnan()
    x, y = similarity[kept].double(), cosines[kept].double()
    if len(x) < 3 or not (x.std() > 0 and y.std() > 0):
        raise ProbekitError(
            f"alignment needs 3 pairs or more with similarities and finite cosines that differ, "
            f"not {len(x)} of {len(similarity)}; draw more"
        )
    ranks = (torch.from_numpy(scipy.stats.rankdata(values.numpy())) for values in (x, y))
    return Alignment(_pearson(x, y), _pearson(*ranks), len(x))


def similarity_gradient(
    similarity: Float[Tensor, " pair"],
    cosines: Float[Tensor, " pair"],
    *,
    high: float = HIGH,
    low: float = LOW,
) -> Gradient:
    """Mean cosine where similarity >= high, minus that where it is < low.

    Null 0. By default nearly all pairs of high similarity in mixed samples are of adjectives or
    adverbs: take pairs of nouns (:func:`noun_pairs`).

    Raises:
        ProbekitError: no pair on one side.
    """
    _check_pairs("similarity_gradient", similarity, cosines)
    above, below = cosines[similarity >= high].double(), cosines[similarity < low].double()
    if not (len(above) and len(below)):
        raise ProbekitError(
            f"similarity_gradient needs pairs with similarity >= {high} and < {low}, not "
            f"{len(above)} and {len(below)}; draw more"
        )
    first, second = float(above.mean()), float(below.mean())
    spread = float(cosines[~similarity.isnan()].double().std(correction=0))
    return Gradient(first, second, first - second, (first - second) / spread)


def eta_squared(values: Float[Tensor, " pair"], groups: Int[Tensor, " pair"]) -> float:
    """Share of the variance of values that lies between groups, 0 to 1.

    Null: about (groups - 1) / (pairs - 1) for groups that mean nothing.

    Raises:
        ProbekitError: values and groups of other lengths, or values all alike.
    """
    _check_pairs("eta_squared", values, groups)
    values = values.double()
    total = (values - values.mean()).square().sum()
    if not total > 0:
        raise ProbekitError("eta_squared needs values that differ, none of them NaN")
    return float(1 - _within_groups(values, groups).square().sum() / total)


def partial_correlation(
    x: Float[Tensor, " pair"], y: Float[Tensor, " pair"], groups: Int[Tensor, " pair"]
) -> float:
    """Pearson correlation of x and y after each group's means are removed from both.

    Null: 0, whatever the groups explain.

    Raises:
        ProbekitError: other lengths, or x or y alike or NaN within groups.
    """
    _check_pairs("partial_correlation", x, y)
    _check_pairs("partial_correlation", x, groups)
    inner = [_within_groups(values.double(), groups) for values in (x, y)]
    # Rounding leaves some of a constant: it has no correlation.
    if not all(i.norm() > 1e-12 * v.double().norm() for i, v in zip(inner, (x, y), strict=True)):
        raise ProbekitError(
            "partial_correlation needs x and y that vary within groups, without NaN"
        )
    return _pearson(*inner)


def _within_groups(values: Tensor, groups: Tensor) -> Tensor:
    own = groups.unique(return_inverse=True)[1]
    sums = values.new_zeros(int(own.max()) + 1).index_add(0, own, values)
    return values - (sums / own.bincount())[own]


def _pearson(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x / x.norm()) @ (y / y.norm()))


def _check_pairs(name: str, x: Tensor, y: Tensor) -> None:
    if len(x) != len(y) or not len(x):
        raise ProbekitError(f"{name} needs values of the same pairs, not {len(x)} and {len(y)}")
