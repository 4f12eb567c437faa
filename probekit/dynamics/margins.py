"""What an eigenvalue says about the flow ``dz/dt = F`` and about its explicit Euler map.

    flow stable:  Re mu < 0             map stable:  |1 + step mu| < 1

A stable flow (a < 0) loses the map at the Euler margin ``-2 a / (a^2 + b^2)``, mu = a + i b.
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def euler_margin(mu: Complex[Tensor, "*rest"]) -> Float[Tensor, "*rest"]:
    """The step above which the map of a mode is unstable: ``-2 Re mu / |mu|^2``; 0 for Re mu >= 0.

    Example:
        >>> euler_margin(torch.tensor([-2 + 6.873j, 1 + 1j], dtype=torch.complex128))
        tensor([0.0781, 0.0000], dtype=torch.float64)
    """
    return (-2 * mu.real / mu.abs().square()).clamp_min(0)


def multiplier(mu: Complex[Tensor, "*rest"], step_size: float) -> Complex[Tensor, "*rest"]:
    """The factor of one step: ``1 + step_size mu``."""
    return 1 + step_size * mu


def rightmost(mu: Complex[Tensor, "*rest n"]) -> Complex[Tensor, "*rest"]:
    """The eigenvalue with the largest real part, of a pair the one above the real axis."""
    upper = torch.where(mu.imag >= 0, mu.real, -torch.inf)
    return mu.gather(-1, upper.argmax(-1, keepdim=True))[..., 0]


def least_stable(mu: Complex[Tensor, "*rest n"], step_size: float) -> Complex[Tensor, "*rest"]:
    """The eigenvalue with the largest ``|1 + step_size mu|``, of a pair the upper one."""
    size = torch.where(mu.imag >= 0, multiplier(mu, step_size).abs(), -torch.inf)
    return mu.gather(-1, size.argmax(-1, keepdim=True))[..., 0]


def is_real(mu: complex, rel: float = 1e-6) -> bool:
    """Whether an eigenvalue is real but for rounding."""
    return abs(mu.imag) <= rel * max(abs(mu), 1e-12)


def spectral_regime(mu: Complex[Tensor, " n"], step_size: float) -> str:
    """The regime that a whole spectrum at a fixed point predicts.

    ``stable``, ``continuous Hopf`` (rightmost pair has Re mu > 0), ``real branch point`` (a real
    one has), ``Euler instability`` (only the map is unstable, by a pair), ``flip`` (by a real one).
    """
    lead = complex(rightmost(mu))
    if lead.real > 0:
        return "real branch point" if is_real(lead) else "continuous Hopf"
    fast = complex(least_stable(mu, step_size))
    if abs(1 + step_size * fast) < 1:
        return "stable"
    return "flip" if is_real(fast) else "Euler instability"


def cycle_frequency(mu: complex, step_size: float) -> float:
    """The angular frequency of a mode of the map near onset: ``arg(1 + step mu) / step``."""
    factor = 1 + step_size * mu
    return abs(math.atan2(factor.imag, factor.real)) / step_size
