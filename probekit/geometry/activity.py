"""How large, how spread and how concentrated activations are, and what a cosine of them is worth.

The metrics of "The Conservation of Separability" under standard names. Each says what the write-up
calls it and what it measures; which tensor it read varies with the experiment there (after the
second or the final LayerNorm, padding in or out), so that a reading needs its site. After a
LayerNorm :func:`mean_norm`, :func:`feature_variance` and :func:`snr_db` are one number, set by the
gain: they cannot come apart.

All work in float64.
"""

import math

import scipy
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_positive
from ..entropy import row_entropy
from ..errors import ProbekitError
from .similarity import cosine_similarity


def mean_norm(x: Float[Tensor, "*rows dim"]) -> float:
    """``mean |x|_2`` over vectors, which the write-up calls A ("amplitude").

    After a LayerNorm of gain g it is ``sqrt(d) g`` whatever the input: 5.66, 8 and 11.31 for d =
    32, 64 and 128. Divide by sqrt(d) before comparing widths.

    Example:
        >>> mean_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        3.0
    """
    return float(x.double().norm(dim=-1).mean())


def feature_variance(x: Float[Tensor, "*rows dim"]) -> float:
    """``(mean over vectors of the standard deviation over features)^2``: the write-up's sigma^2.

    The deviation is the sample's (d - 1), which gives the published values: after a LayerNorm
    without offset it is ``A^2 / (d - 1)``, so that A = 11.64 and 11.39 at d = 128 are 1.07 and
    1.02. A variance within each vector; that over inputs is ResidualStats' ``variance``.

    Raises:
        ProbekitError: fewer than two features.
    """
    if x.shape[-1] < 2:
        raise ProbekitError(
            f"feature_variance needs two features at least, not {tuple(x.shape)}; put features last"
        )
    return float(x.double().std(dim=-1).mean().square())


def snr_db(x: Float[Tensor, "*rows dim"], noise_std: float) -> float:
    """``10 log10(var(x) / noise_std^2)`` in decibels, var over all entries: the write-up's SNR.

    All of x counts as signal, what carries nothing about the input too. Noise is what the
    experiment adds; a LayerNorm's output has var = gain^2, so that this is the gain in decibels.

    Raises:
        ProbekitError: noise_std is no positive number, or x has fewer than two entries.
    """
    check_positive("noise_std", noise_std)
    if x.numel() < 2:
        raise ProbekitError(
            f"snr_db needs two entries at least for a variance, not {tuple(x.shape)}; pass the "
            "activations of a batch"
        )
    return float(10 * torch.log10(x.double().var() / noise_std**2))


def pattern_constancy(pattern: Float[Tensor, "..."], earlier: Float[Tensor, "..."]) -> float:
    """``1 - sqrt(JSD)``, natural logarithm, of two patterns as distributions: the metric G.

    Both are flattened and divided by their sum. 1 for a pattern that has not changed, which the
    write-up calls plastic: mind the sign. Disjoint patterns read ``1 - sqrt(ln 2)``, 0.167, not 0.
    It compared the first example now with itself 500 steps or more ago, and said 1 before there
    were two. Weights of like rows under one mask overlap whatever they attend to: compare with
    patterns of a random twin.

    Raises:
        ProbekitError: different shapes, or weights that are negative, not finite or all 0.
    """
    _check_alike("pattern_constancy", pattern, earlier)
    p, q = _distribution(pattern), _distribution(earlier)
    divergence = row_entropy((p + q) / 2) - (row_entropy(p) + row_entropy(q)) / 2
    return 1 - math.sqrt(max(0.0, float(divergence)))


