"""Align geometric rows with a model's states: PCA, a rotation, and the projection made of them.

The published score is of the rows that were fitted, and of unrelated rows it is far from 0; so it
stands beside a fit on half of the rows scored on the other half, and beside both of rows dealt out
anew. The published projection has a fixed length and leaves out both centrings of the fit; the
corrected one has the scale of least squares.

Source: the write-up "Geometric Terrain Analysis" (its pipeline), and its critique, section B11.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_whole
from ..errors import ProbekitError
from ..geometry.similarity import (
    Procrustes,
    cosine_similarity,
    procrustes,
    procrustes_null,
    unit_rows,
)

#: A unit row's injection as a share of the mean length of the states, as published.
STRENGTH = 0.1


@dataclass(frozen=True, eq=False)
class RowAlignment:
    """How rows of geometry are carried into a model's states.

    ``projection``  as published, ``(R C)^T * 0.1 * mean |state|``: a unit row's length is a tenth
                    of the states'.
    ``corrected``   ``(R C)^T * scale * mean |score|`` of the half that was fitted: of rows less
                    their mean, and added to the states' mean, it predicts the states.
    ``cosine``      as published: of fitted rows, with the scores' mean added back.
    ``shuffled``    the same, fitted to rows dealt out anew.
    ``centred``     of fitted rows, without the mean; ``null`` is what isotropic rows read,
                    :func:`probekit.geometry.procrustes_null`.
    ``held_out``    centred cosine of the half that was not fitted; ``held_out_shuffled`` the same
                    of rows dealt out anew, 0 but for chance.
    ``scale``       of least squares, from unit rows to unit scores, on the fitted half.
    ``length``      mean length of the states.
    """

    projection: Float[Tensor, "d_model d_geometry"]
    corrected: Float[Tensor, "d_model d_geometry"]
    cosine: float
    shuffled: float
    centred: float
    null: float
    held_out: float
    held_out_shuffled: float
    scale: float
    length: float


@dataclass(frozen=True, eq=False)
class _Fit:
    turned: Tensor  # R C, [d_geometry, d_model]
    found: Procrustes
    cosine: float
    reach: float  # mean length of the fitted scores


def align_rows(
    rows: Float[Tensor, "items d_geometry"],
    states: Float[Tensor, "items d_model"],
    *,
    seed: int = 0,
) -> RowAlignment:
    """Rotate rows onto the leading principal components of states, and say how well that holds.

    As published: C are the first d_geometry right singular vectors of the states less their mean;
    rows X and scores ``Y = (A - mean) C^T`` are brought to length 1 a row; R is the orthogonal
    Procrustes solution of centred X and Y. In float64; results in the dtype of the states.

    Open in the write-up, chosen here: the length in the published projection is that of the states
    as they are, before their mean is removed.

    Args:
        rows: geometry, none of length 0.
        states: of the same items, such as pooled encodings.
        seed: of the halves and of the shuffled rows: NumPy's ``default_rng(seed).permutation``,
            once each; the first half of the former is fitted.

    Raises:
        ProbekitError: other numbers of rows than states, or too few items or dimensions for
            d_geometry components of half of the items.
    """
    check_whole("seed", seed)
    width = rows.shape[1]
    half = len(rows) - len(rows) // 2
    if len(rows) != len(states) or states.shape[1] < width or half <= width:
        raise ProbekitError(
            f"{len(rows)} rows of width {width} with states of shape {list(states.shape)}: give a "
            f"state a row, as wide at least, and more than {2 * width} of them"
        )
    rng = np.random.default_rng(seed)
    order, dealt = (torch.from_numpy(rng.permutation(len(rows))) for _ in range(2))
    held = order[half:].tolist()
    x, a = unit_rows(rows), states.double()
    if not (x.isfinite().all() and a.isfinite().all()):
        raise ProbekitError("a row has length 0, or a row or state is not finite; leave it out")
    whole, part, other = _fitted(x, a), _fitted(x, a, held), _fitted(x[dealt], a, held)
    length = float(a.norm(dim=-1).mean())
    return RowAlignment(
        (whole.turned.T * STRENGTH * length).to(states.dtype),
        (part.turned.T * part.found.scale * part.reach).to(states.dtype),
        whole.cosine,
        _fitted(x[dealt], a).cosine,
        whole.found.cosine,
        procrustes_null(len(rows), width),
        _held_out(part),
        _held_out(other),
        part.found.scale,
        length,
    )


def _fitted(x: Tensor, states: Tensor, held: list[int] | None = None) -> _Fit:
    fitted = torch.ones(len(x), dtype=torch.bool)
    fitted[held or []] = False
    centred = states - states[fitted].mean(0)
    components = torch.linalg.svd(centred[fitted], full_matrices=False)[2][: x.shape[1]]
    scores = centred @ components.T
    y = unit_rows(scores)
    found = procrustes(x, y, test=held)
    mapped = (x - x[fitted].mean(0)) @ found.rotation + y[fitted].mean(0)
    return _Fit(
        found.rotation @ components,
        found,
        float(cosine_similarity(mapped[fitted], y[fitted]).mean()),
        float(scores[fitted].norm(dim=-1).mean()),
    )


def _held_out(fit: _Fit) -> float:
    assert fit.found.held_out is not None  # since rows were held out
    return fit.found.held_out
