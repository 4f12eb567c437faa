"""One training step's gradient, by any estimator, from where the free phase ends.

    exact            GMRES on J^T a = -dL/dz
    bptt             back through the free phase
    symmetric        AsymEP, two nudges
    one-sided        AsymEP, one nudge
    holomorphic      AsymEP, four nudges on a circle
    uncorrected      two nudges without AsymEP's correction

All but BPTT take the state that the free phase reached for a fixed point: what it has left undone
they do not see. :class:`Estimate` carries its residual.

Source: the dossier "EP below-CE-2.1 divergence", sections 2 and 3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ProbekitError, unknown
from ..hooked.equilibrium_model import EquilibriumModel
from .adjoint import exact_adjoint, surrogate
from .force import Force, State, force_of, require_finite
from .nudge import NudgedPhase, holomorphic, one_sided, symmetric
from .objective import Objective, objective_of
from .residuals import Residuals, residuals


@dataclass(frozen=True)
class Phases:
    """How long a step relaxes, and how it nudges; steps are of the model's ``step_size``."""

    free: int = 60  # steps of the free phase
    nudged: int = 40  # steps of each nudged phase
    beta: float = 0.02  # times each token's own cross-entropy gradient


PHASES = Phases()


@dataclass(frozen=True, eq=False)
class Estimate:
    """``total``'s gradient by the parameters is the estimate of that of the mean cross-entropy.

    ``state`` is where the free phase ended, without a graph, ``loss`` the mean cross-entropy there
    (nats a token).
    """

    total: Float[Tensor, ""]
    loss: float
    state: State
    residuals: Residuals


def estimate(
    estimator: str,
    model: EquilibriumModel,
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch pos"],
    phases: Phases = PHASES,
) -> Estimate:
    """Relax, and estimate the gradient of the mean cross-entropy by every parameter.

    Args:
        estimator: of :data:`ESTIMATORS`.

    Raises:
        ProbekitError: an unknown estimator, or a model that has no linear read-out.
        NotFiniteError: the relaxation or a nudged phase left the finite numbers.
    """
    if estimator not in ESTIMATORS:
        raise ProbekitError(unknown("estimator", estimator, ESTIMATORS))
    adjoint = _ADJOINTS.get(estimator)
    objective = objective_of(model, labels)
    size = float(model.cfg.step_size)  # type: ignore[attr-defined]
    with torch.set_grad_enabled(adjoint is None):
        reached = model.relax(model.inject(tokens), phases.free, size)
    z = reached.detach()
    require_finite(z, "the state after the free phase")
    force = force_of(model, tokens)
    if adjoint is None:
        total = objective.loss(reached)
    else:
        total = surrogate(model, tokens, z, adjoint(force, z, objective, phases, size), labels)
    with torch.no_grad():
        left = residuals(force(z), z, size)
        loss = float(objective.loss(z)) / labels.numel()
    return Estimate(total / labels.numel(), loss, z, left)


def _exact(force: Force, z: State, objective: Objective, phases: Phases, size: float) -> State:
    # A loose solve, converged or not: near a bifurcation there is no better one in the time.
    return exact_adjoint(force, z, objective.gradient(z), tol=1e-4, iterations=1).a


def _nudging(
    rule: Callable[..., State], strength: str = "beta", corrected: bool = True
) -> Callable[[Force, State, Objective, Phases, float], State]:
    def adjoint(force: Force, z: State, objective: Objective, phases: Phases, size: float) -> State:
        phase = NudgedPhase(phases.nudged, size, corrected)
        return rule(force, z, objective, **{strength: phases.beta}, phase=phase)

    return adjoint


_ADJOINTS = {
    "exact": _exact,
    "symmetric": _nudging(symmetric),
    "one-sided": _nudging(one_sided),
    "holomorphic": _nudging(holomorphic, "radius"),
    "uncorrected": _nudging(symmetric, corrected=False),
}
ESTIMATORS = (*_ADJOINTS, "bptt")
