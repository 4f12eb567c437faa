"""Cycles: period, Floquet multipliers, and leading Lyapunov exponents.

A genuine cycle of the flow has a leading exponent of 0 and a Floquet multiplier of 1; a negative
exponent means convergence. Near onset, and only there, its frequency is that of the eigenvalue.
"""

import math

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.func import vmap

from ..errors import ProbekitError
from .force import Force, State, pushforward, require_finite

_FEW = 4  # below so many tangents a loop is faster than vmap


def period(trace: Float[Tensor, "time batch"]) -> Float[Tensor, " batch"]:
    """The period of each column, in steps, from its largest spectral line; NaN where it is still.

    Hann-windowed FFT, the peak between bins by a parabola through the logarithms. A column whose
    spread is below 1e-9 of its size, or that has fewer than four steps, has none.
    """
    # An even count: only then has a period of 2 a line of its own.
    samples = trace[len(trace) % 2 :].detach().double().cpu().numpy()
    count = len(samples)
    if count < 4:
        return torch.full(trace.shape[1:], torch.nan, dtype=torch.float64)
    centred = samples - samples.mean(0)
    power = np.abs(np.fft.rfft(centred * np.hanning(count)[:, None], axis=0)) ** 2 + 1e-300
    power[0] = 0
    found = []
    for column in range(samples.shape[1]):
        still = centred[:, column].std() <= 1e-9 * max(np.abs(samples[:, column]).max(), 1e-12)
        found.append(math.nan if still else count / _peak(power[:, column]))
    return torch.tensor(found, dtype=torch.float64)


def _peak(power: np.ndarray) -> float:
    """The place of the largest line; its neighbours, mirrored at the ends, say where between."""
    at = int(power.argmax())
    last = len(power) - 1
    left, right = power[max(at - 1, 1)], power[at + 1 if at < last else at - 1]
    a, b, c = np.log([left, power[at], right])
    bend = a - 2 * b + c
    return at + (0.5 * (a - c) / bend if bend < 0 else 0.0)


@torch.no_grad()
def floquet(
    force: Force, z: State, *, steps: int, step_size: float = 0.1
) -> Complex[Tensor, "batch n"]:
    """Floquet multipliers of the map over ``steps`` steps from ``z``, the largest first.

        eigenvalues of M_{steps-1} ... M_1 M_0,     M_k = 1 + step_size J(z_k)

    ``n = pos d_model``; the tangents of all directions are carried along.

    Raises:
        ProbekitError: the state is not finite or becomes so.
    """
    require_finite(z, "the state")
    size = z[0].numel()
    basis = torch.eye(size, dtype=z.dtype, device=z.device).view(size, 1, *z.shape[1:])
    tangents = basis.expand(size, *z.shape).clone()
    for _ in range(steps):
        z, tangents = _step(force, z, tangents, step_size)
    require_finite(z, "the state after the period")
    monodromy = tangents.reshape(size, len(z), size).permute(1, 2, 0)
    values = torch.linalg.eigvals(monodromy)
    return values.gather(-1, values.abs().argsort(dim=-1, descending=True))


@torch.no_grad()
def lyapunov(
    force: Force,
    z: State,
    *,
    steps: int,
    count: int = 2,
    step_size: float = 0.1,
    warmup: int = 0,
    seed: int = 0,
) -> Float[Tensor, "batch count"]:
    """The leading Lyapunov exponents of the map, per unit of time, by repeated QR.

    ``lambda_i = sum log |R_ii| / (steps step_size)`` with the tangents of ``count`` directions
    re-orthonormalised after each step (Benettin et al. 1980). ``warmup`` steps come before the
    sum, so that the directions have turned.

    Raises:
        ProbekitError: more directions than dimensions, or the state is not finite or becomes so.
    """
    require_finite(z, "the state")
    size = z[0].numel()
    if not 1 <= count <= size:
        raise ProbekitError(f"count={count}: there are {size} directions")
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(len(z), size, count, generator=generator, dtype=torch.float64).to(z)
    q, _ = torch.linalg.qr(q)
    total = torch.zeros(len(z), count, dtype=torch.float64)
    for step in range(warmup + steps):
        tangents = q.permute(2, 0, 1).reshape(count, *z.shape)
        z, tangents = _step(force, z, tangents, step_size)
        q, r = torch.linalg.qr(tangents.reshape(count, len(z), size).permute(1, 2, 0))
        if step >= warmup:
            total += r.diagonal(dim1=-2, dim2=-1).abs().clamp_min(1e-300).log().double().cpu()
    require_finite(z, "the state after the orbit")
    return total / (steps * step_size)


def _step(
    force: Force, z: State, tangents: Float[Tensor, "n batch pos d_model"], step_size: float
) -> tuple[State, Tensor]:
    if len(tangents) <= _FEW:
        pushed = torch.stack([pushforward(force.function, z, v) for v in tangents])
    else:
        pushed = vmap(lambda v: pushforward(force.function, z, v))(tangents)
    return z + step_size * force(z).detach(), tangents + step_size * pushed.detach()
