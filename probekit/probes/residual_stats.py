"""ResidualStats: how long, how spread, how many-dimensional and how aligned the residual is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..hooksite import HookSite
from ..items import Firing, Observer, describe
from ..measurement import Measurement, stack_by_layer
from ..site import Site
from .positions import checked_positions
from .vectors import Moments, read_vectors, vector_site

STATISTICS = ("norm", "variance", "participation_ratio", "cosine")


def participation_ratio(covariance: Float[Tensor, "width width"]) -> Float[Tensor, ""]:
    """``(sum lambda)^2 / sum lambda^2`` of the eigenvalues: the dimensions that carry variance.

    From 1 (a line) to the width (isotropic), without an eigendecomposition:
    ``(tr C)^2 / |C|_F^2``.

    Example:
        >>> participation_ratio(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
        tensor(2.)
    """
    return covariance.trace().square() / covariance.square().sum()


def isotropic_null(count: int, width: int, mean_square: float) -> tuple[float, ...]:
    """What the four statistics read of ``count`` isotropic Gaussian vectors around 0.

    With sigma^2 = mean_square / width and nu = count - 1:
    norm ``sigma sqrt(2) Gamma((d+1)/2) / Gamma(d/2)`` (the chi distribution), variance sigma^2,
    participation ratio ``(nu d + 2) / (nu + d + 1)`` and cosine 0. The ratio is E[(tr S)^2] over
    E[tr S^2] of the Wishart distribution; as S / tr S is independent of tr S, it is exactly
    1 / E[1 / PR]. About nu d / (nu + d): few vectors span few dimensions.
    """
    variance = mean_square / width
    chi = math.sqrt(2) * math.exp(math.lgamma((width + 1) / 2) - math.lgamma(width / 2))
    norm = math.sqrt(variance) * chi if count else math.nan
    if count < 2:
        return norm, math.nan, math.nan, math.nan
    dof = count - 1
    return norm, variance, (dof * width + 2) / (dof + width + 1), 0.0


@dataclass(frozen=True)
class ResidualStats(Observer):
    """Norm, variance, participation ratio and mean pairwise cosine of the residual stream.

    Over all vectors x (batch x positions) of a layer, with C their unbiased covariance::

        norm                 mean |x|_2
        variance             tr C / d: per-feature variance over vectors, averaged over features
        participation_ratio  (tr C)^2 / |C|_F^2
        cosine               mean of cos(x_i, x_j) over i != j, = (|sum u|^2 - n) / (n (n - 1))

    with u = x / |x|; vectors of length 0 have no direction and are left out of the cosine.

    All positions count, padding too: a residual site carries no mask. Give ``positions``, or run
    inputs of one length. It misleads after a LayerNorm, where norm and variance are set by its
    gain (sqrt(d) at gain 1) and say nothing about the input, and where one common vector or one
    feature dwarfs the rest: the cosine is then near 1 and the ratio near 1 whatever else
    happens. Positions of one text are not independent draws, so that the null's number of vectors
    flatters. The variance here is over vectors; sigma^2 of "The Conservation of Separability" is
    over a vector's own features: after a LayerNorm norm^2 / d, the same number as the norm.

    Args:
        site: where; any site of vectors, such as ``"mlp_out"`` or ``"z:0"`` (one head).
        positions: positions to read; None means all.

    Returns (as a Measurement):
        ``(layer, statistic)``, or ``(stack, layer, statistic)`` if several stacks. The null is
        isotropic Gaussian vectors of the same dimension, number and mean square, in closed form
        (:func:`isotropic_null`). Kept is one d x d matrix a layer, however many forwards; filling
        it takes 2 n d^2 operations in float64, a twelfth of a block's own.

    Raises:
        ProbekitError: the site holds no vectors, or a position lies outside the sequence.

    Source: participation ratio after Gao et al. 2017, "A theory of multineuronal dimensionality".
    """

    site: str | Site = "resid_post"
    positions: Sequence[int] | None = None

    source: ClassVar[str] = "participation ratio: Gao et al. 2017; the rest: elementary"
    null_name: ClassVar[str] = "isotropic Gaussian vectors, same dimension, number, mean square"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "positions", checked_positions(self.positions))
        object.__setattr__(self, "site", str(vector_site("ResidualStats", self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (vector_site("ResidualStats", self.site),)

    def measure(self, x: Tensor, at: Firing) -> "_Sums":
        return _Sums.of(read_vectors(x, at, self.positions))

    def combine(self, total: "_Sums", new: "_Sums") -> "_Sums":
        return total + new

    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        extra = {"statistic": STATISTICS}
        values, dims, coords = stack_by_layer({s: t.statistics for s, t in totals.items()}, extra)
        null, _, _ = stack_by_layer({s: t.null for s, t in totals.items()}, extra)
        return Measurement(
            name=self.key,
            values=values,
            dims=dims,
            coords=coords,
            units="norm: activation; variance: activation squared; "
            "participation_ratio: dimensions; cosine: 1",
            null=null,
            null_name=self.null_name,
            provenance={"probe": describe(self)},
        )


@dataclass(frozen=True)
class _Sums:
    """Moments of the vectors; sums of their lengths and directions; how many have a direction."""

    moments: Moments
    lengths: Tensor
    directions: Tensor
    directed: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> "_Sums":
        length = vectors.norm(dim=-1)
        longer = length > 0
        unit = vectors / torch.where(longer, length, 1)[:, None]
        return cls(Moments.of(vectors), length.sum(), unit.sum(0), longer.sum().double())

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.moments + other.moments,
            self.lengths + other.lengths,
            self.directions + other.directions,
            self.directed + other.directed,
        )

    @property
    def statistics(self) -> Float[Tensor, " statistic"]:
        covariance = self.moments.covariance
        n = self.directed
        return torch.stack(
            [
                self.lengths / self.moments.count
                if self.moments.count
                else self.lengths * math.nan,
                covariance.trace() / self.moments.width,
                participation_ratio(covariance),
                (self.directions.square().sum() - n) / (n * (n - 1)),
            ]
        )

    @property
    def null(self) -> Float[Tensor, " statistic"]:
        moments = self.moments
        null = isotropic_null(moments.count, moments.width, float(moments.mean_square.detach()))
        return torch.tensor(null, dtype=torch.float64)
