"""How many dimensions points use: participation ratio and dimensions for a share of variance.

All take eigenvalues, which :func:`covariance_eigenvalues` gives, or singular values of a weight
matrix where amplitude and not energy is meant. Both numbers grow with the number of points they
are measured on: 5,000 isotropic points in 1,024 dimensions read as 850 dimensions, not 1,024. So
compare with the null at the same number of rows, or debias.

They mislead where rows were never trained (unused vocabulary looks isotropic: leave it out), and
where a few dimensions have another scale: a single one can bring a participation ratio to 1.

All work in float64.

Source: V. Marchenko and L. Pastur 1967, "Distribution of eigenvalues for some sets of random
matrices"; P. Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement"
(participation ratio); the write-up "Geometric Terrain Analysis".
"""

import math
from collections.abc import Sequence

import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import check_share, check_sizes
from ..errors import ProbekitError


def covariance_eigenvalues(x: Float[Tensor, "*batch rows dim"]) -> Float[Tensor, "*batch dim"]:
    """Eigenvalues of ``(x - mean)^T (x - mean) / rows``, descending, in the points' units squared.

    Never negative: what rounding leaves below 0 is 0.

    Raises:
        ProbekitError: fewer than 2 rows.

    Example:
        >>> covariance_eigenvalues(torch.tensor([[3.0, 1.0], [-3.0, 1.0]]))
        tensor([9., 0.], dtype=torch.float64)
    """
    if x.shape[-2] < 2:
        raise ProbekitError(
            f"covariance_eigenvalues needs two rows at least, not {tuple(x.shape)}; rows are the "
            "last axis but one"
        )
    centred = x.double() - x.double().mean(-2, keepdim=True)
    covariance = centred.mT @ centred / x.shape[-2]
    return torch.linalg.eigvalsh(covariance).clamp(min=0).flip(-1)


def participation_ratio(values: Float[Tensor, "*batch value"]) -> Float[Tensor, "*batch"]:
    """``(sum v)^2 / sum v^2``: as many equal values would be as spread out.

    From 1 to the number of values. Of eigenvalues it is the write-up's PR, of singular values its
    PR_s, a larger number. Null: :func:`participation_null`. NaN where all are 0.

    Raises:
        ProbekitError: a value is negative or not finite.

    Example:
        >>> participation_ratio(torch.tensor([2.0, 2.0, 2.0, 0.0]))
        tensor(3., dtype=torch.float64)
    """
    _check_spectrum("participation_ratio", values)
    values = values.double()
    return values.sum(-1).square() / values.square().sum(-1)


def participation_null(dim: int, rows: int) -> float:
    """What isotropic points read: ``dim / (1 + dim / rows)``, however many dimensions there are.

    The ratio of expectations; a sample lies within about 1 / rows of it, relatively.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1.
    """
    check_sizes(dim=dim, rows=rows)
    return dim / (1 + dim / rows)


def debiased_participation(ratio: Float[Tensor, "*batch"], rows: int) -> Float[Tensor, "*batch"]:
    """The participation ratio of all points, from that of a sample: ``1/PR = 1/PR_obs - 1/rows``.

    Only for rows drawn independently from many more, and light-tailed ones: of the whole table the
    observed ratio is the answer, and tokens of a text are fewer independent rows than they count.
    May exceed the dimension by chance; infinite where the sample says nothing (``ratio >= rows``).

    Raises:
        ProbekitError: rows is no whole number from 1.
    """
    check_sizes(rows=rows)
    return 1 / (1 / ratio.double() - 1 / rows).clamp(min=0)


def dims_for_variance(
    values: Float[Tensor, "*batch value"], fractions: Sequence[float]
) -> Int[Tensor, "*batch fraction"]:
    """The fewest of the largest values that sum to each fraction of all.

    ``searchsorted(cumsum(sorted v) / sum v, f) + 1``. Of eigenvalues: dimensions for a share of
    variance (energy). Of singular values: the write-up's amplitude rank, a larger number. Null:
    :func:`dims_for_variance_null`.

    Raises:
        ProbekitError: a value is negative or not finite, or a fraction lies outside [0, 1].

    Example:
        >>> dims_for_variance(torch.tensor([1.0, 6.0, 3.0]), (0.5, 0.8))
        tensor([1, 2])
    """
    _check_spectrum("dims_for_variance", values)
    for fraction in fractions:
        check_share("each of fractions", fraction)
    shares = values.double().sort(-1, descending=True).values.cumsum(-1)
    shares = shares / shares[..., -1:]
    wanted = torch.tensor(list(fractions), dtype=torch.float64, device=values.device)
    wanted = wanted.expand(*shares.shape[:-1], -1).contiguous()
    return torch.searchsorted(shares, wanted) + 1


def dims_for_variance_null(dim: int, rows: int, fractions: Sequence[float]) -> list[int]:
    """:func:`dims_for_variance` of isotropic points, by the Marchenko-Pastur law.

    With y = dim / rows an eigenvalue is ``1 + y + 2 sqrt(y) cos(t)``, and the variance above it is
    a semicircle's segment: share ``(t - sin t cos t) / pi`` in
    ``dim integral_0^t 2 sin^2(s) / (pi (1 + y + 2 sqrt(y) cos s)) ds`` dimensions. The limit of
    large sizes, right to a dimension or two; a fraction of 1 takes all the rank.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1, or a fraction outside [0, 1].

    Example:
        >>> dims_for_variance_null(1024, 10_000, (0.8, 0.9, 0.95, 0.99))
        [706, 847, 929, 1003]
    """
    check_sizes(dim=dim, rows=rows)
    for fraction in fractions:
        check_share("each of fractions", fraction)
    return [max(1, math.ceil(dim * _share_of_dims(dim / rows, f) - 1e-6)) for f in fractions]


def _share_of_dims(y: float, fraction: float) -> float:
    angle = scipy.optimize.brentq(
        lambda t: (t - math.sin(t) * math.cos(t)) / math.pi - fraction, 0, math.pi
    )

    def density(t: float) -> float:
        return 2 * math.sin(t) ** 2 / (math.pi * (1 + y + 2 * math.sqrt(y) * math.cos(t)))

    return scipy.integrate.quad(density, 0, angle)[0]


def _check_spectrum(name: str, values: Tensor) -> None:
    if not (values.isfinite() & (values >= 0)).all():
        raise ProbekitError(
            f"{name} needs finite values from 0, not {float(values.min()):g} to "
            f"{float(values.max()):g}; pass eigenvalues of a covariance, or singular values"
        )
