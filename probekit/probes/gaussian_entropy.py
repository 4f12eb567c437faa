"""GaussianEntropy: the differential entropy of a Gaussian with the residual's covariance."""

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


def gaussian_bits(covariance: Float[Tensor, "width width"]) -> Float[Tensor, ""]:
    """``(1/2) log2 det C / d``: bits per dimension, without the constant ``log2(2 pi e) / 2``.

    Example:
        >>> gaussian_bits(4 * torch.eye(3))
        tensor(1.)
    """
    return torch.linalg.slogdet(covariance).logabsdet / (2 * math.log(2) * len(covariance))


def isotropic_bits(covariance: Float[Tensor, "width width"]) -> Float[Tensor, ""]:
    """The same of an isotropic covariance of the same trace: ``(1/2) log2 (tr C / d)``.

    The most that :func:`gaussian_bits` can be at that trace (arithmetic against geometric mean).

    Example:
        >>> isotropic_bits(torch.diag(torch.tensor([7.0, 1.0])))
        tensor(1.)
    """
    return (covariance.trace() / len(covariance)).log2() / 2


@dataclass(frozen=True)
class GaussianEntropy(Observer):
    """Differential entropy of a Gaussian with the residual's covariance, bits per dimension.

    ``(1/2) log2 det C / d`` with C the unbiased covariance over batch and positions, without the
    constant ``log2(2 pi e) / 2`` = 2.047. The write-up calls it mutual information; it is none:
    one variable enters. It may be negative, and it rises by 1 when the activations double.

    It misleads with few vectors: of n isotropic ones it reads, on average, below its null by
    about (d + 1 - 2 / d) / (4 n ln 2) bits, and of n <= d it is -inf, the covariance being
    singular. It misleads after a LayerNorm too, which takes a dimension away: the determinant is
    0 but for rounding. All positions count, padding too; give ``positions``, or inputs of one
    length.

    Args:
        site: where; any site of vectors, such as ``"mlp_out"`` or ``"z:0"`` (one head).
        positions: positions to read; None means all.

    Returns (as a Measurement):
        ``(layer,)``, or ``(stack, layer)`` if several stacks. The null is an isotropic Gaussian
        of the same total variance, in closed form: the maximum at that variance, so that the
        excess is at most 0 and its size is what anisotropy (and few vectors) cost.

    Raises:
        ProbekitError: the site holds no vectors, or a position lies outside the sequence.

    Source: "Homeostatic Crystallization", metric definition 4.7; Cover and Thomas, theorem 8.4.1.
    """

    site: str | Site = "resid_post"
    positions: Sequence[int] | None = None

    source: ClassVar[str] = "Homeostatic Crystallization, 4.7; Cover and Thomas, theorem 8.4.1"
    null_name: ClassVar[str] = "isotropic Gaussian of the same total variance"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "positions", checked_positions(self.positions))
        object.__setattr__(self, "site", str(vector_site("GaussianEntropy", self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (vector_site("GaussianEntropy", self.site),)

    def measure(self, x: Tensor, at: Firing) -> Moments:
        return Moments.of(read_vectors(x, at, self.positions))

    def combine(self, total: Moments, new: Moments) -> Moments:
        return total + new

    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        values, dims, coords = stack_by_layer({s: _bits(total) for s, total in totals.items()}, {})
        null, _, _ = stack_by_layer(
            {s: isotropic_bits(total.covariance) for s, total in totals.items()}, {}
        )
        return Measurement(
            name=self.key,
            values=values,
            dims=dims,
            coords=coords,
            units="bits per dimension",
            null=null,
            null_name=self.null_name,
            provenance={"probe": describe(self)},
        )


def _bits(moments: Moments) -> Tensor:
    if 1 < moments.count <= moments.width:  # singular; what slogdet gives is rounding
        return moments.mean.new_tensor(-math.inf)
    return gaussian_bits(moments.covariance)
