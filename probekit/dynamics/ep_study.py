"""What the recipe on EP gradients measures on one model and one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..hooked.equilibrium_model import EquilibriumModel
from .adjoint import (
    alignment,
    block_gradients,
    bptt_gradients,
    exact_adjoint,
    parameter_gradients,
    truncated_adjoint,
)
from .fixed_point import find_fixed_point
from .force import Force, State, force_of
from .nudge import NudgedPhase, holomorphic, nudged_states, one_sided, symmetric
from .objective import Objective, objective_of
from .relaxation import relax

Readings = dict[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Setting:
    """A model on one batch at its fixed point, and the adjoint that estimators are held against."""

    model: EquilibriumModel
    tokens: Tensor
    labels: Tensor
    force: Force
    z: State
    objective: Objective
    exact: State


def setting(model: EquilibriumModel, tokens: Tensor, labels: Tensor) -> Setting:
    """Relax, finish by Newton, and solve for the adjoint.

    Raises:
        ProbekitError: no fixed point was found, or GMRES did not converge.
    """
    force, objective = force_of(model, tokens), objective_of(model, labels)
    settled = relax(force, steps=400, tol=1e-9, stop=True).state
    z = find_fixed_point(force, start=settled).require()
    exact = exact_adjoint(force, z, objective.gradient(z)).require()
    return Setting(model, tokens, labels, force, z, objective, exact)


def estimators(
    at: Setting,
    beta: float,
    steps: int,
    step_size: float,
) -> Readings:
    """Cosine and norm ratio of each estimator to the exact adjoint, at z*."""
    force, z, objective, exact = at.force, at.z, at.objective, at.exact
    phase, bare = (NudgedPhase(steps, step_size, corrected) for corrected in (True, False))
    found = {
        "symmetric": symmetric(force, z, objective, beta=beta, phase=phase),
        "one-sided": one_sided(force, z, objective, beta=beta, phase=phase),
        "holomorphic, 4 points": holomorphic(force, z, objective, radius=beta, phase=phase),
        "uncorrected": symmetric(force, z, objective, beta=beta, phase=bare),
    }
    return {name: _aligned(a, exact) for name, a in found.items()}


def _aligned(a: State, exact: State) -> dict[str, float]:
    cosine, ratio = alignment(a, exact)
    return {"cosine": cosine, "norm ratio": ratio}


def depths(
    at: Setting,
    beta: float,
    marks: Sequence[int],
    step_size: float,
) -> Readings:
    """By depth of the nudged phase: the cosine measured, and by the truncation law."""
    force, z, objective, exact = at.force, at.z, at.objective, at.exact
    gradient = objective.gradient(z)
    phase = NudgedPhase(step_size=step_size)
    minus, plus = (
        nudged_states(force, z, objective, beta=b, phase=phase, marks=marks) for b in (-beta, beta)
    )
    readings: Readings = {}
    for mark, low, high in zip(marks, minus, plus, strict=True):
        law = truncated_adjoint(force, z, gradient, steps=mark, step_size=step_size)
        readings[str(mark)] = {
            "measured": alignment((low - high) / (2 * beta), exact)[0],
            "law": alignment(law, exact)[0],
            "exact": 1.0,
        }
    return readings


def free_residual(
    at: Setting,
    beta: float,
    free_steps: Sequence[int],
    nudge_steps: int,
    step_size: float,
) -> Readings:
    """By length of the free phase: its step residual, EP's cosine from there, and BPTT's.

    EP's is that of the adjoint, to the exact one at z*; BPTT's that of the block's parameters.
    """
    force, z, objective, exact = at.force, at.z, at.objective, at.exact
    truth = block_gradients(parameter_gradients(at.model, at.tokens, z, exact, at.labels))
    readings: Readings = {}
    for steps in free_steps:
        run = relax(force, steps=steps, step_size=step_size)
        phase = NudgedPhase(nudge_steps, step_size)
        a = symmetric(force, run.state, objective, beta=beta, phase=phase)
        through = bptt_gradients(at.model, at.tokens, at.labels, steps=steps, step_size=step_size)
        readings[str(steps)] = {
            "residual": float(run.residuals.step.aggregate[-1]),
            "EP": alignment(a, exact)[0],
            "BPTT": alignment(through, truth)[0],
        }
    return readings


def ceiling(
    at: Setting,
    betas: Sequence[float],
    steps: int,
    step_size: float,
) -> Readings:
    """By nudge at one shallow depth: cosine and norm ratio to the exact adjoint."""
    force, z, objective, exact = at.force, at.z, at.objective, at.exact
    phase = NudgedPhase(steps, step_size)
    return {
        f"{beta:g}": _aligned(symmetric(force, z, objective, beta=beta, phase=phase), exact)
        for beta in betas
    }
