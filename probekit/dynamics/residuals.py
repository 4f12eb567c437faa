"""How far a state is from rest: step and force residuals, per token, per sequence, in all.

    force residual  g = |F(z)| / |z|          step residual  r = step g

The two differ by the step, and mixing them misleads: under a genuine cycle g does not depend on
the step, r does. An aggregate over a batch hides the few sequences that do not settle.

Source: the dossier "EP below-CE-2.1 divergence", section 2.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .force import State


@dataclass(frozen=True, eq=False)
class Residuals:
    """Force residuals ``|F| / |z|`` (per unit of time) and the step that turns them to ``r``."""

    token: Float[Tensor, "*time batch pos"]
    sequence: Float[Tensor, "*time batch"]
    aggregate: Float[Tensor, "*time"]
    step_size: float

    @property
    def step(self) -> "Residuals":
        """The step residuals ``r = step_size g``."""
        size = self.step_size
        return Residuals(size * self.token, size * self.sequence, size * self.aggregate, size)


def residuals(force: State, z: State, step_size: float) -> Residuals:
    """The residuals of one state whose force is known; 0/0 counts as 0."""
    return from_squares(squares(force, z), step_size)


def squares(force: State, z: State) -> Float[Tensor, "2 batch pos"]:
    """``|F_t|^2`` and ``|z_t|^2`` of each token: what residuals are made of."""
    return torch.stack([force, z]).square().sum(-1)


def from_squares(sums: Float[Tensor, "*time 2 batch pos"], step_size: float) -> Residuals:
    """The residuals of many states at once."""
    each = [sums, sums.sum(-1), sums.sum((-1, -2))]
    ratios = []
    for dims, level in enumerate((2, 1, 0)):
        force, state = each[dims].unbind(-1 - level)
        ratios.append((force / state.clamp_min(torch.finfo(sums.dtype).tiny)).sqrt())
    return Residuals(*ratios, step_size=step_size)


@dataclass(frozen=True)
class Tail:
    """The end of a trace of residuals: is it a floor, and does it swing?"""

    mean: float
    least: float
    greatest: float

    @property
    def swing(self) -> float:
        """``greatest - least``."""
        return self.greatest - self.least


def tail(trace: Float[Tensor, " time"], window: int = 1000) -> Tail:
    """The last ``window`` entries (all, where there are fewer)."""
    end = trace[-window:]
    return Tail(float(end.mean()), float(end.min()), float(end.max()))
