"""Singular values of one weight matrix: how many directions it uses, and how evenly.

Take :func:`singular_values` and read each number beside what an iid matrix of the same shape has
(:func:`probekit.weights.spectrum_null`): a low stable rank, or a large condition number, is what
random matrices have too. Quantised weights (float16) have a floor under their
smallest singular values, so that condition numbers of them say little.

Source: the terrain write-up, sections 4 to 6; its critique, section B7.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError
from ..geometry import dims_for_variance, participation_ratio

ACTIVE = 0.01
"""Share of the largest singular value from which a direction counts as active."""
_FLOOR = 1e-10  # the write-up's, under the smallest singular value
_SMALL = 512  # smaller side of matrices whose decomposition takes no time worth sparing


@dataclass(frozen=True)
class SpectrumStats:
    """What singular values s, in descending order, say; all without units.

    ``stable_rank``       ``sum s^2 / s_1^2``
    ``participation``     ``(sum s)^2 / sum s^2``, the write-up's PR_s
    ``active_fraction``   share of s above .01 s_1
    ``amplitude_rank_90`` the fewest values that sum to 90 % of ``sum s``, the write-up's rank_90
    ``energy_rank_90``    the fewest whose squares sum to 90 % of ``sum s^2``
    ``condition``         ``s_1 / (s_min + 1e-10)``
    ``log10_condition``   of that: means of the condition number itself follow its largest value
    """

    stable_rank: float
    participation: float
    active_fraction: float
    amplitude_rank_90: float
    energy_rank_90: float
    condition: float
    log10_condition: float


def singular_values(matrix: Float[Tensor, "rows cols"]) -> Float[Tensor, " value"]:
    """Singular values in float64, descending.

    Of matrices with both sides above 512 as roots of the Gram matrix's eigenvalues: in less time
    than ``svdvals`` in float32 takes, and right to ``k^2 / 1e15`` relatively for a condition number
    k, where those are right to k / 1e7.
    """
    matrix = matrix.double()
    if min(matrix.shape) <= _SMALL:
        return torch.linalg.svdvals(matrix)
    gram = matrix @ matrix.mT if len(matrix) < matrix.shape[1] else matrix.mT @ matrix
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


def spectrum_row(singular_values: Float[Tensor, " value"]) -> SpectrumStats:
    """The statistics of one matrix, computed in float64.

    Raises:
        ProbekitError: no values, negative or infinite ones, or all 0.

    Example:
        >>> spectrum_row(torch.tensor([2.0, 1.0, 1.0])).stable_rank
        1.5
    """
    s = singular_values.double().cpu().sort(descending=True).values
    if not (len(s) and s.isfinite().all() and s[-1] >= 0 and s[0] > 0):
        raise ProbekitError(
            f"singular_values needs finite values from 0 that are not all 0, not {len(s)} values; "
            "pass the singular_values of a matrix"
        )
    energy = s.square()
    condition = float(s[0] / (s[-1] + _FLOOR))
    return SpectrumStats(
        stable_rank=float(energy.sum() / energy[0]),
        participation=float(participation_ratio(s)),
        active_fraction=float((s > ACTIVE * s[0]).double().mean()),
        amplitude_rank_90=float(dims_for_variance(s, (0.9,))),
        energy_rank_90=float(dims_for_variance(energy, (0.9,))),
        condition=condition,
        log10_condition=float(torch.tensor(condition, dtype=torch.float64).log10()),
    )
