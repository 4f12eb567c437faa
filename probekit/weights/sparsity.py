"""How many weights are small: the published shares, and numbers that a scale does not change.

The share of ``|w| < .1`` is the scale of the weights in disguise: Gaussian weights of deviation
.0364 read 99.4 %, and so does every model at its initialisation. It is no property of the function
either: W_Q -> s W_Q, W_K -> W_K / s leaves a model as it is and sets any share. Beside each
published share stands that of Gaussian weights of the same root mean square, and beside these
four numbers without scale.

Weights of any number are read in chunks into :class:`Magnitudes`, which add up: the pooled
statistics of a type are those of all its matrices together.

Source: the terrain write-up, sections 4 to 6; its critique, section B8; P. Hoyer 2004,
"Non-negative matrix factorization with sparseness constraints".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_from_zero
from ..errors import ProbekitError

THRESHOLDS = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
"""The write-up's: all five in its section 4, the last four in sections 5 and 6."""
_CHUNK = 2**18  # weights: what is made of them stays in the cache
_SHIFT = 13  # of a float32's 31 bits of magnitude: bins of 2^-10 relative width
_BINS = 2**31 >> _SHIFT


@dataclass(frozen=True)
class SparsityStats:
    """``below_rms`` is the share of ``|w| < .1 rms``; with null, what Gaussian weights read.

    ``hoyer`` is ``(sqrt n - sum|w| / |w|_2) / (sqrt n - 1)``, from 0 to 1 (one weight is left);
    ``gini`` that of |w|; ``kurtosis`` the excess, of the weights around their mean.
    """

    below_rms: float
    hoyer: float
    gini: float
    kurtosis: float


GAUSSIAN = SparsityStats(
    below_rms=math.erf(0.1 / math.sqrt(2)),
    hoyer=1 - math.sqrt(2 / math.pi),
    gini=math.sqrt(2) - 1,
    kurtosis=0.0,
)
"""The null: .0797, .2021, .4142, 0, in the limit of many weights; see :func:`gaussian_error`."""


