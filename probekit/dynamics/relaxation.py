"""Free relaxation ``z <- z + step F(z)``, watched: residuals of every step and one projection."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import ProbekitError
from .force import Force, State, require_finite
from .residuals import Residuals, from_squares, squares

_LOOK = 5  # steps between looks at whether to go on


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Where a relaxation went.

    ``projection`` is ``<z - z_0, w>`` for a fixed random unit ``w`` per example: what periods are
    read from. ``finite`` says which sequences stayed finite, ``settled`` which ended below ``tol``.
    """

    state: State
    residuals: Residuals
    projection: Float[Tensor, "time batch"]
    settled: Bool[Tensor, " batch"]
    finite: Bool[Tensor, " batch"]
    step_size: float

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return len(self.projection)

    def require(self) -> State:
        """The state, if every sequence has settled.

        Raises:
            ProbekitError: some did not, or left the finite numbers.
        """
        if not self.finite.all():
            raise ProbekitError(
                f"{int((~self.finite).sum())} of {len(self.finite)} sequences left the finite "
                f"numbers within {self.steps} steps of {self.step_size}; lower step_size"
            )
        if not self.settled.all():
            raise ProbekitError(
                f"{int((~self.settled).sum())} of {len(self.settled)} sequences have not settled "
                f"after {self.steps} steps of {self.step_size} (largest force residual "
                f"{float(self.residuals.sequence[-1].max()):.3g}); take more steps, or classify "
                "what they do"
            )
        return self.state


@torch.no_grad()
def relax(
    force: Force,
    *,
    steps: int,
    step_size: float = 0.1,
    start: State | None = None,
    tol: float = 1e-10,
    stop: bool = False,
    seed: int = 0,
) -> Relaxation:
    """Make ``steps`` steps of ``z <- z + step_size F(z)``.

    Residuals are those of the state before each step. A sequence that leaves the finite numbers is
    flagged, and all stop there.

    Args:
        start: the first state; None takes the force's own.
        tol: on the force residual of a sequence, for ``settled``.
        stop: end once every token of every sequence has settled.

    Raises:
        ProbekitError: the start is not finite, or steps or step_size make no sense.
    """
    if not (steps >= 1 and step_size > 0 and math.isfinite(step_size)):
        raise ProbekitError(
            f"steps={steps!r}, step_size={step_size!r}: steps must be at least 1 and step_size "
            "positive"
        )
    z = force.start if start is None else start
    require_finite(z, "the start")
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(z.shape[1:], generator=generator, dtype=torch.float64).to(z)
    w = w / w.norm()
    kept: list[Tensor] = []
    projections: list[Tensor] = []
    for step in range(steps):
        f = force(z)
        kept.append(squares(f, z))
        projections.append((z * w).sum((1, 2)))
        z = z + step_size * f
        if step % _LOOK == 0 and _over(kept[-1], tol, stop):
            break
    found = from_squares(torch.stack(kept), step_size)
    last = found.sequence[-1]
    return Relaxation(
        z,
        found,
        torch.stack(projections) - projections[0],
        settled=last < tol,
        finite=z.isfinite().all(-1).all(-1) & last.isfinite(),
        step_size=step_size,
    )


def _over(sums: Float[Tensor, "2 batch pos"], tol: float, stop: bool) -> bool:
    """Whether a token left the finite numbers, or ``stop`` and every token has settled."""
    force, state = sums
    return not bool(force.isfinite().all()) or (stop and bool((force < tol**2 * state).all()))
