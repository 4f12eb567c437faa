"""Volumes of many simplices drawn from a table, and how much they vary.

The coefficient of variation (CV) of volumes looks like a constant of a model, and restates two of
its numbers: the participation ratio and how much centred norms vary
(:func:`simplex_cv_prediction`). Its uncertainty is that of the rows: draw other rows, not more
simplices of the same.

All work in float64; deviations divide by the number of simplices.

Source: the write-up "Geometric Terrain Analysis" (pentachora, k = 4).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError
from .simplex import simplex_volume

_GATHERED = 2**18  # coordinates of points gathered at once: they stay in the processor's cache
_DISTANCES = 16_384  # simplices at once where only distances are gathered

LOST_DIGITS = 1e-9
"""Relative error of V^2 from which the shared Gram matrix is not used."""


@dataclass(frozen=True)
class VolumeStats:
    """Statistics of the volumes that are not 0: ``cv`` = std / mean, ``log_std`` = std of ln V.

    ``log_std`` needs no mean of a heavy tail, and is about ``cv`` where both are small. ``kept``
    of ``number`` volumes are above 0.
    """

    cv: float
    mean: float
    log_std: float
    kept: int
    number: int


def volume_cv(x: Float[Tensor, "rows dim"], simplices: Int[Tensor, "simplex point"]) -> VolumeStats:
    """How much the volumes of simplices on rows of x vary: :func:`simplex_volumes`, summarised.

    Null: :func:`gaussian_volume_cv` for isotropic rows, :func:`simplex_cv_prediction` for others,
    and :func:`gaussian_volumes` of the same covariance. Beside it belongs the CV of
    :func:`unit_centred` rows: what is left when all norms are one.

    Raises:
        ProbekitError: as :func:`simplex_volumes` and :func:`volume_stats`.
    """
    return volume_stats(simplex_volumes(x, simplices))


def volume_stats(volumes: Float[Tensor, " simplex"]) -> VolumeStats:
    """Mean, CV and deviation of the logarithm of those volumes that are above 0.

    Rounding may leave a flat simplex just above 0: its logarithm then rules ``log_std``.

    Raises:
        ProbekitError: no volume is above 0, or one is not finite.
    """
    if not (volumes.isfinite().all() and (volumes > 0).any()):
        raise ProbekitError(
            f"volume_stats needs finite volumes and one above 0, not {len(volumes)} of which "
            f"{int((~volumes.isfinite()).sum())} are not finite; simplices of k + 1 points need k "
            "dimensions and distinct points"
        )
    kept = volumes[volumes > 0].double()
    return VolumeStats(
        float(kept.std(correction=0) / kept.mean()),
        float(kept.mean()),
        float(kept.log().std(correction=0)),
        len(kept),
        len(volumes),
    )


def draw_simplices(rows: int, k: int, number: int, seed: int) -> Int[Tensor, "simplex point"]:
    """``number`` sets of k + 1 different rows, each set equally likely (Floyd's method).

    All drawn at once on the CPU; the order within a set is not random.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1, or fewer than k + 1 rows.
    """
    check_sizes(rows=rows, k=k, number=number)
    if rows <= k:
        raise ProbekitError(f"a {k}-simplex has {k + 1} points and does not fit {rows} rows")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(number, 0, dtype=torch.long)
    for last in range(rows - k - 1, rows):
        new = torch.randint(last + 1, (number, 1), generator=generator)
        taken = (drawn == new).any(-1, keepdim=True)
        drawn = torch.cat([drawn, torch.where(taken, last, new)], -1)
    return drawn


def simplex_volumes(
    x: Float[Tensor, "rows dim"], simplices: Int[Tensor, "simplex point"]
) -> Float[Tensor, " simplex"]:
    """Volumes of simplices whose points are rows of x, in float64: :func:`simplex_volume` of each.

    Where simplices are many and the rows they use few, edges' products come from the squared
    distances of all these rows, ``e_i.e_j = (D_i0 + D_0j - D_ij) / 2``, and those from one Gram
    matrix of the centred rows. That cancels where a simplex is small beside its distance from the
    centre; whatever may lose more than 1e-9 of V^2 is computed again from differences.

    Raises:
        ProbekitError: fewer than 2 points a simplex, or an index outside the rows.
    """
    if simplices.shape[-1] < 2 or not ((simplices >= 0) & (simplices < len(x))).all():
        raise ProbekitError(
            f"simplices must be [simplex, point] of 2 or more row indices from 0 to {len(x) - 1}, "
            f"not {tuple(simplices.shape)}; draw_simplices draws them"
        )
    seen = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    seen[simplices.flatten()] = True
    used = seen.nonzero().squeeze(-1)
    # Gram: rows^2 dim products at full speed; gathering: dim numbers a point, at memory speed.
    if len(used) ** 2 > 100 * len(simplices) or x.shape[1] < simplices.shape[1] - 1:
        return _from_edges(x, simplices)
    points = x[used].double()
    points = points - points.mean(0)
    gram = points @ points.T
    norms = gram.diagonal().clone()
    squared = (norms[:, None] + norms).sub_(gram, alpha=2)
    place = seen.cumsum(0) - 1
    found = [_from_distances(squared, norms, chunk) for chunk in place[simplices].split(_DISTANCES)]
    volumes, sure = (torch.cat(parts) for parts in zip(*found, strict=True))
    volumes[~sure] = _from_edges(x, simplices[~sure])
    return volumes


def _from_edges(x: Tensor, simplices: Tensor) -> Tensor:
    chunks = simplices.split(max(1, _GATHERED // max(1, simplices.shape[1] * x.shape[1])))
    points = (x.index_select(0, chunk.flatten()).view(*chunk.shape, x.shape[1]) for chunk in chunks)
    return torch.cat([simplex_volume(each.double()) for each in points])


def _from_distances(squared: Tensor, norms: Tensor, simplices: Tensor) -> tuple[Tensor, Tensor]:
    """Volumes, and whether their digits are sure.

    By Cholesky pivots of the edges' products, each entry a vector over simplices: small matrices
    are too small for a batched decomposition.
    """
    k = simplices.shape[1] - 1
    corners, flat = simplices.T.contiguous(), squared.view(-1)
    between = {
        (i, j): flat[corners[i] * len(squared) + corners[j]] for i in range(k + 1) for j in range(i)
    }
    products = {
        (i, j): between[i, 0] if i == j else (between[i, 0] + between[j, 0] - between[i, j]) / 2
        for i in range(1, k + 1)
        for j in range(1, i + 1)
    }
    trace = torch.stack([products[i, i] for i in range(1, k + 1)]).sum(0)
    log_det = torch.zeros_like(trace)
    for pivot in range(1, k + 1):
        log_det += products[pivot, pivot].log()  # NaN where rounding leaves it below 0
        for i in range(pivot + 1, k + 1):
            ratio = products[i, pivot] / products[pivot, pivot]
            for j in range(pivot + 1, i + 1):
                products[i, j] = products[i, j] - ratio * products[j, pivot]
    # |change of ln det| <= k |error| / smallest eigenvalue, which by the means of the others is at
    # least det / (trace / (k - 1))^(k - 1); rounding leaves some 10 eps of a norm squared.
    log_smallest = log_det - (k - 1) * (trace / max(k - 1, 1)).log()
    error = 10 * k * torch.finfo(norms.dtype).eps * norms[corners].amax(0)
    sure = error < LOST_DIGITS * log_smallest.exp()
    return (log_det / 2 - math.lgamma(k + 1)).exp(), sure
