"""What the recipe on the bifurcation measures: planted systems, and blocks with random weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..attachment import attach
from ..errors import ProbekitError
from ..hooked.equilibrium_model import EquilibriumModel
from ..interventions import AttentionScale, Edit
from .cycles import lyapunov
from .fixed_point import find_fixed_point
from .force import Force, State, force_of
from .margins import least_stable, multiplier, rightmost, spectral_regime
from .normality import asymmetry, nonnormality, numerical_abscissa, probe_products
from .relaxation import relax
from .residuals import tail
from .rotor import REGIMES, Rotor, planted_rotor, random_rotors
from .spectrum import dense_jacobian, spectrum
from .sweep import classify

Reading = dict[str, Any]
_OFF = 0.3  # of its spread: how far from z* the relaxation of a planted system starts
KNOBS = {"W_O": "0.attn_out", "W_2": "0.mlp_out", "qk gain": "0.q"}


def labelled_rotor(label: str, d_model: int, length: int, seed: int) -> tuple[Rotor, Force, State]:
    """A planted system of one of the five regimes, its force and its fixed point by Newton."""
    kappa, phi = REGIMES[label]
    rotor = planted_rotor(kappa, phi, d_model=d_model, length=length, seed=seed)
    force = force_of(rotor.model, rotor.x)
    return rotor, force, find_fixed_point(force).require()


def regime_reading(
    label: str, d_model: int, length: int, time: float, orbit_steps: int, seed: int
) -> Reading:
    """One planted system: closed form, diagnosis, exponent on the orbit, and J at z_T against z*.

    ``phase`` are two projections of the end of the relaxation, ``trace`` its force residuals.
    """
    rotor, force, z = labelled_rotor(label, d_model, length, seed)
    exact, found = complex(rotor.eigenvalues()[0, 0]), spectrum(force, z)
    nearest = (found[0, 0] - exact).abs().min() / abs(exact)
    start = rotor.nudged(_OFF, seed)
    (diagnosis,) = classify(force, z, start=start, time=time)
    run = relax(force, steps=round(time / 0.1), start=start)
    exponents = lyapunov(force, run.state, steps=orbit_steps, count=1, warmup=orbit_steps // 4)
    phase = _orbit(force, run.state, rotor.plane, 120) if bool(run.finite.all()) else []
    return {
        **diagnosis.to_dict(),
        "label": label,
        "closed form": [exact.real, exact.imag],
        "closed form error": float(nearest),
        "bare leak error": abs(exact + 1 + rotor.model.cfg.damping) / abs(exact),  # type: ignore[attr-defined]
        "exponent": float(exponents[0, 0]),
        "multiplier at z*": largest_multiplier(force, z),
        "multiplier at z_T": largest_multiplier(force, run.state),
        "regime at z_T": spectral_regime(spectrum(force, run.state).flatten(), 0.1),
        "trace": run.residuals.sequence[:, 0].tolist(),
        "phase": phase,
    }


def _orbit(force: Force, z: State, plane: Tensor, steps: int) -> list[list[float]]:
    """The first token's two coordinates in the planted plane, step by step."""
    points = []
    with torch.no_grad():
        for _ in range(steps):
            points.append((z[0, 0] @ plane).tolist())
            z = z + 0.1 * force(z)
    return points


def largest_multiplier(force: Force, z: State, step_size: float = 0.1) -> float:
    """``max |1 + step mu|`` over the spectrum at a state, at rest or not."""
    return float(multiplier(spectrum(force, z), step_size).abs().max())


def planted_readings(count: int, d_model: int, time: float, seed: int) -> list[Reading]:
    """Random planted systems: the label, the diagnosis, and what J at z_T would have said."""
    readings = []
    for rotor in random_rotors(count, d_model=d_model, seed=seed):
        force = force_of(rotor.model, rotor.x)
        z = find_fixed_point(force).require()
        start = rotor.nudged(_OFF, seed)
        orbit = relax(force, steps=round(time / 0.1), start=start).state
        there = spectrum(force, orbit).flatten(1)
        diagnoses = classify(force, z, start=start, time=time)
        for label, diagnosis, mu in zip(rotor.regimes(), diagnoses, there, strict=True):
            reading: Reading = {
                "label": label,
                "regime": diagnosis.regime,
                "observed": diagnosis.observed,
                "predicted": diagnosis.predicted,
                "at z_T": spectral_regime(mu, 0.1),
            }
            readings.append(reading)
    return readings


