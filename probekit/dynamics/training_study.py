"""What the recipes on training read off a run's log, and off its weights where trouble began."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import NotFiniteError
from ..hooked.equilibrium_model import EquilibriumModel
from ..hooked.model import load_weights
from ..runs import RunDir
from ..training.tasks import Task
from .fixed_point import find_fixed_point
from .force import force_of
from .margins import euler_margin, multiplier, rightmost
from .normality import numerical_abscissa, split
from .relaxation import relax
from .spectrum import diagonal_blocks
from .sweep import classify
from .training import ONSET

Row = Mapping[str, Any]
SPECTRAL = (
    "converged", "lead", "abscissa less lead", "margin", "multiplier", "r_str", "gain",
)  # fmt: skip
JUMP = 1.0  # nats: a rise of the loss within a hundred steps that counts as divergence
AT_REST = 1e-3  # the aggregate step residual below which a run counts as at rest
TRACES = ("loss", "residual", "worst_residual", "multiplier", "lead")
_BROKEN = 1e3  # what a number counts as that left the finite ones
_CHOSEN = 3  # sequences that are diagnosed
_TIME = 100.0  # physical, of each relaxation of a diagnosis: modes near onset decay slowly


def traces(rows: Sequence[Row]) -> dict[str, list[float]]:
    """The log's columns, those that there are; what is not finite counts as 1,000."""
    return {
        name: [_BROKEN if row[name] is None else float(row[name]) for row in rows]
        for name in ("step", *TRACES)
        if name in rows[0]
    }


def largest_rise(steps: Sequence[float], loss: Sequence[float], within: float = 100) -> float:
    """The most that ``loss`` rises within so many steps.

    Example:
        >>> largest_rise([0, 50, 100, 150], [3.0, 2.0, 2.5, 4.0])
        2.0
    """
    rises = [
        later - earlier
        for i, earlier in enumerate(loss)
        for step, later in zip(steps[i:], loss[i:], strict=True)
        if step - steps[i] <= within
    ]
    return max(rises)


def log_readings(rows: Sequence[Row]) -> dict[str, float]:
    """A run in a few numbers: losses in nats, step residuals of validation after its relaxation."""
    found = traces(rows)
    return {
        "loss": found["loss"][-1],
        "best loss": min(found["loss"]),
        "largest rise": largest_rise(found["step"], found["loss"]),
        "largest residual": max(found["residual"]),
        "largest sequence residual": max(found["worst_residual"]),
        "skipped": float(rows[-1]["skipped"]),
    }


def onset_diagnosis(
    run: RunDir, model: EquilibriumModel, task: Task, settle: int
) -> list[dict[str, Any]]:
    """What the validation sequences that settle least do at the onset that a run saved.

    ``model``, in float64, gets the weights of the onset. A row a sequence whose step residual is
    at least ``ONSET``: its diagnosis, and the spectrum of its fixed point by Newton; where Newton
    finds none the regime is "no fixed point found". Empty where the run saved no onset.

    Args:
        settle: steps of the relaxation, as in the run's validation.
    """
    saved = RunDir(run.path / "onset").load_checkpoint() if (run.path / "onset").exists() else None
    if saved is None:
        return []
    load_weights(model, {name: each.double() for name, each in saved[1].items()})
    tokens = task.validation()[0]
    step_size = model.cfg.step_size  # type: ignore[attr-defined]
    settled = relax(force_of(model, tokens), steps=settle, step_size=step_size)
    left = settled.residuals.step.sequence[-1]
    worst = left.argsort(descending=True)[:_CHOSEN].tolist()
    return [
        {"onset step": saved[0], **_diagnosis(model, tokens[i : i + 1], settled.state[i : i + 1])}
        for i in worst
        if not float(left[i]) < ONSET
    ]


def _diagnosis(model: EquilibriumModel, tokens: torch.Tensor, last: torch.Tensor) -> dict[str, Any]:
    force = force_of(model, tokens)
    starts = [force.start] + ([last] if last.isfinite().all() else [])
    for start in starts:
        found = find_fixed_point(force, start=start)
        if found.converged.all():
            mu = torch.linalg.eigvals(diagonal_blocks(force, found.state))
            size = model.cfg.step_size  # type: ignore[attr-defined]
            (diagnosis,) = classify(
                force,
                found.state,
                step_sizes=(size, size / 2, size / 4),
                time=_TIME,
                eigenvalues=mu.flatten(1),
            )
            try:
                at_last = torch.linalg.eigvals(diagonal_blocks(force, last))
                there = float(multiplier(at_last, size).abs().max())
            except NotFiniteError:
                there = _BROKEN
            return {
                **diagnosis.to_dict(),
                "multiplier at z_T": there,
                "mu": [[each.real, each.imag] for each in mu.flatten().tolist()],
            }
    return {"regime": "no fixed point found"}


def spectral_readings(model: EquilibriumModel, task: Task) -> dict[str, float]:
    """How far from instability a trained model is, at the fixed points of validation sequences.

    ``converged`` is the share of tokens whose fixed point was found, ``lead`` the rightmost Re mu,
    ``margin`` the smallest Euler step of any mode (0 where the flow is unstable), ``multiplier``
    the largest ``|1 + step mu|``, ``r_str`` and ``gain`` the asymmetry and ``|J_nc|_F /
    sqrt(d_model)`` of the diagonal blocks of attention and MLP, ``abscissa less lead`` how far the
    numerical abscissa of the whole Jacobian lies right of ``lead``. All but ``converged`` count as
    1,000 where the Jacobian is not finite.
    """
    force = force_of(model, task.validation()[0][:4])
    z = relax(force, steps=400, tol=1e-9, stop=True).state
    found = find_fixed_point(force, start=z if z.isfinite().all() else None)
    try:
        blocks = diagonal_blocks(force, found.state)
    except NotFiniteError:
        return {name: _BROKEN for name in SPECTRAL} | {"converged": 0.0}
    mu = torch.linalg.eigvals(blocks).flatten()
    leak = 1 + model.cfg.damping  # type: ignore[attr-defined]
    own = blocks + leak * torch.eye(blocks.shape[-1], dtype=blocks.dtype)
    norm, r_str, _ = split(own)
    lead = float(rightmost(mu).real)
    values = (
        float(found.converged.double().mean()),
        lead,
        numerical_abscissa(force, found.state) - lead,
        float(euler_margin(mu).min()),
        float(multiplier(mu, model.cfg.step_size).abs().max()),  # type: ignore[attr-defined]
        float(r_str.mean()),
        float(norm.mean()) / math.sqrt(blocks.shape[-1]),
    )
    return dict(zip(SPECTRAL, values, strict=True))


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's; NaN where one of them does not vary."""
    from scipy.stats import spearmanr

    if len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    found: Any = spearmanr(x, y)
    return float(found.statistic)


def shuffled_correlation(x: Sequence[float], y: Sequence[float], seed: int = 0) -> float:
    """The 95th percentile of ``|rank_correlation|`` with one side in random order."""
    draw = np.random.default_rng(seed)
    found = [abs(rank_correlation(x, draw.permutation(y).tolist())) for _ in range(1_000)]
    return float(np.quantile(found, 0.95))


def onset_regimes(runs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """How many diagnosed sequences show each regime, over all runs."""
    named = [row["regime"] for rows in runs for row in rows]
    return {regime: named.count(regime) for regime in dict.fromkeys(named)}


def run_folder(run_dir: Path, arm: str, seed: int) -> RunDir:
    """Where a run of an arm lives."""
    return RunDir(run_dir / f"seed{seed}" / arm.replace(" ", "-"))
