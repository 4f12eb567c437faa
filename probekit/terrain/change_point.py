"""Where a curve bends: two straight segments that meet, against a smooth curve.

Every curve has a best bend. It is worth something only where two segments describe the curve much
better than a cubic polynomial, which has as many free numbers (four) and no bend; so the errors of
both are given. Much better means half the error: a smooth curve of another shape than a cubic's,
such as a steep sigmoid, comes near 1. Points count by the stretch of x that they stand for, lest a
finer grid somewhere draw the bend to it.

Source: Muggeo 2003, "Estimating regression models with unknown break-points", of two segments.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from ..errors import ProbekitError

_CANDIDATES = 1000
_AT_LEAST = 3  # points on either side of a bend
_SHARP = 0.5  # of a cubic's error


@dataclass(frozen=True)
class ChangePoint:
    """Where two segments meet and their slopes; root mean square errors of both descriptions."""

    at: float
    before: float
    after: float
    error: float
    smooth_error: float

    @property
    def sharper(self) -> bool:
        """Whether two segments have at most half a cubic's error."""
        return self.error <= _SHARP * self.smooth_error


def change_point(x: Float[np.ndarray, " point"], y: Float[np.ndarray, " point"]) -> ChangePoint:
    """Least squares of ``b0 + b1 x + b2 max(x - c, 0)`` over b and c.

    c is looked for on a grid of 1,000 from the third point to the third from the end.

    Args:
        x: ascending.
        y: the curve.

    Raises:
        ProbekitError: fewer than 7 points, x not ascending, or values that are not finite.
    """
    weights = _weights(x, y[None])
    candidates = _candidates(x)
    errors = np.array([_fit(_bent(x, c), y, weights)[1] for c in candidates])
    best = candidates[errors.argmin()]
    slopes = _fit(_bent(x, best), y, weights)[0]
    return ChangePoint(
        float(best),
        float(slopes[1]),
        float(slopes[1] + slopes[2]),
        float(errors.min()),
        _fit(np.vander(x, 4), y, weights)[1],
    )


def change_points(
    x: Float[np.ndarray, " point"], curves: Float[np.ndarray, "curve point"]
) -> Float[np.ndarray, " curve"]:
    """Where each of many curves bends: :func:`change_point`'s ``at``.

    Raises:
        ProbekitError: as there.
    """
    root = np.sqrt(_weights(x, curves))
    candidates = _candidates(x)
    explained = np.empty((len(candidates), len(curves)))
    for place, candidate in enumerate(candidates):
        basis = np.linalg.qr(_bent(x, candidate) * root[:, None])[0]
        explained[place] = np.square(curves * root @ basis).sum(-1)
    return candidates[explained.argmax(0)]


def bend_readings(
    x: Sequence[float], y: Sequence[float], resampled: Sequence[Sequence[float]]
) -> dict[str, float | bool]:
    """:func:`change_point` of a curve, and the 95 % interval of where resampled curves bend.

    Args:
        resampled: a curve a draw.

    Raises:
        ProbekitError: as :func:`change_point`.
    """
    found = change_point(np.array(x), np.array(y))
    low, high = np.quantile(change_points(np.array(x), np.array(resampled)), [0.025, 0.975])
    interval = {"low": float(low), "high": float(high)}
    return {**asdict(found), "sharper": found.sharper, **interval}


def _candidates(x: np.ndarray) -> np.ndarray:
    return np.linspace(x[_AT_LEAST - 1], x[-_AT_LEAST], _CANDIDATES)


def _bent(x: np.ndarray, at: float) -> np.ndarray:
    return np.stack([np.ones_like(x), x, np.maximum(x - at, 0)], -1)


def _fit(design: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients of weighted least squares, and the root mean square error."""
    root = np.sqrt(weights)
    found = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
    return found, float(np.sqrt(weights @ np.square(y - design @ found)))


def _weights(x: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """The share of x that each point stands for."""
    if len(x) <= 2 * _AT_LEAST or curves.shape[1:] != x.shape or not (np.diff(x) > 0).all():
        raise ProbekitError(
            f"a change point needs {2 * _AT_LEAST + 1} points or more in ascending x, and a curve "
            f"over them, not {len(x)} and {curves.shape}"
        )
    if not np.isfinite(curves).all():
        raise ProbekitError("a change point needs a curve of finite values")
    steps = np.diff(x) / (x[-1] - x[0])
    return (np.append(steps, 0) + np.append(0, steps)) / 2