def knockout_reading(
    label: str, alphas: Sequence[float], d_model: int, length: int, steps: int, seed: int
) -> dict[str, Reading]:
    """The floor and swing of the residual by AttentionScale(alpha), and the regime at each z*."""
    rotor, _, _ = labelled_rotor(label, d_model, length, seed)
    readings: dict[str, Reading] = {}
    for alpha in alphas:
        with attach(rotor.model, AttentionScale(alpha)):
            force = force_of(rotor.model, rotor.x)
            run = relax(force, steps=steps, start=rotor.nudged(_OFF, seed))
            mu = spectrum(force, find_fixed_point(force).require()).flatten()
        end = tail(run.residuals.step.aggregate, steps // 4)
        readings[f"{alpha:g}"] = {
            "floor": end.mean,
            "swing": end.swing,
            "largest multiplier": float(multiplier(mu, 0.1).abs().max()),
            "predicted": spectral_regime(mu, 0.1),
        }
    return readings


def structure_reading(model: EquilibriumModel, x: State, dampings: Sequence[float]) -> Reading:
    """D1, D2, D8 and D9 on one block with random weights, at its fixed point."""
    force = force_of(model, x)
    z = find_fixed_point(force, start=relax(force, steps=600).state).require()
    blocks, whole = spectrum(force, z)[0].flatten(), dense_jacobian(force, z)[0]
    length, width = z.shape[1:]
    grid = whole.view(length, width, length, width)
    upper = max(float(grid[t, :, t + 1 :].abs().max()) for t in range(length - 1))
    below = max(float(grid[t + 1, :, : t + 1].abs().max()) for t in range(length - 1))
    _, pushed, pulled = probe_products(force, z, 64, leak=1 + model.cfg.damping)  # type: ignore[attr-defined]
    rho, r_str = nonnormality(pushed, pulled), asymmetry(pushed, pulled)
    abscissa, lead = numerical_abscissa(force, z), complex(rightmost(blocks))
    return {
        "upper blocks": upper,
        "lower blocks": below,
        "eigenvalue distance": matched_distance(blocks, torch.linalg.eigvals(whole)),
        "lead": [lead.real, lead.imag],
        "numerical abscissa": abscissa,
        "abscissa less lead": abscissa - lead.real,
        "blocks' abscissa less lead": _blocks_abscissa(grid) - lead.real,
        "rho": rho,
        "r_str": r_str,
        "2 r_str / rho": 2 * r_str / rho,
        **rescaled_leads(model, x, dampings),
    }


def _blocks_abscissa(grid: Tensor) -> float:
    own = torch.stack([grid[t, :, t] for t in range(len(grid))])
    return float(torch.linalg.eigvalsh((own + own.mT) / 2).max())


def matched_distance(one: Tensor, other: Tensor) -> float:
    """The largest distance of two sets of eigenvalues, matched at least total distance."""
    from scipy.optimize import linear_sum_assignment

    distance = (one[:, None] - other[None]).abs().numpy()
    return float(distance[linear_sum_assignment(distance)].max())


def rescaled_leads(model: EquilibriumModel, x: State, dampings: Sequence[float]) -> Reading:
    """``Re mu / (1 + c)`` of the rightmost eigenvalue by damping c, and how far they spread."""
    kept = model.cfg.damping  # type: ignore[attr-defined]
    leads: dict[float, float] = {}
    try:
        for damping in dampings:
            model.cfg.damping = damping  # type: ignore[attr-defined]
            force = force_of(model, x)
            # A larger leak is the same flow, faster: the step shrinks with it.
            settled = relax(force, steps=600, step_size=0.1 / (1 + damping)).state
            mu = spectrum(force, find_fixed_point(force, start=settled).require()).flatten()
            leads[damping] = float(rightmost(mu).real)
    finally:
        model.cfg.damping = kept  # type: ignore[attr-defined]
    scaled = [lead / (1 + damping) for damping, lead in leads.items()]
    return {
        "leads": {f"{damping:g}": value for damping, value in leads.items()},
        "scaled spread": (max(scaled) - min(scaled)) / abs(scaled[0]),
        "raw spread": (max(leads.values()) - min(leads.values())) / abs(scaled[0]),
    }


def knob_scan(
    model: EquilibriumModel, x: State, values: Sequence[float]
) -> dict[str, list[Reading]]:
    """Each of :data:`KNOBS` turned up on its own, z* continued from one value to the next.

    ``mu`` are the eighth of all eigenvalues that lie furthest to the right. A branch that Newton
    loses (a fold) ends the scan of that knob: its last row says so.
    """
    scans: dict[str, list[Reading]] = {}
    for knob, site in KNOBS.items():
        start, rows = None, []
        for value in values:
            scale = AttentionScale(value) if knob == "W_O" else Edit(site, Scaled(value))
            with attach(model, scale):
                force = force_of(model, x)
                found = find_fixed_point(force, start=start)
                if not found.converged.all():
                    rows.append({"value": value, "converged": False})
                    break
                mu = spectrum(force, found.state).flatten()
            start = found.state
            lead, fast = complex(rightmost(mu)), complex(least_stable(mu, 0.1))
            order = mu.real.argsort(descending=True)[: max(8, len(mu) // 8)]
            rows.append(
                {
                    "value": value,
                    "converged": True,
                    "lead": [lead.real, lead.imag],
                    "fast": [fast.real, fast.imag],
                    "predicted": spectral_regime(mu, 0.1),
                    "mu": [[each.real, each.imag] for each in mu[order].tolist()],
                }
            )
        scans[knob] = rows
    return scans


class Scaled:
    """``x -> factor x``, for an Edit."""

    def __init__(self, factor: float) -> None:
        if not factor > 0:
            raise ProbekitError(f"a knob's value must be positive, not {factor!r}")
        self.factor = factor

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor * x
