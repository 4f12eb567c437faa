"""How far a Jacobian is from symmetric, and bounds on growth, by products with J alone.

    rho     |J v - J^T v| / |J v| for random v        E rho^2 = 2 (1 - tr J^2 / |J|_F^2)
    r_str   |A|_F / |J|_F = rho / 2,  A = (J - J^T) / 2
    gamma   |J|_F
    omega   largest eigenvalue of (J + J^T) / 2: the numerical abscissa, and the log-norm of the
            2-norm; no eigenvalue of J lies to its right (Bendixson)

rho = sqrt(2) is what a matrix of independent entries has: it is the null, not a finding. omega is
large wherever attention couples tokens and says little about stability; a weighted log-norm that
grades positions comes closer.

Source: the dossier "EP below-CE-2.1 divergence", section 4; "nc" Jacobians leave out the leak.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from ..errors import ProbekitError
from .force import Force, State, require_finite

#: rho of a matrix of independent entries.
UNSTRUCTURED_RHO = math.sqrt(2)


@torch.no_grad()
def probe_products(
    force: Force, z: State, count: int = 8, seed: int = 0, leak: float = 0.0
) -> tuple[Float[Tensor, "count n"], Float[Tensor, "count n"], Float[Tensor, "count n"]]:
    """``count`` random sign vectors v, and ``(J + leak) v`` and ``(J + leak)^T v``.

    ``leak=1 + damping`` leaves the Jacobian of attention and MLP alone.

    Raises:
        ProbekitError: the state is not finite.
    """
    require_finite(z, "the state")
    push, pull = force.linearised(z)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (count, *z.shape), generator=generator).to(z) * 2 - 1
    pushed = torch.stack([push(v) for v in signs]) + leak * signs
    pulled = torch.stack([pull(v) for v in signs]) + leak * signs
    return signs.flatten(1), pushed.flatten(1), pulled.flatten(1)


def nonnormality(pushed: Float[Tensor, "count n"], pulled: Float[Tensor, "count n"]) -> float:
    """rho: root of the mean of ``|Jv - J^T v|^2`` over that of ``|Jv|^2``."""
    return float(((pushed - pulled).square().sum() / pushed.square().sum()).sqrt())


def asymmetry(pushed: Float[Tensor, "count n"], pulled: Float[Tensor, "count n"]) -> float:
    """r_str: ``|A|_F / |J|_F``, estimated without looking at rho.

    The norm of J is the mean over ``|Jv|^2`` and ``|J^T v|^2``, both Hutchinson estimates of it.
    """
    skew = (pushed - pulled).square().sum() / 4
    return float((skew / ((pushed.square().sum() + pulled.square().sum()) / 2)).sqrt())


def gain(pushed: Float[Tensor, "count n"]) -> float:
    """gamma: ``|J|_F`` by Hutchinson, ``sqrt(mean |Jv|^2)``."""
    return float(pushed.square().sum(-1).mean().sqrt())


def split(jacobian: Float[Tensor, "*batch n n"]) -> tuple[Float[Tensor, "*batch"], ...]:
    """Exact ``(gamma, r_str, rho)`` of dense Jacobians."""
    norm = torch.linalg.matrix_norm(jacobian)
    skew = torch.linalg.matrix_norm((jacobian - jacobian.mT) / 2)
    return norm, skew / norm, 2 * skew / norm


@torch.no_grad()
def numerical_abscissa(force: Force, z: State, *, tol: float = 1e-8, seed: int = 0) -> float:
    """omega(J) over the whole batch, by ``eigsh(which="LA")`` on the symmetric part.

    Power iteration would be wrong here: the largest in absolute value may be the least.

    Raises:
        ProbekitError: the state is not finite, or has fewer than 3 dimensions.
    """
    require_finite(z, "the state")
    size = z.numel()
    if size < 3:
        raise ProbekitError(f"{size} dimensions are too few for ARPACK; use log_norm")
    push, pull = force.linearised(z)

    def product(flat: np.ndarray) -> np.ndarray:
        v = torch.as_tensor(flat.ravel()).to(z).view_as(z)
        both = push(v) + pull(v)
        return (both / 2).double().flatten().cpu().numpy()

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    begin = np.random.default_rng(seed).standard_normal(size)
    found: Any = eigsh(operator, k=1, which="LA", v0=begin, tol=tol, return_eigenvectors=False)  # type: ignore[arg-type]
    return float(found[0])


def log_norm(
    jacobian: Float[Tensor, "*batch n n"], weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "*batch"]:
    """``mu_P``: the largest eigenvalue of the symmetric part of ``P^{1/2} J P^{-1/2}``.

    Args:
        weights: the diagonal of P, positive; None is the 2-norm.

    Raises:
        ProbekitError: a weight is not positive.
    """
    if weights is not None:
        if not bool((weights > 0).all()):
            raise ProbekitError("weights are the diagonal of a positive matrix; some are not")
        root = weights.sqrt()
        jacobian = root[:, None] * jacobian / root
    return torch.linalg.eigvalsh((jacobian + jacobian.mT) / 2)[..., -1]


def graded_weights(length: int, width: int, ratio: float) -> Float[Tensor, " n"]:
    """``P`` with weight ``ratio^t`` on position t: under a causal mask its log-norm comes near
    the largest of the diagonal blocks as ratio goes to 0."""
    return torch.logspace(0, length - 1, length, base=ratio, dtype=torch.float64).repeat_interleave(
        width
    )
