"""How much norms and distances of points vary, and what that follows from.

Distances of high-dimensional points hardly vary whatever the points are: their coefficient of
variation is that of the norms and of the participation ratio. A "constant" distance is no
structure until it differs from :func:`simplex_cv_prediction` of order 1.

All work in float64; deviations divide by the number of points or pairs.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_from_zero, check_positive, check_sizes
from ..errors import ProbekitError


def norm_cv(x: Float[Tensor, "*batch rows dim"]) -> Float[Tensor, "*batch"]:
    """``std |x - mean| / mean |x - mean|``: how much centred norms vary.

    Null: :func:`norm_cv_null`. Norms before centring say something else, and of an embedding with
    a large common part nothing: they all are that part's.

    Raises:
        ProbekitError: fewer than 2 rows.

    Example:
        >>> norm_cv(torch.tensor([[3.0], [1.0], [-1.0], [-3.0]]))
        tensor(0.5000, dtype=torch.float64)
    """
    _check_rows("norm_cv", x)
    norms = (x.double() - x.double().mean(-2, keepdim=True)).norm(dim=-1)
    return norms.std(-1, correction=0) / norms.mean(-1)


def norm_cv_null(ratio: float) -> float:
    """:func:`norm_cv` of Gaussian points with participation ratio ``ratio``: ``1 / sqrt(2 ratio)``.

    To first order, from ``var |x|^2 = 2 sum lambda^2``.

    Raises:
        ProbekitError: ratio is no finite number above 0.
    """
    check_positive("ratio", ratio)
    return 1 / math.sqrt(2 * ratio)


def distance_cv(x: Float[Tensor, "rows dim"]) -> float:
    """``std / mean`` of the distances of all pairs of rows, each computed from differences.

    Prediction: :func:`simplex_cv_prediction` with k = 1. Takes memory of rows^2 / 2 numbers:
    pass a sample of a large table.

    Raises:
        ProbekitError: fewer than 2 rows.
    """
    _check_rows("distance_cv", x)
    distances = torch.nn.functional.pdist(x.double())
    return float(distances.std(correction=0) / distances.mean())


def simplex_cv_prediction(ratio: float, norm_cv: float, k: int = 4) -> float:
    """The volume CV that nearly orthogonal directions give: ``sqrt(k/(k+1) (1/(2 PR) + k c^2))``.

    With r_i the norms and c_ij the cosines of centred points, to first order ``d ln V = k/(k+1)
    sum d ln r_i - 1/(k+1) sum_{i<j} c_ij``, where ``var c_ij = 1 / PR``. k = 1 are distances,
    k = 4 pentachora: .4 / PR + 3.2 c^2.

    The write-up's review has ``2 / PR + 3.2 c^2`` and ``1 / (2 PR) + c^2 / 2`` with another c: what
    norms vary beyond a Gaussian's own 1 / (2 PR). With ``norm_cv = sqrt(c^2 + 1 / (2 PR))`` the two
    are one; the measured :func:`norm_cv` in its formula counts the Gaussian's part twice (.084 for
    .063 in 512 dimensions).

    Args:
        ratio: the participation ratio of the points, debiased even where they are all there are:
            that of few rows counts each with itself, and a simplex has different points.
        norm_cv: of their centred norms, as :func:`norm_cv` measures it.
        k: order of the simplices.

    It is low by some percent where norms vary by 30 %, and no prediction at all for points in
    clusters. Agreement says that a "universal" CV restates PR and c.

    Raises:
        ProbekitError: ratio is no number above 0, norm_cv none from 0, or k no whole one from 1.

    Example:
        >>> round(simplex_cv_prediction(512.0, norm_cv_null(512.0)), 4)  # sqrt(2 / 512)
        0.0625
    """
    check_positive("ratio", ratio)
    check_from_zero("norm_cv", norm_cv)
    check_sizes(k=k)
    return math.sqrt(k / (k + 1) * (1 / (2 * ratio) + k * norm_cv**2))


def _check_rows(name: str, x: Tensor) -> None:
    if x.shape[-2] < 2:
        raise ProbekitError(
            f"{name} needs two rows at least, not {tuple(x.shape)}; rows are the last axis but one"
        )
