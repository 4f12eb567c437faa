"""The diagnosis that decides: several step sizes over one physical time, and the true fixed point.

Relax with steps eps, eps/2, eps/4 over the same time. The force residual g at the end says

    g -> 0 at every step, at z*             stable
    g the same at every step (+-15 %)       a cycle of the flow: continuous Hopf
    g -> 0 below some step, not above       the map's own doing: a flip where the period is 2.00
                                            steps, else an Euler instability
    g -> 0 at every step, far from z*       real branch point: another fixed point was found

Beside it stands what the spectrum at z* predicts. Where both agree that is the regime; where
they do not, the diagnosis is "undecided" and its evidence shows why. Knockouts do not decide:
weakening attention ends a Hopf cycle and an Euler artefact alike.

It misleads near onset, where growth takes longer than the time given: ``time`` should be ten
times ``1 / |Re mu|``.

Source: the dossier "EP below-CE-2.1 divergence", section 6.2.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ..errors import ProbekitError
from .cycles import period
from .force import Force, State
from .margins import euler_margin, least_stable, multiplier, rightmost, spectral_regime
from .relaxation import relax
from .spectrum import spectrum

REGIMES = ("stable", "continuous Hopf", "Euler instability", "flip", "real branch point")
UNDECIDED = "undecided"
STEP_SIZES = (0.1, 0.05, 0.025)
_STILL = 1e-6  # g below this is at rest
_SHRINKS = 0.5  # g that halves over the last quarter is on its way to rest
_CONSTANT = 0.15
_FAR = 1e-2  # of |z*|


@dataclass(frozen=True, eq=False)
class StepSweep:
    """Relaxations with several steps over one time; rows are step sizes, columns sequences.

    ``g`` is the mean force residual over the last quarter, ``trend`` its mean over the last eighth
    over that of the eighth before, ``period`` in steps (NaN at rest), ``omega`` in radians per
    unit of time, ``distance`` from z* over ``|z*|``. What left the finite numbers has g infinite.
    """

    step_sizes: tuple[float, ...]
    g: Float[Tensor, "step batch"]
    trend: Float[Tensor, "step batch"]
    period: Float[Tensor, "step batch"]
    omega: Float[Tensor, "step batch"]
    distance: Float[Tensor, "step batch"]

    @property
    def alive(self) -> Tensor:
        """Where g neither is at rest nor on its way."""
        return (self.g > _STILL) & ~(self.trend < _SHRINKS)


@torch.no_grad()
def sweep_steps(
    force: Force,
    fixed_point: State,
    *,
    start: State | None = None,
    step_sizes: tuple[float, ...] = STEP_SIZES,
    time: float = 40.0,
) -> StepSweep:
    """Relax over ``time`` with each step size, from ``start`` or the force's own.

    Raises:
        ProbekitError: fewer than two step sizes, or a time below 8 of the largest.
    """
    if len(step_sizes) < 2 or not all(0 < size <= time / 8 for size in step_sizes):
        raise ProbekitError(
            f"step_sizes={step_sizes}, time={time}: give two or more, each at most time / 8"
        )
    found = [_relax(force, fixed_point, start, size, time) for size in step_sizes]
    return StepSweep(tuple(step_sizes), *(torch.stack(each) for each in zip(*found, strict=True)))


def _relax(
    force: Force, fixed_point: State, start: State | None, size: float, time: float
) -> tuple[Tensor, ...]:
    run = relax(force, steps=round(time / size), step_size=size, start=start)
    quarter, eighth = max(run.steps // 4, 2), max(run.steps // 8, 1)
    trace = run.residuals.sequence[-quarter:].double()
    g = torch.where(run.finite, trace.mean(0), torch.inf)
    trend = trace[-eighth:].mean(0) / trace[:-eighth].mean(0).clamp_min(1e-300)
    steps = torch.where(g > _STILL, period(run.projection[-quarter:]), torch.nan)
    apart = (run.state - fixed_point).flatten(1).norm(dim=1)
    distance = apart / fixed_point.flatten(1).norm(dim=1)
    return g, trend, steps, 2 * math.pi / (steps * size), distance.double()


def observed_regime(sweep: StepSweep, sequence: int) -> str:
    """The regime that the relaxations of one sequence show, without any eigenvalue."""
    order = sorted(range(len(sweep.step_sizes)), key=lambda i: -sweep.step_sizes[i])
    g = sweep.g[order, sequence]
    alive = sweep.alive[order, sequence].tolist()
    if not any(alive):
        far = bool((sweep.distance[order, sequence] > _FAR).all())
        return "real branch point" if far else "stable"
    if all(alive):
        middle = (g.max() + g.min()) / 2
        constant = bool(g.isfinite().all()) and bool((g - middle).abs().max() <= _CONSTANT * middle)
        return "continuous Hopf" if constant else UNDECIDED
    if alive != sorted(alive, reverse=True):  # at rest with a large step, alive with a small one
        return UNDECIDED
    turns = float(sweep.period[order[0], sequence])
    return "flip" if abs(turns - 2) < 0.02 else "Euler instability"


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What one sequence does, and why.

    ``lead`` is the rightmost eigenvalue at z*, ``fast`` the least stable one of the map.
    """

    regime: str
    observed: str
    predicted: str
    lead: complex
    fast: complex
    step_size: float
    evidence: tuple[dict[str, float], ...]

    @property
    def margin(self) -> float:
        """The step above which the map is unstable; 0 where the flow is."""
        if self.lead.real >= 0:
            return 0.0
        return float(euler_margin(torch.tensor(self.fast, dtype=torch.complex128)))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "regime": self.regime,
            "observed": self.observed,
            "predicted": self.predicted,
            "lead": [self.lead.real, self.lead.imag],
            "fast": [self.fast.real, self.fast.imag],
            "largest multiplier": abs(1 + self.step_size * self.fast),
            "margin": self.margin,
            "evidence": list(self.evidence),
        }


