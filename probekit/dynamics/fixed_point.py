"""Fixed points, stable or not: by relaxation, by Anderson or Broyden, by Newton token by token.

Under a causal mask the state of a position depends on earlier ones only, so that the whole fixed
point is found by ``pos`` small Newton iterations in ``d_model`` dimensions. That reaches unstable
fixed points, which a relaxation runs away from; a spectrum belongs there and not at a point on an
orbit. Newton finds *a* fixed point: where there are several, the start decides which.

Source: the dossier "EP below-CE-2.1 divergence", section 0.2; Anderson and Broyden are SciPy's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import optimize
from torch import Tensor
from torch.func import vmap

from ..errors import ProbekitError, unknown
from .force import Force, State, pullback, require_finite
from .relaxation import relax
from .residuals import residuals

METHODS = ("newton", "relaxation", "anderson", "broyden")
_HALVINGS = 12
_DETOUR = 200  # steps of relaxation before Newton tries again


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """A state and how well it is at rest; ``residual`` is ``|F| / |z|`` a token."""

    state: State
    residual: Float[Tensor, "batch pos"]
    converged: Bool[Tensor, "batch pos"]
    iterations: int
    method: str

    def require(self) -> State:
        """The state, if it is at rest everywhere.

        Raises:
            ProbekitError: it is not; the message says where and by how much.
        """
        if not self.converged.all():
            batch, pos = self._first
            raise ProbekitError(
                f"{self.method} found no fixed point: after {self.iterations} iterations "
                f"{int((~self.converged).sum())} of {self.converged.numel()} tokens are not at "
                f"rest, the first at batch {batch}, position {pos} "
                f"(residual {float(self.residual[batch, pos]):.3g}); start nearer (start=), or "
                "take another method"
            )
        return self.state

    @property
    def _first(self) -> tuple[int, int]:
        batch, pos = (~self.converged).nonzero()[0].tolist()
        return batch, pos


def find_fixed_point(
    force: Force,
    *,
    method: Literal["newton", "relaxation", "anderson", "broyden"] = "newton",
    start: State | None = None,
    tol: float = 1e-11,
    iterations: int = 60,
    step_size: float = 0.1,
) -> FixedPoint:
    """Solve ``F(z) = 0`` to ``|F_t| / |z_t| <= tol`` at every token.

    Args:
        method: ``newton`` token by token (causal forces), ``relaxation``, ``anderson``,
            ``broyden``.
        iterations: at most; of Newton at each token, of steps for relaxation.

    Returns:
        a :class:`FixedPoint`, flagged where it did not converge; ``.require()`` raises instead.

    Raises:
        ProbekitError: an unknown method, a start that is not finite, or Newton on a force that is
        not causal.
    """
    if method not in METHODS:
        raise ProbekitError(unknown("method", method, METHODS))
    z = force.start if start is None else start
    require_finite(z, "the start")
    with torch.no_grad():
        if method == "newton":
            state, made = newton_by_token(force, z, tol, iterations)
        elif method == "relaxation":
            run = relax(force, steps=iterations, step_size=step_size, start=z, tol=tol, stop=True)
            state, made = run.state, run.steps
        else:
            state, made = _by_scipy(force, z, method, tol, iterations)
        found = residuals(force(state), state, 1.0).token
    return FixedPoint(state, found, found <= tol, made, method)


def newton_by_token(force: Force, start: State, tol: float, iterations: int) -> tuple[State, int]:
    """Newton with halved steps, position after position; the state and the most iterations."""
    force.require_causal("Newton token by token")
    z, most = start.clone(), 0
    for t in range(z.shape[1]):
        here = force.upto(t + 1)

        def at(u: Tensor, here: Force = here, past: Tensor = z[:, :t]) -> Tensor:
            return here(torch.cat([past, u[:, None]], 1))[:, -1]

        u, made = _newton(at, z[:, t], tol, iterations)
        if not at_rest(at, u, tol):  # a fold or a cycle of Newton's own: come from elsewhere
            for _ in range(_DETOUR):
                u = u + 0.1 * at(u)
            u, more = _newton(at, u, tol, iterations)
            made += more
        z[:, t], most = u, max(most, made)
    return z, most


def at_rest(f: Callable[[Tensor], Tensor], u: Float[Tensor, "batch d"], tol: float) -> bool:
    """Whether ``|f(u)| <= tol |u|`` in every example."""
    return bool((f(u).norm(dim=-1) <= tol * u.norm(dim=-1)).all())


def _newton(
    f: Callable[[Tensor], Tensor], u: Tensor, tol: float, iterations: int
) -> tuple[Tensor, int]:
    value = f(u)
    for made in range(iterations):
        size = value.norm(dim=-1)
        if bool((size <= tol * u.norm(dim=-1)).all()):
            return u, made
        jacobian = batched_jacobian(f, u)
        step = torch.linalg.lstsq(jacobian, value[..., None]).solution[..., 0]
        scale = torch.ones_like(size)
        for _ in range(_HALVINGS):
            new = f(u - scale[:, None] * step)
            worse = ~(new.norm(dim=-1) < size)
            if not worse.any():
                break
            scale = torch.where(worse, scale / 2, scale)
        # An example that no halving helps stays where it is: rounding, or a lost branch.
        better = (new.norm(dim=-1) < size)[:, None]
        u, value = (
            torch.where(better, u - scale[:, None] * step, u),
            torch.where(better, new, value),
        )
        if not better.any():
            return u, made + 1
    return u, iterations


def batched_jacobian(
    f: Callable[[Tensor], Tensor], u: Float[Tensor, "batch d"]
) -> Float[Tensor, "batch d d"]:
    """``df_i / du_j`` of each example, by as many vjps as there are outputs."""
    pull = pullback(f, u)
    basis = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
    rows = vmap(lambda row: pull(row.expand_as(u)))(basis)
    return rows.transpose(0, 1)


def _by_scipy(
    force: Force, z: State, method: str, tol: float, iterations: int
) -> tuple[State, int]:
    made = 0

    def f(flat: np.ndarray) -> np.ndarray:
        nonlocal made
        made += 1
        return force(torch.as_tensor(flat).to(z).view_as(z)).double().flatten().cpu().numpy()

    solve = {"anderson": optimize.anderson, "broyden": optimize.broyden1}[method]
    begin = z.double().flatten().cpu().numpy()
    options = {"M": 8} if method == "anderson" else {"max_rank": 60}
    # SciPy bounds the largest entry; tokens are bounded by their norms, which also change.
    bound = 0.02 * tol * float(z.norm(dim=-1).min())
    try:
        flat = solve(f, begin, f_tol=bound, maxiter=iterations, **options)
    except optimize.NoConvergence as failed:
        flat = failed.args[0]
    except (ValueError, np.linalg.LinAlgError):  # it met infinities on its way
        flat = begin
    return torch.as_tensor(np.asarray(flat)).to(z).view_as(z), made
