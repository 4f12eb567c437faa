"""DeadNeurons: how often each neuron of an MLP is silent, and how large it is when it speaks."""

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
from .vectors import read_vectors, vector_site

STATISTICS = ("silent", "size")


@dataclass(frozen=True)
class DeadNeurons(Observer):
    """Share of tokens on which a neuron's activation is not above 0, and its mean size.

    ``silent`` is the share of vectors with ``a <= 0``, ``size`` the mean of ``|a|``. A neuron that
    is silent on all tokens is dead as far as these texts show: of n tokens, a rate of ``3 / n`` of
    speaking is still possible at 95 %. Times the norm of its column of W_out, ``size`` is how much
    it writes into the residual stream.

    It misleads where the activation is not 0 below 0: a GELU or SiLU neuron says little there and
    not nothing, and a gated neuron's sign is that of two factors. All positions count, padding too;
    give ``positions``, or inputs of one length.

    Args:
        site: where; the MLP after its activation.
        positions: positions to read; None means all.

    Returns (as a Measurement):
        ``(layer, statistic, neuron)``, or ``(stack, ...)`` if several stacks. The null of
        ``silent`` is .5, of a pre-activation that is symmetric around 0 as at initialisation; of
        ``size`` the mean over the layer's neurons. Kept are three numbers a neuron.

    Raises:
        ProbekitError: the site holds no vectors, or a position lies outside the sequence.

    Source: the critique of the terrain write-up, section B10: its "dead neurons" read weights.
    """

    site: str | Site = "mlp_post"
    positions: Sequence[int] | None = None

    source: ClassVar[str] = "the terrain write-up's critique, B10"
    null_name: ClassVar[str] = "silent: symmetric pre-activations; size: the layer's mean neuron"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "positions", checked_positions(self.positions))
        object.__setattr__(self, "site", str(vector_site("DeadNeurons", self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (vector_site("DeadNeurons", self.site),)

    def measure(self, x: Tensor, at: Firing) -> Tensor:
        return _sums(read_vectors(x, at, self.positions))

    def combine(self, total: Tensor, new: Tensor) -> Tensor:
        return total + new

    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        shares = {site: total[:2] / total[2] for site, total in totals.items()}
        width = max(share.shape[1] for share in shares.values())
        extra = {"statistic": STATISTICS, "neuron": range(width)}
        values, dims, coords = stack_by_layer(shares, extra)
        null, _, _ = stack_by_layer({site: _null(share) for site, share in shares.items()}, extra)
        return Measurement(
            name=self.key,
            values=values,
            dims=dims,
            coords=coords,
            units="silent: fraction of vectors; size: activation",
            null=null,
            null_name=self.null_name,
            provenance={"probe": describe(self)},
        )


def _sums(vectors: Float[Tensor, "vector neuron"]) -> Float[Tensor, "3 neuron"]:
    """How often silent, the sum of sizes, and the number of vectors."""
    silent = (vectors <= 0).double().sum(0)
    return torch.stack([silent, vectors.abs().sum(0), torch.full_like(silent, len(vectors))])


def _null(share: Float[Tensor, "2 neuron"]) -> Float[Tensor, "2 neuron"]:
    mean = share[1].mean().expand_as(share[1])
    return torch.stack([torch.full_like(mean, 0.5), mean])