def gaussian_error(number: int) -> SparsityStats:
    """Standard deviations of the four for ``number`` Gaussian weights, to first order.

    With c = sqrt(2 / pi) and p the share: below_rms ``sqrt((p (1 - p) - (.1 phi(.1))^2 2) / n)``
    as the threshold moves with the weights' own rms, hoyer ``sqrt((1 - c^2 - c^2 / 2) / n)`` about,
    kurtosis ``sqrt(24 / n)``, gini ``.254 / sqrt n`` (the deviation of its influence function).

    Hoyer's number is beyond its limit by ``(1 - c) / sqrt n``, which is no error.

    Raises:
        ProbekitError: number is no whole number from 1.
    """
    check_from_zero("number", number)
    if number < 1:
        raise ProbekitError(f"number must be a whole number from 1, not {number!r}")
    p, c = GAUSSIAN.below_rms, math.sqrt(2 / math.pi)
    slope = 0.1 * c * math.exp(-0.005)  # of p, by ln of the threshold
    return SparsityStats(
        below_rms=math.sqrt((p * (1 - p) - slope**2 / 2) / number),
        hoyer=math.sqrt((1 - 1.5 * c**2) / number),
        gini=0.254 / math.sqrt(number),
        kurtosis=math.sqrt(24 / number),
    )


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """Sufficient statistics of weights; ``a + b`` are those of both together.

    ``below`` counts ``|w|`` under each of ``thresholds``; ``powers`` are sums of w, w^2, w^3, w^4;
    ``total`` is the sum of |w|; ``counts`` a histogram of |w| in bins of .1 % relative width, from
    which :attr:`stats` has the share below .1 rms and Gini's index to 1e-5.
    """

    thresholds: tuple[float, ...]
    number: int
    below: np.ndarray
    powers: np.ndarray
    total: float
    counts: np.ndarray

    @classmethod
    def of(
        cls, weights: Float[Tensor, "..."], thresholds: Sequence[float] = THRESHOLDS
    ) -> "Magnitudes":
        """Of one tensor, of any precision.

        Raises:
            ProbekitError: no weights, some that are not finite, or a threshold below 0.
        """
        for threshold in thresholds:
            check_from_zero("each of thresholds", threshold)
        below = np.zeros(len(thresholds), dtype=np.int64)
        powers, counts, total = np.zeros(4), np.zeros(_BINS, dtype=np.int64), 0.0
        for chunk in weights.detach().reshape(-1).split(_CHUNK):
            w = (chunk if chunk.dtype == torch.float64 else chunk.float()).cpu().numpy()
            size = np.abs(w)
            below += [np.count_nonzero(size < threshold) for threshold in thresholds]
            wide = w.astype(np.float64)
            square = wide * wide
            powers += [wide.sum(), square.sum(), wide @ square, square @ square]
            total += float(np.abs(wide).sum())
            bits = size.astype(np.float32).view(np.int32) >> _SHIFT
            here = np.bincount(bits)
            counts[: len(here)] += here
        if not (weights.numel() and np.isfinite(powers).all()):
            raise ProbekitError(
                f"weights must be finite and at least one, not {weights.numel()} with a sum of "
                f"squares of {powers[1]:g}"
            )
        return cls(tuple(thresholds), weights.numel(), below, powers, total, counts)

    def __add__(self, other: "Magnitudes") -> "Magnitudes":
        if self.thresholds != other.thresholds:
            raise ProbekitError(
                f"magnitudes of thresholds {self.thresholds} and {other.thresholds} do not add up"
            )
        return Magnitudes(
            self.thresholds,
            self.number + other.number,
            self.below + other.below,
            self.powers + other.powers,
            self.total + other.total,
            self.counts + other.counts,
        )

    @property
    def rms(self) -> float:
        """``sqrt(mean w^2)``, in the weights' units."""
        return math.sqrt(self.powers[1] / self.number)

    @property
    def shares(self) -> tuple[float, ...]:
        """The published sparsity: the share of ``|w| < t`` for each threshold."""
        return tuple(float(count / self.number) for count in self.below)

    @property
    def shares_null(self) -> tuple[float, ...]:
        """The same of Gaussian weights of this rms: ``erf(t / (rms sqrt 2))``."""
        return tuple(published_sparsity_null(t, self.rms) for t in self.thresholds)

    @cached_property
    def stats(self) -> SparsityStats:
        """The numbers without scale; NaN where all weights are 0."""
        n, rms = self.number, self.rms
        if not rms:
            return SparsityStats(*[math.nan] * 4)
        root = math.sqrt(n)
        hoyer = (root - self.total / (rms * root)) / (root - 1) if n > 1 else math.nan
        mean, second, third, fourth = self.powers / n
        variance = second - mean**2
        moment = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
        kurtosis = float(moment / variance**2 - 3) if variance > 0 else math.nan
        return SparsityStats(self._share_below(0.1 * rms), hoyer, self._gini(), kurtosis)

    def _share_below(self, threshold: float) -> float:
        edges = _edges()
        at = int(np.searchsorted(edges, threshold, side="right")) - 1
        within = (threshold - edges[at]) / (edges[at + 1] - edges[at])
        return float((self.counts[:at].sum() + within * self.counts[at]) / self.number)

    def _gini(self) -> float:
        used = np.flatnonzero(self.counts)
        edges, counts = _edges(), self.counts[used].astype(np.float64)
        sizes = counts * (edges[used] + edges[used + 1]) / 2
        before = counts.cumsum() - counts
        ranks = 2 * before + counts - self.number  # the mean of 2 i - n - 1 within a bin
        return float((ranks * sizes).sum() / (self.number * sizes.sum()))


def published_sparsity_null(threshold: float, rms: float) -> float:
    """``erf(t / (sigma sqrt 2))``: the share of ``|w| < t`` of Gaussian weights.

    1.0000 for t = .1 at the initialisation of every T5's Q, .9763 for K and V of T5-small.

    Raises:
        ProbekitError: a negative or infinite number.
    """
    check_from_zero("threshold", threshold)
    check_from_zero("rms", rms)
    if not rms:
        return float(threshold > 0)
    return math.erf(threshold / (rms * math.sqrt(2)))


def _edges() -> np.ndarray:
    """The least magnitude of each bin, and of the first that no finite float32 falls in."""
    last = np.float32(np.inf).view(np.int32) >> _SHIFT
    bits = np.arange(last, dtype=np.int32) << _SHIFT
    edges = bits.view(np.float32).astype(np.float64)
    return np.append(edges, 2.0**128)
