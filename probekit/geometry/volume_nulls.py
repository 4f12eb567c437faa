"""What volumes are when nothing but Gaussian chance shapes them.

For k + 1 independent points with covariance S of eigenvalues l, ``E V^2 = (k + 1)/k! e_k(l)``
exactly, e_k the k-th elementary symmetric polynomial: a small volume may only say that the
spectrum is steep. One deviation for all coordinates, as the write-up's baseline has it, mixes the
spread of their means into the scale, and V goes with its k-th power.

All work in float64.

Source: R. Muirhead 1982, "Aspects of multivariate statistical theory" (determinants of Wishart
matrices as products of chi-squares); Cauchy and Binet for unequal eigenvalues.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_positive, check_sizes
from ..errors import ProbekitError
from .similarity import unit_rows
from .simplex import simplex_volume

CHUNK = 1024


def gaussian_volume_cv(dim: int, k: int = 4) -> float:
    """The exact CV of volumes of k + 1 independent isotropic Gaussian points.

    V is a constant times ``prod_{i<k} chi_{dim - i}``, so that ``CV^2 + 1 = prod_{i<k} n G(n/2)^2
    / (2 G((n+1)/2)^2)`` with n = dim - i; about ``sqrt(sum 1 / (2 n))``. It depends on the
    dimension alone: .23 to .20 for 41 to 53 dimensions, .0627 at 512.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1, or k > dim.

    Example:
        >>> round(gaussian_volume_cv(512), 4)
        0.0627
    """
    logs = [math.log(n) - 2 * _log_mean_chi(n) for n in _degrees(dim, k)]
    return math.sqrt(math.expm1(sum(logs)))


def gaussian_mean_volume(dim: int, std: float, k: int = 4) -> float:
    """The exact mean volume of those points: ``std^k sqrt(k + 1)/k! prod_{i<k} E chi_{dim - i}``.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1, k > dim, or std no number above 0.
    """
    check_positive("std", std)
    log_mean = sum(_log_mean_chi(n) for n in _degrees(dim, k))
    scale = k * math.log(std) + math.log(k + 1) / 2 - math.lgamma(k + 1)
    return math.exp(scale + log_mean)


def gaussian_mean_square_volume(
    eigenvalues: Float[Tensor, "*batch value"], k: int = 4
) -> Float[Tensor, "*batch"]:
    """``E V^2 = (k + 1)/k! e_k(eigenvalues)`` of Gaussian points, 5/24 e_4 of pentachora; exact.

    The points' fourth moments do not enter, so that any points drawn independently with this
    covariance have it too: a difference says that they are not.

    Raises:
        ProbekitError: k is no whole number from 1, or an eigenvalue is negative or not finite.

    Example:
        >>> gaussian_mean_square_volume(torch.ones(2), k=1)  # E |g - h|^2
        tensor(4., dtype=torch.float64)
    """
    check_sizes(k=k)
    _check_eigenvalues("gaussian_mean_square_volume", eigenvalues)
    eigenvalues = eigenvalues.double()
    # before[i] is e_j of the eigenvalues before the i-th: all terms positive, nothing cancels.
    before = torch.ones_like(eigenvalues)
    total = before[..., 0]
    for _ in range(k):
        sums = (eigenvalues * before).cumsum(-1)
        total = sums[..., -1]
        before = torch.nn.functional.pad(sums[..., :-1], (1, 0))
    return (k + 1) / math.factorial(k) * total


def gaussian_volumes(
    eigenvalues: Float[Tensor, " value"], k: int, number: int, seed: int
) -> Float[Tensor, " simplex"]:
    """Volumes of ``number`` simplices of Gaussian points with these covariance eigenvalues.

    The same-covariance surrogate: :func:`volume_stats` of these is what the spectrum alone gives.
    It has a Gaussian's norms: data whose norms vary more exceed it without any structure.

    Raises:
        ProbekitError: k or number is no whole number from 1, or an eigenvalue is negative or not
            finite.
    """
    check_sizes(k=k, number=number)
    _check_eigenvalues("gaussian_volumes", eigenvalues)
    generator = torch.Generator().manual_seed(seed)
    deviations = eigenvalues.double().cpu().sqrt()
    volumes = []
    for start in range(0, number, CHUNK):
        shape = (min(CHUNK, number - start), k + 1, len(deviations))
        points = torch.randn(shape, generator=generator, dtype=torch.float64) * deviations
        volumes.append(simplex_volume(points))
    return torch.cat(volumes)


def unit_centred(x: Float[Tensor, "*batch rows dim"]) -> Float[Tensor, "*batch rows dim"]:
    """Rows without their mean, at length 1: what is left when no norm varies.

    Volumes of these have a CV of about ``sqrt(k / (2 (k + 1) PR))``: .4 / PR under the root for
    pentachora. Its rows' mean is no longer exactly 0. NaN where a row is the mean.
    """
    return unit_rows(x.double() - x.double().mean(-2, keepdim=True))


def norms_shuffled(x: Float[Tensor, "rows dim"], seed: int) -> Float[Tensor, "rows dim"]:
    """Centred rows whose lengths are dealt out anew: directions and norms without their relation.

    A volume CV that survives is that of the two separately.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    norms = (x.double() - x.double().mean(0)).norm(dim=-1, keepdim=True)
    return unit_centred(x) * norms[order]


def _degrees(dim: int, k: int) -> range:
    check_sizes(dim=dim, k=k)
    if k > dim:
        raise ProbekitError(f"a {k}-simplex in {dim} dimensions has volume 0; lower k or raise dim")
    return range(dim, dim - k, -1)


def _log_mean_chi(n: int) -> float:
    return math.log(2) / 2 + math.lgamma((n + 1) / 2) - math.lgamma(n / 2)


def _check_eigenvalues(name: str, eigenvalues: Tensor) -> None:
    if not eigenvalues.numel() or not (eigenvalues.isfinite() & (eigenvalues >= 0)).all():
        raise ProbekitError(
            f"{name} needs finite eigenvalues from 0, one at least, not {tuple(eigenvalues.shape)} "
            "with others; covariance_eigenvalues gives them"
        )
