"""T5's buckets of relative positions: which offsets share a bias, and how far away they are.

An encoder's table is two: buckets 0 to n/2 - 1 hold keys at or before the query, n/2 to n - 1 keys
after it, and n/2 itself is never used (distance 0 is bucket 0). Only a decoder's buckets are
ordered by distance throughout.

Source: C. Raffel et al. 2020, "Exploring the limits of transfer learning with a unified
text-to-text transformer".
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError


def relative_bucket(
    offset: Int[Tensor, "*shape"], n_buckets: int, max_distance: int, *, bidirectional: bool
) -> Int[Tensor, "*shape"]:
    """The bucket of ``offset`` = place of the key - place of the query.

    Of m buckets a direction, the first m/2 hold one distance each, the others ranges that grow
    geometrically up to max_distance, the last all beyond. Rounded in float32 as T5 does it, which
    decides about distances at a range's edge. A decoder's keys after the query read bucket 0, and
    are masked.

    Raises:
        ProbekitError: fewer than 2 buckets a direction, or max_distance within the exact ones.

    Example:
        >>> relative_bucket(torch.tensor([0, 1, -1, -500, 500]), 32, 128, bidirectional=True)
        tensor([ 0, 17,  1, 15, 31])
    """
    check_sizes(n_buckets=n_buckets, max_distance=max_distance)
    side = n_buckets // 2 if bidirectional else n_buckets
    exact = side // 2
    if side < 2 or max_distance <= exact:
        raise ProbekitError(
            f"{n_buckets} buckets to distance {max_distance} do not work: 2 a direction are needed "
            "at least, and max_distance above half of a direction's"
        )
    distance = offset.abs() if bidirectional else (-offset).clamp(min=0)
    octaves = (distance.clamp(min=exact).float() / exact).log() / math.log(max_distance / exact)
    coarse = (exact + (octaves * (side - exact)).long()).clamp(max=side - 1)
    bucket = torch.where(distance < exact, distance, coarse)
    return bucket + side * (offset > 0) if bidirectional else bucket


def bucket_offsets(
    n_buckets: int, max_distance: int, *, bidirectional: bool
) -> Float[Tensor, " bucket"]:
    """Mean offset of each bucket, negative before the query, in tokens.

    Over offsets up to max_distance: the last buckets reach further. NaN where none falls in.

    Raises:
        ProbekitError: as :func:`relative_bucket`.
    """
    offsets = torch.arange(-max_distance, max_distance + 1 if bidirectional else 1)
    buckets = relative_bucket(offsets, n_buckets, max_distance, bidirectional=bidirectional)
    sums = torch.zeros(n_buckets, dtype=torch.float64)
    sums = sums.index_add(0, buckets, offsets.double())
    return sums / buckets.bincount(minlength=n_buckets)
