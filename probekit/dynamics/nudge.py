"""Equilibrium propagation: gradients from states that are nudged, without a backward pass.

From z* a nudged phase makes ``steps`` steps of

    z <- z + step [ F(z) - beta dL/dz(z) - (J - J^T)(z*) (z - z*) ]

The last term is AsymEP's correction (2 A u, a product with J less one with J^T); without it the
phase answers J^-1 where the gradient needs J^-T. The correction is real-linear, so that complex
states have it on real and imaginary part separately. Estimators of the adjoint a:

    one-sided       -(z_beta - z*) / beta                                        O(beta)
    symmetric       (z_-beta - z_beta) / (2 beta)                                O(beta^2)
    holomorphic     -Re mean_k e^{-i phi_k} (z_{r e^{i phi_k}} - z*) / r         O(r^N)

with phi_k = 2 pi k / N; N = 2 is symmetric. They mislead where z* is not at rest: what the phase
then adds is drift, not gradient; and beyond the radius of analyticity more points do not help.

Source: the dossier "EP below-CE-2.1 divergence", section 3; https://arxiv.org/abs/2209.00530
(holomorphic EP), https://arxiv.org/abs/2602.03670 (AsymEP).
"""

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ProbekitError
from .force import Force, State, require_finite
from .objective import Objective, States


@dataclass(frozen=True)
class NudgedPhase:
    """How long a nudged phase lasts, and by which rule it moves."""

    steps: int = 40
    step_size: float = 0.1
    corrected: bool = True  # AsymEP's term; False is the published, uncorrected rule


PHASE = NudgedPhase()


@torch.no_grad()
def nudged_states(
    force: Force,
    z: State,
    objective: Objective,
    *,
    beta: complex | float,
    phase: NudgedPhase = PHASE,
    marks: Sequence[int] = (),
) -> list[States]:
    """Where the nudged phase from ``z`` is after each of ``marks`` steps; complex where beta is.

    Args:
        beta: times each token's own cross-entropy gradient; its imaginary part 0 for a real state.
        marks: ascending numbers of steps; none is the end of the phase.

    Raises:
        ProbekitError: the start or a state at a mark is not finite.
    """
    require_finite(z, "the state")
    marks = marks or (phase.steps,)
    real = isinstance(beta, float | int) or beta.imag == 0
    push, pull = force.linearised(z)

    def skew(u: Tensor) -> Tensor:
        if not u.is_complex():
            return push(u) - pull(u)
        return torch.complex(skew(u.real), skew(u.imag))

    rest = z if real else z.to(torch.promote_types(z.dtype, torch.complex64))
    strength = beta.real if real else beta
    state, states = rest, []
    for step in range(1, max(marks) + 1):
        move = force(state) - strength * objective.gradient(state)
        if phase.corrected:
            move = move - skew(state - rest)
        state = state + phase.step_size * move
        if step in marks:
            require_finite(state, "the nudged state")
            states.append(state)
    return states


def one_sided(
    force: Force,
    z: State,
    objective: Objective,
    *,
    beta: float = 0.02,
    phase: NudgedPhase = PHASE,
) -> State:
    """The adjoint from one nudge: ``-(z_beta - z*) / beta``.

    Raises:
        ProbekitError: beta is 0, or a state is not finite.
    """
    _check(beta)
    (nudged,) = nudged_states(force, z, objective, beta=beta, phase=phase)
    return -(nudged - z) / beta


def symmetric(
    force: Force,
    z: State,
    objective: Objective,
    *,
    beta: float = 0.02,
    phase: NudgedPhase = PHASE,
) -> State:
    """The adjoint from two nudges: ``(z_-beta - z_beta) / (2 beta)``.

    Raises:
        ProbekitError: beta is 0, or a state is not finite.
    """
    _check(beta)
    (minus,) = nudged_states(force, z, objective, beta=-beta, phase=phase)
    (plus,) = nudged_states(force, z, objective, beta=beta, phase=phase)
    return (minus - plus) / (2 * beta)


def holomorphic(
    force: Force,
    z: State,
    objective: Objective,
    *,
    radius: float = 0.2,
    points: int = 4,
    phase: NudgedPhase = PHASE,
) -> State:
    """The adjoint from ``points`` complex nudges on a circle; 2 points are :func:`symmetric`.

    A real force gives conjugate states for conjugate nudges: only the upper half is run.

    Raises:
        ProbekitError: fewer than 2 points, a radius of 0, or a state that is not finite.
    """
    _check(radius)
    if points < 2:
        raise ProbekitError(f"points={points}: a circle needs at least 2; see one_sided")
    total = torch.zeros_like(z)
    for k in range(points // 2 + 1):
        turn = cmath.exp(2j * math.pi * k / points)
        # cos and sin of half turns are off by rounding, which would make the state complex.
        beta = radius * (turn.real if abs(turn.imag) < 1e-12 else turn)
        (nudged,) = nudged_states(force, z, objective, beta=beta, phase=phase)
        moved = nudged - z
        part = (moved * turn.conjugate()).real if moved.is_complex() else moved * turn.real
        twice = k > 0 and 2 * k < points  # stands for its conjugate too
        total = total + part * (2 if twice else 1)
    return -total / (points * radius)


def _check(beta: float) -> None:
    if beta == 0 or not math.isfinite(beta):
        raise ProbekitError(f"a nudge of {beta!r} gives no difference; take 0.02")
