"""Training an equilibrium model with any estimator and any stabilisers; may be killed and resumed.

A step whose state or gradient leaves the finite numbers is not taken, and counted: a run that has
diverged goes on, and its log says so. Validation relaxes longer than training does, as the dossier
has it, and reads what a training step cannot see: how unstable the map is, sequence by sequence.

Source: the dossier "EP below-CE-2.1 divergence", sections 2, 5 and 6.4.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import NotFiniteError
from ..hooked.equilibrium_model import EquilibriumModel
from ..hooked.model import weights
from ..runs import RunDir
from ..training.fit import read_weights
from ..training.loop import train
from ..training.tasks import Task
from .estimators import PHASES, Phases, estimate
from .force import force_of, require_finite
from .margins import multiplier, rightmost
from .objective import objective_of
from .residuals import residuals
from .spectrum import spectrum
from .stabilisers import AsymmetryProjection, JacobianPenalty, Penalty, Reached, Stabiliser

ONSET = 1e-2  # a step residual of some validation sequence above which it no longer settles
_SPECTRA = 2  # sequences of validation whose spectrum is logged


@dataclass(frozen=True)
class EquilibriumTraining:
    """By Adam, each step on windows drawn with replacement."""

    steps: int
    batch: int = 8
    lr: float = 3e-3
    estimator: str = "exact"  # of probekit.dynamics.ESTIMATORS
    phases: Phases = PHASES
    settle: int = 150  # steps of the relaxation in validation
    log_every: int = 20


def fit_equilibrium(
    run: RunDir,
    model: EquilibriumModel,
    task: Task,
    training: EquilibriumTraining,
    stabilisers: Sequence[Stabiliser],
    seed: int,
    *,
    title: str,
    position: int,
) -> None:
    """Train ``model`` in place; a finished run only gives it the weights that it ended with.

    ``metrics.jsonl`` gets a row every ``log_every`` steps: ``loss`` (validation, nats a token),
    the step residuals ``residual`` (aggregate) and ``worst_residual`` (of a sequence) after
    ``settle`` steps, ``train_loss`` and ``train_residual`` of the last step, ``multiplier`` (the
    largest ``|1 + step mu|`` of the first validation sequences at their last states), ``lead``
    (their rightmost Re mu; both of causal models only), each penalty's strength and ``skipped``
    steps. ``onset/`` gets the weights at the first log with a ``worst_residual`` of :data:`ONSET`.

    Raises:
        RunError: the folder holds another run.
        ProbekitError: what an estimator or a stabiliser refuses.
    """
    config = {"task": repr(task), **asdict(training), "stabilisers": [repr(s) for s in stabilisers]}
    run.start(config, seed)
    for each in stabilisers:
        if isinstance(each, AsymmetryProjection):
            each.prepare(model)
    if run.done:
        read_weights(run, model)
        return
    _Loop(model, task, training, stabilisers, seed).run(run, title, position)
    run.write_json("summary.json", {"steps": training.steps})


class _Loop:
    """What a run keeps from step to step, and what it does at each."""

    def __init__(
        self,
        model: EquilibriumModel,
        task: Task,
        training: EquilibriumTraining,
        stabilisers: Sequence[Stabiliser],
        seed: int,
    ) -> None:
        self.model, self.task, self.training, self.seed = model, task, training, seed
        self.step_size = float(model.cfg.step_size)  # type: ignore[attr-defined]
        self.penalties = [s for s in stabilisers if isinstance(s, Penalty)]
        self.projections = [s for s in stabilisers if not isinstance(s, Penalty)]
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=training.lr)
        self.held_out = task.validation()
        self.kept = {
            "strengths": torch.tensor([s.strength for s in self.penalties], dtype=torch.float64),
            "train": torch.full((2,), torch.nan, dtype=torch.float64),  # loss and residual
            "skipped": torch.zeros((), dtype=torch.int64),
            "onset": torch.tensor(-1),  # the step at which the onset was saved
        }

    def run(self, run: RunDir, title: str, position: int) -> None:
        training = self.training
        train(
            run,
            self.model,
            self.optimizer,
            steps=training.steps,
            update=self.update,
            log=lambda step: self.log(run, step),
            log_every=training.log_every,
            checkpoint_every=5 * training.log_every,
            title=title,
            position=position,
            state=self.kept,
        )

    def update(self, step: int) -> None:
        tokens, labels = self.task.batch(
            np.random.default_rng([self.seed, 0, step]), self.training.batch
        )
        self.optimizer.zero_grad()
        try:
            at = self._backward(step, tokens, labels)
        except NotFiniteError:
            self.kept["skipped"] += 1
            return
        self.optimizer.step()
        for each in self.projections:
            each.project(at)

    def _backward(self, step: int, tokens: Tensor, labels: Tensor) -> Reached:
        """The gradient of the loss and of every penalty, in the parameters' ``grad``."""
        training = self.training
        found = estimate(training.estimator, self.model, tokens, labels, training.phases)
        residual = float(found.residuals.step.aggregate)
        self.kept["train"].copy_(torch.tensor([found.loss, residual]))
        x = self.model.inject(tokens)
        seed = self.seed * 1_000_003 + step
        at = Reached(self.model, x, found.state, residual, self.step_size, seed)
        total = found.total
        for index, each in enumerate(self.penalties):
            strength = float(self.kept["strengths"][index])
            if isinstance(each, JacobianPenalty):
                strength = each.controlled(strength, residual)
                self.kept["strengths"][index] = strength
            total = total + strength * each.penalty(at)
        total.backward()
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                require_finite(parameter.grad, "a gradient")
        return at

    def log(self, run: RunDir, step: int) -> dict[str, Any]:
        tokens, labels = self.held_out
        training, model, size = self.training, self.model, self.step_size
        force = force_of(model, tokens)
        z = model.relax(force.start, training.settle, size)
        row: dict[str, Any] = {"step": step, "skipped": int(self.kept["skipped"])}
        row["train_loss"], row["train_residual"] = self.kept["train"].tolist()
        for each, strength in zip(self.penalties, self.kept["strengths"].tolist(), strict=True):
            row[type(each).__name__] = strength
        row["loss"] = float(objective_of(model, labels).loss(z)) / labels.numel()
        left = residuals(force(z), z, size).step
        row["residual"], row["worst_residual"] = float(left.aggregate), float(left.sequence.max())
        row |= self._stability(z)
        if not row["worst_residual"] < ONSET and self.kept["onset"] < 0:
            self.kept["onset"].fill_(step)
            RunDir(run.path / "onset").save_checkpoint(step, weights(model), {})
        return row

    def _stability(self, z: Tensor) -> dict[str, float]:
        """The least stable eigenvalues of a few validation sequences at their last states."""
        if not self.model.causal:
            return {}
        force = force_of(self.model, self.held_out[0][:_SPECTRA])
        try:
            mu = spectrum(force, z[:_SPECTRA])
        except NotFiniteError:
            return {"multiplier": float("nan"), "lead": float("nan")}
        return {
            "multiplier": float(multiplier(mu, self.step_size).abs().max()),
            "lead": float(rightmost(mu.flatten()).real),
        }
