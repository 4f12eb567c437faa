"""Vectors that the residual probes share: which sites hold them, and their running moments."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError
from ..items import Firing
from ..site import PART_AXES, Site, parse_site
from .positions import chosen_positions


def vector_site(reader: str, site: str | Site) -> Site:
    """``site`` read as an address of vectors, one a batch element and position.

    Raises:
        SiteError: it is not an address; ProbekitError: what is there are no vectors, or one for
        each head and the address names none.
    """
    parsed = parse_site(site)
    axes = PART_AXES[parsed.part]
    if "query" in axes:
        raise ProbekitError(f"{reader} reads vectors such as resid_post, not {str(site)!r}")
    if "head" in axes and parsed.head is None:
        raise ProbekitError(f"{reader} reads {parsed.part!r} of one head, such as '{parsed}:0'")
    return parsed


def read_vectors(
    x: Tensor, at: Firing, positions: Sequence[int] | None
) -> Float[Tensor, "vector width"]:
    """The vectors of a firing in float64: one a batch element and chosen position.

    Raises:
        ProbekitError: positions outside the sequence, or chosen where there is no axis of them.
    """
    x = at.site.narrow(x)
    if positions is not None:
        if x.ndim < 3:
            raise ProbekitError(f"{at.site} has no axis of positions here; leave positions= out")
        x = x[:, chosen_positions(positions, x.shape[1], x.device)]
    return x.flatten(0, -2).double()


@dataclass(frozen=True)
class Moments:
    """Number, mean and scatter (sum of centred outer products) of vectors, in float64.

    Sums combine as ``S + S' + (n n' / (n + n')) (m - m')(m - m')^T``: unlike a difference of raw
    sums, that keeps its digits where the mean is much larger than the spread.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979.
    """

    count: int
    mean: Float[Tensor, " width"]
    scatter: Float[Tensor, "width width"]

    @classmethod
    def of(cls, vectors: Float[Tensor, "vector width"]) -> "Moments":
        """The moments of one batch of vectors."""
        if not len(vectors):
            zero = vectors.new_zeros(vectors.shape[1])
            return cls(0, zero, torch.outer(zero, zero))
        mean = vectors.mean(0)
        centred = vectors - mean
        return cls(len(vectors), mean, centred.T @ centred)

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        if not (self.count and other.count):
            return self if self.count else other
        apart = other.mean - self.mean
        between = torch.outer(apart, apart) * (self.count * other.count / count)
        mean = self.mean + apart * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def width(self) -> int:
        """The dimension of the vectors."""
        return len(self.mean)

    @property
    def covariance(self) -> Float[Tensor, "width width"]:
        """The unbiased covariance; NaN of fewer than two vectors."""
        return self.scatter / (self.count - 1) if self.count > 1 else self.scatter * torch.nan

    @property
    def mean_square(self) -> Float[Tensor, ""]:
        """The mean squared length; NaN of no vectors."""
        if not self.count:
            return self.mean.sum() * torch.nan
        return self.scatter.trace() / self.count + self.mean.square().sum()