def classify(
    force: Force,
    fixed_point: State,
    *,
    start: State | None = None,
    step_sizes: tuple[float, ...] = STEP_SIZES,
    time: float = 40.0,
    eigenvalues: Complex[Tensor, "batch n"] | None = None,
) -> list[Diagnosis]:
    """The regime of every sequence at the largest of ``step_sizes``.

    Args:
        fixed_point: z*, such as ``find_fixed_point(force).require()``.
        start: of the relaxations; by default the force's own.
        time: of each relaxation.
        eigenvalues: at z*; None computes them by diagonal blocks (causal forces).

    Raises:
        ProbekitError: the force is not causal and no eigenvalues are given; and whatever
        :func:`sweep_steps` refuses.
    """
    if eigenvalues is None:
        eigenvalues = spectrum(force, fixed_point).flatten(1)
    sweep = sweep_steps(force, fixed_point, start=start, step_sizes=step_sizes, time=time)
    largest = max(step_sizes)
    return [_diagnose(sweep, eigenvalues[i], i, largest) for i in range(len(fixed_point))]


def _diagnose(sweep: StepSweep, mu: Tensor, sequence: int, step_size: float) -> Diagnosis:
    observed, predicted = observed_regime(sweep, sequence), spectral_regime(mu, step_size)
    evidence = tuple(
        {
            "step_size": size,
            "g": float(sweep.g[row, sequence]),
            "trend": float(sweep.trend[row, sequence]),
            "period": float(sweep.period[row, sequence]),
            "omega": float(sweep.omega[row, sequence]),
            "distance": float(sweep.distance[row, sequence]),
            "largest multiplier": float(multiplier(mu, size).abs().max()),
        }
        for row, size in enumerate(sweep.step_sizes)
    )
    return Diagnosis(
        observed if observed == predicted else UNDECIDED,
        observed,
        predicted,
        complex(rightmost(mu)),
        complex(least_stable(mu, step_size)),
        step_size,
        evidence,
    )