def flattened_cosine(x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> float:
    """One cosine of two whole tensors: CosSim of patterns, and of residuals after a swap.

    Long rows outweigh short ones. Attention weights are not negative, so unrelated patterns read
    far above 0, and the write-up's were averaged over heads first: that forgets which head
    attends where and reads higher still (its "15 heads" of a 4-head model are query positions).
    NaN where a tensor is 0.

    Raises:
        ProbekitError: the shapes differ.
    """
    _check_alike("flattened_cosine", x, y)
    return float(cosine_similarity(x.flatten(), y.flatten()))


def mean_example_cosine(x: Float[Tensor, "*rows dim"], y: Float[Tensor, "..."]) -> float:
    """The mean of each example's cosine in the native basis: CosSim of two models' residuals.

    Unrelated bases read 0, whatever the models compute: standard deviation ``1 / sqrt(d PR)``
    with PR the participation ratio of the unit vectors' second moment (:func:`gauge_rotation` is
    that null). For what a basis does not change take :func:`cka` or :func:`procrustes`. NaN where
    a vector has length 0.

    Raises:
        ProbekitError: the shapes differ.
    """
    _check_alike("mean_example_cosine", x, y)
    return float(cosine_similarity(x, y).mean())


def gauge_rotation(
    residual: Float[Tensor, "*rows dim"], unembed: Float[Tensor, "in_dim out"], seed: int
) -> tuple[Float[Tensor, "*rows dim"], Float[Tensor, "in_dim out"]]:
    """``(x R, R^T W)`` with R a random orthogonal matrix (Haar): other vectors, the same logits.

    The null of "orthogonal solutions": any cosine of x with another model's residual can be had
    without changing what the model computes, and that of x with ``x R`` is 0 on average. Take x
    where the unembedding reads it, after the final norm: a norm in between fixes the basis.

    Args:
        residual: what the unembedding reads.
        unembed: its matrix, ``[d_model, d_vocab]`` as W_U; an offset stays as it is.
        seed: of R.

    Raises:
        ProbekitError: another width than the matrix reads, or fewer than two features.
    """
    dim = residual.shape[-1]
    if dim != len(unembed) or dim < 2:
        raise ProbekitError(
            f"gauge_rotation needs residuals [..., d_model] and unembed [d_model, d_vocab] of one "
            f"d_model from 2, not {tuple(residual.shape)} and {tuple(unembed.shape)}; a "
            "nn.Linear keeps its weight transposed"
        )
    drawn = torch.from_numpy(scipy.stats.ortho_group.rvs(dim, random_state=seed))
    rotation = drawn.to(residual.device)
    return residual.double() @ rotation, rotation.T @ unembed.double()


def outlier_variance(x: Float[Tensor, "*rows dim"]) -> float:
    """Mean variance of the features above the 90th percentile of variance: "suppressor strength".

    Variances are over vectors, the sample's. It grows with the square of any scale and suppresses
    nothing by itself; :func:`outlier_ratio` is free of scale. NaN where no feature is above.

    Raises:
        ProbekitError: fewer than two vectors.
    """
    variances = _variances("outlier_variance", x)
    return float(variances[variances > variances.quantile(0.9)].mean())


def outlier_ratio(x: Float[Tensor, "*rows dim"]) -> float:
    """Largest over median per-feature variance: the ratio beside "suppressor strength".

    At least 1. Equal features read 1 only where vectors are many, ``1 + O(sqrt(ln d / n))``; after
    a LayerNorm it is mostly the ratio of its squared gains. Even d: the lower median.

    Raises:
        ProbekitError: fewer than two vectors.
    """
    variances = _variances("outlier_ratio", x)
    return float(variances.max() / variances.median())


def gini(values: Float[Tensor, " item"]) -> float:
    """``sum_ij |x_i - x_j| / (2 n sum x)``: how unequal shares are.

    0 where they are equal, ``(n - 1) / n`` where one has all: compare at one n. What the write-up
    prints as Gini is this minus 1: its -.826 and -.904 are .174 and .096.

    Raises:
        ProbekitError: values that are negative, not finite or all 0.

    Example:
        >>> gini(torch.tensor([0.0, 0.0, 0.0, 2.0]))
        0.75
    """
    ordered = _distribution(values).sort().values
    n = len(ordered)
    ranks = torch.arange(1 - n, n, 2, dtype=ordered.dtype, device=ordered.device)
    return float((ranks * ordered).sum() / n)


def _variances(name: str, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, " dim"]:
    vectors = x.double().reshape(-1, x.shape[-1])
    if len(vectors) < 2:
        raise ProbekitError(f"{name} needs two vectors at least, not {tuple(x.shape)}")
    return vectors.var(0)


def _distribution(weights: Float[Tensor, "..."]) -> Float[Tensor, " item"]:
    """Flattened, and divided by the sum."""
    weights = weights.double().flatten()
    total = weights.sum()
    if not (total.isfinite() and total > 0 and (weights >= 0).all()):
        raise ProbekitError(
            f"weights must be finite, not negative and not all 0, not {len(weights)} that sum to "
            f"{float(total):g}; pass attention weights or shares, not scores"
        )
    return weights / total


def _check_alike(name: str, x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ProbekitError(
            f"{name} compares tensors of one shape, not {tuple(x.shape)} and {tuple(y.shape)}"
        )
