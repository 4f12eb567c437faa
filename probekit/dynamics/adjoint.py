"""Exact gradients of a loss at a fixed point, and how alike two gradients are.

    J^T a = -dL/dz  at z*          dL/dtheta = <a, dF/dtheta(z*)> + direct part

``a`` is the adjoint. Backpropagation through the relaxation (BPTT) differs by what the relaxation
has left undone; uncorrected equilibrium propagation solves ``J a = -dL/dz`` instead.

Source: the dossier "EP below-CE-2.1 divergence", section 3; GMRES is SciPy's.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse.linalg import LinearOperator, gmres
from torch import Tensor

from ..errors import ProbekitError
from ..hooked.equilibrium_model import EquilibriumModel
from .force import Force, State, require_finite
from .objective import objective_of


@dataclass(frozen=True, eq=False)
class Adjoint:
    """``a`` and ``|J^T a + g| / |g|``; ``converged`` where that is below the tolerance."""

    a: State
    residual: float
    converged: bool

    def require(self) -> State:
        """``a``, if GMRES converged.

        Raises:
            ProbekitError: it did not.
        """
        if not self.converged:
            raise ProbekitError(
                f"GMRES left a relative residual of {self.residual:.3g} in J^T a = -dL/dz; allow "
                "more iterations=, or check that the state is a fixed point away from a fold"
            )
        return self.a


@torch.no_grad()
def exact_adjoint(
    force: Force, z: State, gradient: State, *, tol: float = 1e-10, iterations: int = 40
) -> Adjoint:
    """Solve ``J(z)^T a = -gradient`` by restarted GMRES.

    Args:
        iterations: at most so many restarts, of 60 products each.

    Raises:
        ProbekitError: the state or the gradient is not finite.
    """
    require_finite(z, "the state")
    require_finite(gradient, "dL/dz")
    _, pull = force.linearised(z)

    def product(flat: np.ndarray) -> np.ndarray:
        v = torch.as_tensor(flat.ravel()).to(z).view_as(z)
        return pull(v).double().flatten().cpu().numpy()

    size = z.numel()
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    right = -gradient.double().flatten().cpu().numpy()
    flat, _ = gmres(operator, right, rtol=tol, restart=min(size, 60), maxiter=iterations)
    a = torch.as_tensor(flat).to(z).view_as(z)
    left = float((pull(a) + gradient).norm() / gradient.norm().clamp_min(1e-300))
    # GMRES judges by its own recursion; ten times its tolerance allows for rounding.
    return Adjoint(a, left, left <= 10 * tol)


@torch.no_grad()
def truncated_adjoint(
    force: Force, z: State, gradient: State, *, steps: int, step_size: float = 0.1
) -> State:
    """The truncation law: what a nudged phase of ``steps`` steps can reach.

    ``a_T = (1 - (1 + step J^T)^T) a``, by ``a <- a + step (J^T a + gradient)`` from 0.
    """
    (_, pull), a = force.linearised(z), torch.zeros_like(z)
    for _ in range(steps):
        a = a + step_size * (pull(a) + gradient)
    return a


def parameter_gradients(
    model: EquilibriumModel, tokens: Int[Tensor, "batch pos"], z: State, a: State, labels: Tensor
) -> dict[str, Tensor]:
    """``<a, dF/dtheta>`` at the state ``z``, embeddings through the input, and the direct part.

    Exact where z is a fixed point and a its adjoint; with any other ``a``, the estimator's answer.
    """
    return _gradients(model, surrogate(model, tokens, z, a, labels))


def surrogate(
    model: EquilibriumModel, tokens: Int[Tensor, "batch pos"], z: State, a: State, labels: Tensor
) -> Float[Tensor, ""]:
    """``<a, F(z)> + L(z)`` with z and a held: its gradient is what :func:`parameter_gradients`
    gives, and other terms may be added to it before one backward pass."""
    pulled = (a.detach() * model.force(z.detach(), model.inject(tokens))).sum()
    return pulled + objective_of(model, labels).loss(z.detach())


def bptt_gradients(
    model: EquilibriumModel,
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch pos"],
    *,
    steps: int,
    step_size: float = 0.1,
) -> dict[str, Tensor]:
    """Gradients of the loss after ``steps`` steps, back through all of them."""
    state = model.relax(model.inject(tokens), steps, step_size)
    return _gradients(model, objective_of(model, labels).loss(state))


def _gradients(model: EquilibriumModel, loss: Float[Tensor, ""]) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if grad is None else grad
        for (name, parameter), grad in zip(named.items(), found, strict=True)
    }


def alignment(
    found: Tensor | dict[str, Tensor], exact: Tensor | dict[str, Tensor]
) -> tuple[float, float]:
    """Cosine of two gradients, and the ratio of their norms (found over exact); NaN for a zero.

    Mappings are compared as one vector over the names of ``exact``.
    """
    one, other = (_vector(each, exact) for each in (found, exact))
    norms = float(one.norm()), float(other.norm())
    if 0 in norms:
        return float("nan"), float("nan")
    return float(one.double() @ other.double()) / (norms[0] * norms[1]), norms[0] / norms[1]


def _vector(gradient: Tensor | dict[str, Tensor], names: Tensor | dict[str, Tensor]) -> Tensor:
    if isinstance(gradient, Tensor):
        return gradient.flatten()
    return torch.cat([gradient[name].flatten() for name in names])  # type: ignore[arg-type]


def block_gradients(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the block: what an adjoint matters for. The read-out's are direct."""
    return {name: each for name, each in gradients.items() if name.startswith("blocks.")}
