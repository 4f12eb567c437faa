"""Spectra of the Jacobian ``J = dF/dz``: exact by blocks under a causal mask, Arnoldi otherwise.

Under a causal mask J is block lower-triangular over positions and block-diagonal over examples, so
that its eigenvalues are those of the small blocks ``J_tt = dF_t / dz_t``: attention between tokens
moves none but through the fixed point. Without a mask ARPACK finds the extreme ones: the
rightmost of J (``rightmost``: stability of the flow) and the largest of ``M = 1 + step J``
(``largest``: of the map). Both are needed: a fast mode that only the map feels lies far left.

It misleads at a state that is not at rest: the eigenvalues of a point on an orbit say nothing
about the fixed point.

Source: the dossier "EP below-CE-2.1 divergence", sections 0.1 and 0.2; ARPACK through
scipy.sparse.linalg.eigs.
"""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs
from torch import Tensor
from torch.func import vmap

from ..errors import ProbekitError
from .force import Force, State, pullback, require_finite

_CHUNK = 64  # cotangents at a time


@torch.no_grad()
def diagonal_blocks(force: Force, z: State) -> Float[Tensor, "batch pos d_model d_model"]:
    """``J_tt[i, j] = dF_ti / dz_tj``.

    A force with ``own_token`` takes ``d_model`` vjps, any other ``pos d_model`` of them.

    Raises:
        ProbekitError: the force is not causal.
        NotFiniteError: the state or a block is not finite.
    """
    force.require_causal("the spectrum by diagonal blocks")
    require_finite(z, "the state")
    batch, length, width = z.shape
    if force.own_token is not None:
        pull = pullback(force.own_token, z)
        basis = torch.eye(width, dtype=z.dtype, device=z.device)
        rows = vmap(lambda row: pull(row.expand_as(z)), chunk_size=_CHUNK)(basis)
        return _finite(rows.permute(1, 2, 0, 3))
    pull = pullback(force.function, z)
    basis = torch.eye(length * width, dtype=z.dtype, device=z.device).view(-1, length, width)
    rows = vmap(lambda row: pull(row.expand_as(z)), chunk_size=_CHUNK)(basis)
    full = rows.view(length, width, batch, length, width)
    return _finite(torch.stack([full[t, :, :, t] for t in range(length)]).permute(2, 0, 1, 3))


def _finite(blocks: Tensor) -> Tensor:
    # The derivative can overflow at a finite state, and LAPACK may then take the process with it.
    require_finite(blocks, "the Jacobian")
    return blocks


@torch.no_grad()
def spectrum(force: Force, z: State) -> Complex[Tensor, "batch pos d_model"]:
    """All eigenvalues of J by diagonal blocks, the rightmost of each token first.

    Raises:
        ProbekitError: the force is not causal, or the state not finite.
    """
    values = torch.linalg.eigvals(diagonal_blocks(force, z))
    order = values.real.argsort(dim=-1, descending=True)
    return values.gather(-1, order)


@torch.no_grad()
def dense_jacobian(force: Force, z: State) -> Float[Tensor, "batch n n"]:
    """The whole Jacobian of each example, ``n = pos d_model``: the slow reference."""
    require_finite(z, "the state")
    batch, size = len(z), z[0].numel()
    pull = pullback(force.function, z)
    basis = torch.eye(size, dtype=z.dtype, device=z.device).view(size, *z.shape[1:])
    rows = vmap(lambda row: pull(row.expand_as(z)), chunk_size=_CHUNK)(basis)
    return rows.reshape(size, batch, size).transpose(0, 1)


@torch.no_grad()
def arnoldi(
    force: Force,
    z: State,
    *,
    which: Literal["rightmost", "largest"],
    step_size: float = 0.1,
    count: int = 6,
    tol: float = 1e-8,
    seed: int = 0,
) -> Complex[Tensor, " count"]:
    """``count`` eigenvalues of J over the whole batch, matrix-free.

    Args:
        which: ``rightmost`` (largest real part, ARPACK's LR on J) or ``largest`` (largest
            ``|1 + step_size mu|``, LM on M); both give eigenvalues ``mu`` of J.

    Raises:
        ProbekitError: ARPACK did not converge, the state is not finite, or there are too few
        dimensions (use :func:`dense_jacobian`).
    """
    require_finite(z, "the state")
    size = z.numel()
    if size < count + 2:
        raise ProbekitError(f"{count} eigenvalues of {size} dimensions; use dense_jacobian")
    push, _ = force.linearised(z)

    def product(flat: np.ndarray) -> np.ndarray:
        v = torch.as_tensor(flat.ravel()).to(z).view_as(z)
        pushed = push(v)
        moved = pushed if which == "rightmost" else v + step_size * pushed
        return moved.double().flatten().cpu().numpy()

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    begin = np.random.default_rng(seed).standard_normal(size)
    options: Any = {"v0": begin, "tol": tol}
    rule = "LR" if which == "rightmost" else "LM"
    try:
        found: Any = eigs(operator, k=count, which=rule, return_eigenvectors=False, **options)
    except ArpackNoConvergence as failed:
        raise ProbekitError(
            f"ARPACK found {len(failed.eigenvalues)} of {count} eigenvalues ({which}); ask for "
            "fewer, raise tol, or use spectrum (causal) or dense_jacobian"
        ) from None
    if which == "largest":
        found = (found - 1) / step_size
    order = np.argsort(-found.real if which == "rightmost" else -np.abs(1 + step_size * found))
    return torch.as_tensor(found[order].astype(np.complex128))
