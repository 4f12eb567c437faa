"""Developmental monitor: finite differences of a trajectory, the snap detector, Gaussian entropy.

Source: "Homeostatic Crystallization", metric definitions 4.4 and 4.7. What the write-up calls
mutual information is a Gaussian differential entropy; what it calls a snap is a step of
acceleration that its own sampling makes impossible to reach (see :func:`largest_acceleration`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ..probes.gaussian_entropy import gaussian_bits

#: A snap is an acceleration below minus this, per step squared (as published).
SNAP_THRESHOLD = 1e-3


@dataclass(frozen=True)
class Snap:
    """A detected snap: the checkpoint's step, its acceleration per step², and the confidence."""

    step: int
    acceleration: float
    confidence: float


def velocity(steps: Sequence[int], values: Sequence[float]) -> list[float]:
    """First differences per step; one shorter than ``values``."""
    return [
        (after - before) / (t1 - t0)
        for t0, t1, before, after in zip(steps, steps[1:], values, values[1:], strict=False)
    ]


def acceleration(steps: Sequence[int], values: Sequence[float]) -> list[float]:
    """Differences of the velocity per step; two shorter than ``values``."""
    return velocity(steps[1:], velocity(steps, values))


def largest_acceleration(spacing: int, span: float = 1.0) -> float:
    """The most that ``|acceleration|`` can be for values within ``span``: ``2 span / spacing²``.

    Example:
        >>> largest_acceleration(500) < SNAP_THRESHOLD
        True
    """
    return 2 * span / spacing**2


def detect_snap(
    steps: Sequence[int], values: Sequence[float], spreads: Sequence[float]
) -> Snap | None:
    """The published snap detector; None where it finds nothing or has fewer than 5 samples.

    Candidates are checkpoints with acceleration below ``-SNAP_THRESHOLD``; the largest wins. Its
    confidence is ``min(1, |acc|/0.01 * (0.5 if settled else 0.2) * (1 + max(0, fall of spread)))``.

    Args:
        steps: the checkpoints' steps.
        values: mean VDI at each.
        spreads: spread over heads at each.
    """
    if len(steps) < 5:
        return None
    candidates = [
        (second, index + 2)
        for index, second in enumerate(acceleration(steps, values))
        if second < -SNAP_THRESHOLD
    ]
    if not candidates:
        return None
    strongest, at = min(candidates)
    later = values[at:]
    settled = all(abs(b - a) < 0.01 for a, b in pairwise(later))
    fall = max(0.0, _mean(spreads[:at]) - _mean(spreads[at:]))
    confidence = min(1.0, abs(strongest) / 0.01 * (0.5 if settled else 0.2) * (1 + fall))
    return Snap(steps[at], strongest, confidence)


def gaussian_entropy(x: Float[Tensor, "samples width"]) -> float:
    """``(1/2) log2 det Cov(x) / width``: bits per dimension of a Gaussian with x's covariance.

    A differential entropy, so it may be negative; the write-up reports it as mutual information.
    :class:`~probekit.probes.GaussianEntropy` reads it from a running model, with its null.
    """
    return float(gaussian_bits(torch.cov(x.double().T)))


def saturation_ratio(entropy_bits: float, width: int, noise: float = 0.1) -> float:
    """The published ratio: bits per dimension over the capacity of the whole layer.

    The capacity is ``width/2 log2(1 + 1/noise)`` bits, 110.7 for width 64. A per-dimension
    numerator over a whole-layer denominator: "saturated" (0.9) cannot be reached.
    """
    return entropy_bits / (width / 2 * math.log2(1 + 1 / noise))


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers) if numbers else 0.0
