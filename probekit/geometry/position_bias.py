"""What T5's relative position biases say about distance, by direction.

Tables are [bucket, head], as ``relative_attention_bias.weight``; one a stack, so that heads are the
sample. The bias is only added to the scores: a head with a flat one may still look at its
neighbours, as its queries and keys can know positions.

The write-up calls a head by its largest bucket (:func:`published_head_kinds`), in the encoder too,
where bucket 17 is the next token and 15 the far past: both count as "mixed" there.

All work in float64.

Source: Raffel et al. 2020 (T5); the write-up "Geometric Terrain Analysis"; E. Sparre Andersen 1953,
"On the fluctuations of sums of random variables" (where a random walk is largest).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError
from .buckets import bucket_offsets, relative_bucket

MONOTONE = 0.9
"""Share of steps in one direction from which curves count as monotone."""


@dataclass(frozen=True, eq=False)
class BiasProfile:
    """Per direction ("before" the query, and "after" it where bidirectional) and head.

    ``slope`` is in bias units a unit of ln(distance), ``falling`` the share of steps away from the
    query on which the bias does not rise, ``kind`` what :func:`curve_kind` calls all heads
    together. ``attended_distance`` in tokens and ``entropy`` in nats are those of the softmax of
    the bias alone, averaged over queries.
    """

    directions: tuple[str, ...]
    slope: Float[Tensor, "direction head"]
    falling: Float[Tensor, "direction head"]
    kind: tuple[str, ...]
    attended_distance: Float[Tensor, " head"]
    entropy: Float[Tensor, " head"]


def bias_profile(
    bias: Float[Tensor, "bucket head"],
    *,
    bidirectional: bool,
    max_distance: int = 128,
    length: int = 128,
) -> BiasProfile:
    """Slope against log distance, monotone share, and attended distance and entropy of each head.

    Nulls: slope 0; ``falling`` .5 for iid biases and random walks alike (deviation .079 of 15 iid
    steps), so that it takes :func:`curve_kind` to tell them; :func:`uniform_distance` and
    :func:`uniform_entropy` for a flat bias.

    Args:
        bias: the table.
        bidirectional: True of an encoder.
        max_distance: the configuration's relative_attention_max_distance.
        length: tokens of the text over which attention is averaged.

    Raises:
        ProbekitError: as :func:`relative_bucket`, fewer than 4 buckets a direction, length no
            whole number from 1, or a bias that is not finite.
    """
    check_sizes(length=length)
    n_buckets = len(bias)
    offsets = bucket_offsets(n_buckets, max_distance, bidirectional=bidirectional)
    half = n_buckets // 2 if bidirectional else n_buckets
    if half < 4 or not bias.isfinite().all():
        raise ProbekitError(
            f"bias_profile needs finite biases of 4 buckets a direction at least, not "
            f"{tuple(bias.shape)}; bias is [bucket, head]"
        )
    bias = bias.double().cpu()
    # Distance 0 begins both directions; an encoder's bucket half is never used.
    own = torch.zeros(1, dtype=torch.long)
    sides = [torch.arange(half)]
    if bidirectional:
        sides.append(torch.cat([own, torch.arange(half + 1, n_buckets)]))
    sides = [side[~offsets[side].isnan()] for side in sides]
    distance, entropy = _attended(bias, length, max_distance, bidirectional)
    return BiasProfile(
        ("before", "after")[: len(sides)],
        torch.stack([_slope(bias[side[1:]], offsets[side[1:]].abs().log()) for side in sides]),
        torch.stack([(bias[side].diff(dim=0) <= 0).double().mean(0) for side in sides]),
        tuple(curve_kind(bias[side]) for side in sides),
        distance,
        entropy,
    )


def curve_kind(curves: Float[Tensor, "step curve"]) -> str:
    """ "monotone", "iid" or "random walk": what curves, taken together, look most like.

    Monotone where at least .9 of all steps go each curve's prevalent way. Of the other two the
    likelier: with Gaussian values the log likelihoods differ by (n - 1)/2 times the sum over curves
    of ``ln(mean squared step / sample variance)``, above 0 for iid (von Neumann's ratio is 2 there
    and near 0 for walks). One curve of 32 values is called rightly some 19 times of 20, a table of
    8 practically always. Forced to choose: smooth curves with a bend are "random walk".

    Raises:
        ProbekitError: fewer than 4 steps, no curve, or one that is constant.
    """
    curves = curves.double()
    if len(curves) < 4 or not curves.numel() or not (curves.var(0) > 0).all():
        raise ProbekitError(
            f"curve_kind needs curves of 4 values at least that vary, not {tuple(curves.shape)}; "
            "curves are [step, curve]"
        )
    steps = curves.diff(dim=0)
    falling = (steps <= 0).double().mean(0)
    if float(torch.maximum(falling, 1 - falling).mean()) >= MONOTONE:
        return "monotone"
    ratios = steps.square().mean(0) / curves.var(0)
    return "iid" if float(ratios.log().sum()) > 0 else "random walk"


def uniform_distance(length: int, *, bidirectional: bool) -> float:
    """Attended ``|i - j|`` of a flat bias, in tokens: ``(n^2 - 1) / (3 n)``, causal ``(n - 1)/4``.

    Raises:
        ProbekitError: length is no whole number from 1.
    """
    check_sizes(length=length)
    return (length**2 - 1) / (3 * length) if bidirectional else (length - 1) / 4


def uniform_entropy(length: int, *, bidirectional: bool) -> float:
    """Entropy of a flat bias in nats: ``ln n``, causal the mean of ``ln(i + 1)`` over queries.

    Raises:
        ProbekitError: length is no whole number from 1.
    """
    check_sizes(length=length)
    return math.log(length) if bidirectional else math.lgamma(length + 1) / length


def published_head_kinds(bias: Float[Tensor, "bucket head"]) -> list[str]:
    """The write-up's rule: largest bucket up to 2 "local", among the last 3 "global", else "mixed".

    Any monotone bias is never mixed, and no mixed head says no more than that. Null:
    :func:`published_mixed_null`. Of an encoder the rule is meaningless: its buckets are not in
    order of distance.

    Raises:
        ProbekitError: fewer than 6 buckets.
    """
    if len(bias) < 6:
        raise ProbekitError(
            f"published_head_kinds needs 6 buckets at least, not {len(bias)}; bias is "
            "[bucket, head]"
        )
    largest = bias.argmax(0).tolist()
    return ["local" if at <= 2 else "global" if at >= len(bias) - 3 else "mixed" for at in largest]


def published_mixed_null(n_buckets: int) -> tuple[float, float]:
    """Chance of a "mixed" head for iid biases, ``1 - 6/n``, and for random walks; .8125 and .617.

    A walk of n - 1 symmetric steps is largest at place k with chance ``u_k u_(n-1-k)``,
    ``u_k = C(2k, k) / 4^k``: mostly at an end. With 8 heads, no mixed one has chance 1.5e-6 under
    iid and 5e-4 for walks, and 1 for monotone curves.

    Raises:
        ProbekitError: n_buckets is no whole number from 6.
    """
    check_sizes(n_buckets=n_buckets)
    if n_buckets < 6:
        raise ProbekitError(f"published_mixed_null needs 6 buckets at least, not {n_buckets}")
    chances = [math.comb(2 * k, k) / 4**k for k in range(n_buckets)]
    ends = sum(chances[k] * chances[n_buckets - 1 - k] for k in range(3))
    return 1 - 6 / n_buckets, max(0.0, 1 - 2 * ends)


def _slope(values: Tensor, at: Tensor) -> Tensor:
    centred = at - at.mean()
    return centred @ values / centred.square().sum()


def _attended(
    bias: Tensor, length: int, max_distance: int, bidirectional: bool
) -> tuple[Tensor, Tensor]:
    places = torch.arange(length)
    offsets = places - places[:, None]
    buckets = relative_bucket(offsets, len(bias), max_distance, bidirectional=bidirectional)
    scores = bias[buckets].movedim(-1, 0)
    if not bidirectional:
        scores = scores.masked_fill(offsets > 0, -math.inf)
    weights = scores.softmax(-1)
    distance = (weights * offsets.abs()).sum(-1).mean(-1)
    return distance, torch.special.entr(weights).sum(-1).mean(-1)
