"""Similarity of two sets of points: cosine in the native basis, CKA, and Procrustes alignment.

Rows of ``x`` and ``y`` are paired: the same inputs seen by two models or layers. Which one says
what:

``cosine_similarity``  whether coordinates agree as they stand. Two networks of different seeds
                       have unrelated bases: about 0, even where they compute the same.
``cka``                whether pairs of rows are alike in both; blind to rotation and scale. Few
                       rows in many dimensions read high (:func:`cka_null`).
``procrustes``         how well one rotation carries x to y. In sample it fits noise
                       (:func:`procrustes_null`): hold rows out.

All work in float64.

Source: Kornblith et al. 2019, "Similarity of neural network representations revisited"; Song et
al. 2012 (debiased HSIC); Schoenemann 1966 (orthogonal Procrustes).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import ProbekitError


def cosine_similarity(x: Float[Tensor, "*rows dim"], y: Tensor) -> Float[Tensor, "*rows"]:
    """``x.y / (|x| |y|)`` of each pair of rows; NaN where one has length 0.

    Null: 0 for independent directions, with standard deviation ``1 / sqrt(dim)`` a row.

    Raises:
        ProbekitError: the shapes differ.

    Example:
        >>> cosine_similarity(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]]))
        tensor([0.9600], dtype=torch.float64)
    """
    if x.shape != y.shape:
        raise ProbekitError(
            f"cosine_similarity pairs rows of one shape, not {tuple(x.shape)} and {tuple(y.shape)}"
        )
    return (unit_rows(x) * unit_rows(y)).sum(-1)


def unit_rows(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
    """Rows at length 1, in float64; NaN where they have length 0."""
    x = x.double()
    return x / x.norm(dim=-1, keepdim=True)


def mean_cosine(
    x: Float[Tensor, "example group row dim"],
    y: Float[Tensor, "example group row dim"],
    counted: Bool[Tensor, "example row"],
) -> Float[Tensor, " group"]:
    """Mean cosine of paired rows where they are counted, such as the patterns of heads."""
    cosines = torch.where(counted[:, None], cosine_similarity(x, y), 0)
    return cosines.sum((0, 2)) / counted.sum()


def cosine_of_others(
    x: Float[Tensor, "example group row dim"],
    y: Float[Tensor, "example group row dim"],
    counted: Bool[Tensor, "example row"],
) -> Float[Tensor, " group"]:
    """The null of :func:`mean_cosine`: rows of one example with the same rows of another.

    The mean over all pairs of different examples, without visiting them:
    ``sum over i != j of x_i.y_j = (sum x).(sum y) - sum x_i.y_i`` for rows of length 1. A row
    weighs as many times as it is counted; one that only a single example has is left out.
    """
    x, y = (torch.where(counted[:, None, :, None], unit_rows(one), 0) for one in (x, y))
    pairs = (x.sum(0) * y.sum(0)).sum(-1) - (x * y).sum((0, -1))
    n = counted.sum(0)
    weight = torch.where(n > 1, n, 0)
    return (pairs / (n * (n - 1)).clamp(min=1) * weight).sum(-1) / weight.sum()


def cka(
    x: Float[Tensor, "x_rows x_dim"], y: Float[Tensor, "y_rows y_dim"], *, debiased: bool = False
) -> float:
    """Linear CKA: ``|X^T Y|_F^2 / (|X^T X|_F |Y^T Y|_F)`` of centred X, Y; the widths may differ.

    In [0, 1], and 1 for ``y = s x R + t`` with R orthogonal. Null: :func:`cka_null`, the exact
    mean under permuted rows, which is far from 0 where rows are few. ``debiased`` replaces each
    squared norm by Song et al.'s unbiased estimator, whose null is exactly 0; it may then be
    negative, or NaN where a squared norm is estimated below 0. NaN for constant x or y.

    Raises:
        ProbekitError: different numbers of rows, or too few (2, debiased 4).
    """
    _check_pairs("cka", x, y, 4 if debiased else 2)
    x, y = _centred(x), _centred(y)
    similarity = _debiased_hsic if debiased else _hsic
    product = similarity(x, x) * similarity(y, y)
    return float(similarity(x, y) / product.sqrt())


def cka_null(x: Float[Tensor, "x_rows x_dim"], y: Float[Tensor, "y_rows y_dim"]) -> float:
    """The mean of :func:`cka` over all permutations of the rows of y, exactly.

    ``tr K tr L / ((n - 1) |K|_F |L|_F)`` with K, L the centred Gram matrices: the geometric mean
    of both participation ratios over n - 1.

    Raises:
        ProbekitError: different numbers of rows, or fewer than 2.
    """
    _check_pairs("cka_null", x, y, 2)
    x, y = _centred(x), _centred(y)
    traces = x.square().sum() * y.square().sum()
    return float(traces / ((len(x) - 1) * (_hsic(x, x) * _hsic(y, y)).sqrt()))


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    return (x.T @ y).square().sum()


def _debiased_hsic(x: Tensor, y: Tensor) -> Tensor:
    """n (n - 3) times the unbiased HSIC, of centred features instead of Gram matrices."""
    n, xx, yy = len(x), x.square().sum(-1), y.square().sum(-1)
    diagonal = n / (n - 2) * (xx * yy).sum()
    return _hsic(x, y) - diagonal + xx.sum() * yy.sum() / ((n - 1) * (n - 2))


@dataclass(frozen=True, eq=False)
class Procrustes:
    """The best rotation of x onto y: ``y - mean_y = scale (x - mean_x) @ rotation``, nearly.

    ``cosine`` is the mean cosine of aligned rows that were fitted, ``held_out`` the same of rows
    that were not (None where there were none).
    """

    rotation: Float[Tensor, "dim dim"]
    scale: float
    cosine: float
    held_out: float | None = None


def procrustes(
    x: Float[Tensor, "x_rows x_dim"],
    y: Float[Tensor, "y_rows y_dim"],
    *,
    test: float | Sequence[int] | None = None,
) -> Procrustes:
    """Orthogonal Procrustes: the R that minimises ``|X R - Y|_F`` of centred X, Y.

    With ``X^T Y = U S V^T``, R = U V^T (reflections allowed) and the scale of least squares is
    ``sum S / |X|_F^2``. Where the rows leave R free (rank of X^T Y below the width), it is the
    solution closest to the identity. Held-out rows are centred by the means of the fitted ones.

    Null: of unrelated rows the in-sample cosine is about :func:`procrustes_null`, the held-out
    one 0. Rows that resemble each other (positions of one text) leak across the split.

    Args:
        test: what to hold out: a fraction, taken from the last rows (shuffle them first where
            their order means something), or the indices of rows. None fits all.

    Raises:
        ProbekitError: different shapes, fewer than 2 fitted rows, or nothing held out although
            asked for.
    """
    _check_pairs("procrustes", x, y, 2)
    if x.shape != y.shape:
        raise ProbekitError(
            f"procrustes needs one width, not {x.shape[1]} and {y.shape[1]}; cka compares any"
        )
    held = _held_out(test, len(x), x.device)
    if int((~held).sum()) < 2 or (test is not None and not held.any()):
        raise ProbekitError(
            f"test={test!r} of {len(x)} rows leaves {int((~held).sum())} to fit and "
            f"{int(held.sum())} to hold out; 2 and 1 are needed at least"
        )
    x, y = x.double(), y.double()
    x, y = x - x[~held].mean(0), y - y[~held].mean(0)
    rotation, nuclear = _rotation(x[~held].T @ y[~held])
    cosines = cosine_similarity(x @ rotation, y)
    return Procrustes(
        rotation,
        float(nuclear / x[~held].square().sum()),
        float(cosines[~held].nanmean()),
        float(cosines[held].nanmean()) if test is not None else None,
    )


def procrustes_null(rows: int, dim: int) -> float:
    """In-sample cosine of unrelated rows: about ``8 / (3 pi) sqrt(dim / rows)``, at most 1.

    The mean singular value of a square Gaussian matrix (quarter-circle law), for isotropic rows
    of length 1; good where rows are several times dim.
    """
    return min(1.0, 8 / (3 * math.pi) * math.sqrt(dim / rows))


def _rotation(product: Tensor) -> tuple[Tensor, Tensor]:
    """The orthogonal polar factor of ``product``, and its nuclear norm."""
    left, singular, right_t = torch.linalg.svd(product)
    tolerance = singular[0] * len(product) * torch.finfo(product.dtype).eps
    rank = int((singular > tolerance).sum())
    rotation = left[:, :rank] @ right_t[:rank]
    if rank < len(product):
        free_left, free_right = left[:, rank:], right_t[rank:].T
        inner_left, _, inner_right_t = torch.linalg.svd(free_left.T @ free_right)
        rotation = rotation + free_left @ inner_left @ inner_right_t @ free_right.T
    return rotation, singular.sum()


def _held_out(
    test: float | Sequence[int] | None, rows: int, device: torch.device
) -> Bool[Tensor, " rows"]:
    held = torch.zeros(rows, dtype=torch.bool, device=device)
    if isinstance(test, (int, float)):
        if not 0 < test < 1:
            raise ProbekitError(f"test as a fraction lies between 0 and 1, not {test}")
        held[rows - round(test * rows) :] = True
    elif test is not None:
        outside = [row for row in test if not -rows <= row < rows]
        if outside:
            raise ProbekitError(f"test rows {outside} lie outside the {rows} rows")
        held[list(test)] = True
    return held


def _check_pairs(name: str, x: Tensor, y: Tensor, least: int) -> None:
    if len(x) != len(y) or len(x) < least:
        raise ProbekitError(
            f"{name} pairs at least {least} rows of x with as many of y, not {len(x)} with {len(y)}"
        )


def _centred(x: Tensor) -> Tensor:
    x = x.double()
    return x - x.mean(0)
