"""Simplices: volumes, the regular simplex, and a published template that is not regular.

A k-simplex has k + 1 points. Two routes to its volume: :func:`cayley_menger` from squared
distances alone, :func:`simplex_volume` from the points, which is the more accurate. Both work in
float64 and on any number of simplices at once.

They mislead where V² > 0 is read as a test that the simplex "exists": V² of points in a Euclidean
space is a Gram determinant and never negative. Only distances of another origin can fail it.

Source: K. Menger, "New foundation of Euclidean geometry", 1931; the template of the write-up
"Geometric Terrain Analysis", its geometric field modulator.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError

_CACHED = 2**18
"""Coordinates of the simplices that a processor works on at once: they stay in its cache."""


def n_edges(k: int) -> int:
    """Edges of a k-simplex: ``k (k + 1) / 2``."""
    return k * (k + 1) // 2


def squared_distances(
    points: Float[Tensor, "*batch points dim"],
) -> Float[Tensor, "*batch points points"]:
    """``|p_i - p_j|^2`` from differences, so that the diagonal is exactly 0 and nothing cancels."""
    return (points.unsqueeze(-2) - points.unsqueeze(-3)).square().sum(-1)


def cayley_menger(squared: Float[Tensor, "*batch points points"]) -> Float[Tensor, "*batch"]:
    """Squared volume from squared distances: ``V^2 = (-1)^(k+1) det(M) / (2^k (k!)^2)``.

    M is ``squared`` bordered by ones, its corner 0. In the distances' units to the power 2k; of
    their dtype, at least float32. Negative where no Euclidean points have these distances.

    Raises:
        ProbekitError: fewer than 2 points.

    Example:
        >>> cayley_menger(1 - torch.eye(3))  # an equilateral triangle: (sqrt(3) / 4)^2
        tensor(0.1875)
    """
    k = _order(squared)
    bordered = torch.nn.functional.pad(squared.double(), (1, 0, 1, 0), value=1.0)
    corner = torch.zeros(k + 2, k + 2, dtype=torch.float64, device=squared.device)
    corner[0, 0] = 1
    scale = (-1) ** (k + 1) / (2**k * math.factorial(k) ** 2)
    return (torch.linalg.det(bordered - corner) * scale).to(_result_dtype(squared))


def simplex_volume(points: Float[Tensor, "*batch points dim"]) -> Float[Tensor, "*batch"]:
    """Volume from edge vectors: ``sqrt(det(E E^T)) / k!`` with rows ``E_i = p_i - p_0``.

    In the points' units to the power k; of their dtype, at least float32. 0 where dim < k, and
    but for rounding where the points are degenerate in another way.

    Raises:
        ProbekitError: fewer than 2 points.

    Example:
        >>> simplex_volume(torch.eye(3))  # sqrt(3) / 2
        tensor(0.8660)
    """
    k = _order(points)
    if points.shape[-1] < k:
        return points.new_zeros(points.shape[:-2], dtype=_result_dtype(points))
    flat = points.reshape(-1, *points.shape[-2:])
    at_once = (
        max(1, _CACHED // max(1, points.shape[-2:].numel()))
        if flat.device.type == "cpu"
        else len(flat)
    )
    log_dets = []
    for some in flat.split(max(1, at_once)):
        edges = (some[:, 1:] - some[:, :1]).double()
        log_dets.append(torch.linalg.slogdet(edges @ edges.mT).logabsdet)
    volumes = (torch.cat(log_dets) / 2 - math.lgamma(k + 1)).exp()
    return volumes.view(points.shape[:-2]).to(_result_dtype(points))


def regular_simplex(
    k: int, dim: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "points dim"]:
    """k + 1 points around the origin, all distances 1; coordinates past the k-th are 0.

    The scaled basis vectors ``e_i / sqrt(2)`` of k + 1 dimensions have these distances; rows of the
    Helmert matrix, a basis of what is left after centring, bring them to k dimensions.

    Raises:
        ProbekitError: k < 1 or k > dim.

    Example:
        >>> regular_simplex(1, 2)
        tensor([[ 0.5000,  0.0000],
                [-0.5000,  0.0000]])
    """
    _check_fits(k, dim)
    helmert = torch.ones(k, k + 1, dtype=torch.float64).tril()
    row = torch.arange(1, k + 1, dtype=torch.float64)
    helmert[:, 1:].diagonal().copy_(-row)
    helmert /= (row * (row + 1)).sqrt().unsqueeze(-1)
    return _padded(helmert.T / math.sqrt(2), dim).to(dtype)


def published_simplex(
    k: int, dim: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "points dim"]:
    """The write-up's template, regular in name: edges of .94 to 1.08 for k = 4 in 8 dimensions.

    ``v_00 = sqrt((k+1)/k)``, ``v_ii = sqrt((k+1) / (k (1 + 1/(i+1))))`` and
    ``v_ip = -1 / (k v_pp)`` for p < i; centred, then divided by the distance of points 0 and 1. In
    exactly k dimensions the last point has no diagonal and stays at 0, which makes edges as short
    as .564 (k = 2). Kept to repeat published runs; otherwise use :func:`regular_simplex`.

    Raises:
        ProbekitError: k < 1 or k > dim.
    """
    _check_fits(k, dim)
    index = torch.arange(1, k + 2, dtype=torch.float64)
    diagonal = ((k + 1) / (k * (1 + 1 / index))).sqrt()
    diagonal[0] = math.sqrt((k + 1) / k)
    below = (-1 / (k * diagonal)).expand(k + 1, k + 1).tril(-1)
    points = below + diagonal.diag()
    if dim == k:
        points = points[:, :dim]
        points[k] = 0
    points = _padded(points, dim)
    points = points - points.mean(0)
    return (points / (points[0] - points[1]).norm()).to(dtype)


def _padded(points: Tensor, dim: int) -> Tensor:
    return torch.nn.functional.pad(points, (0, dim - points.shape[1]))


def _check_fits(k: int, dim: int) -> None:
    if not 1 <= k <= dim:
        raise ProbekitError(
            f"a {k}-simplex in {dim} dimensions: k must be at least 1 and at most the dimension;"
            " lower k or raise dim"
        )


def _order(points: Tensor) -> int:
    if points.shape[-2] < 2:
        raise ProbekitError(
            f"a simplex needs 2 points or more, given {points.shape[-2]}"
            f" (shape {list(points.shape)}); points are the last axis but one"
        )
    return points.shape[-2] - 1


def _result_dtype(points: Tensor) -> torch.dtype:
    return torch.promote_types(points.dtype, torch.float32)
