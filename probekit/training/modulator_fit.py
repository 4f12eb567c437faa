"""Train a modulator through its attachment, its host frozen; may be killed and resumed.

As published: AdamW on all that the modulator has, alpha's logits too; cosine annealing stepped once
an epoch; gradients clipped by their norm; one generator for the split and then for each epoch's
order; alpha read every 10 batches. The host stays in evaluation mode: no dropout.

Source: "Geometric Terrain Analysis", S9.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attachment import attach
from ..checks import check_from_zero, check_positive, check_sizes
from ..errors import ProbekitError, RunError
from ..hooked.model import HookedModel, copy_into
from ..interventions import FieldModulator, FreezeWeights, Lerp
from ..items import Item
from ..modulators import LerpModulator, cosine_rates, save_modulator
from ..runs import RunDir
from .lemma_examples import LemmaExamples
from .loop import train
from .objectives import Objective, held_out_scores

EVERY = 10
"""Batches from one published reading of alpha to the next."""
_ALPHA, _LOSS = "trace.alpha", "trace.loss"


@dataclass(frozen=True)
class ModulatorTraining:
    """The published protocol: 8,425 of 9,362 examples are 264 batches an epoch.

    Raises:
        ProbekitError: sizes below 1, a rate or clip that is not above 0, a negative decay, or a
            share of examples held out that is not inside (0, 1).
    """

    epochs: int = 10
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0  # largest gradient norm
    held_out: float = 0.1  # share of the examples
    seed: int = 42  # of the split and of each epoch's order

    def __post_init__(self) -> None:
        check_sizes(epochs=self.epochs, batch=self.batch)
        check_positive("lr", self.lr)
        check_positive("clip", self.clip)
        check_from_zero("weight_decay", self.weight_decay)
        if not 0 < self.held_out < 1:
            raise ProbekitError(f"held_out must be a share inside (0, 1), not {self.held_out!r}")

    def split(self, examples: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Rows to train on, rows held out, and each epoch's order of the former."""
        rng = np.random.default_rng(self.seed)
        order = torch.from_numpy(rng.permutation(examples))
        kept = int((1 - self.held_out) * examples)
        orders = [torch.from_numpy(rng.permutation(kept)) for _ in range(self.epochs)]
        return order[:kept], order[kept:], orders

    def batches(self, examples: int) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-int((1 - self.held_out) * examples) // self.batch)

    def rates(self, examples: int) -> list[float]:
        """The learning rate of every step."""
        return cosine_rates(self.lr, self.epochs, self.batches(examples))


@dataclass(frozen=True)
class ModulatorTrace:
    """What training left: alpha before each step and after the last, losses, and epochs' rows."""

    alpha: Float[Tensor, "reading layer *expert"]
    loss: Float[Tensor, " step"]
    epochs: list[dict[str, Any]]

    @property
    def published(self) -> Float[Tensor, "reading layer *expert"]:
        """Alpha as published: after batches 0, 10, 20, ... of each epoch, 27 readings of 264."""
        batches = self.epochs[1]["step"] if len(self.epochs) > 1 else len(self.loss) + 1
        after = [step + 1 for step in range(len(self.loss)) if step % batches % EVERY == 0]
        return self.alpha[after]


def fit_modulator(
    run: RunDir,
    model: HookedModel,
    item: Lerp | FieldModulator,
    examples: LemmaExamples,
    objective: Objective,
    training: ModulatorTraining,
    *,
    title: str,
    position: int,
    items: Sequence[Item] = (),
    factors: Mapping[str, float] = MappingProxyType({}),
    checkpoint_every: int = 100,
) -> ModulatorTrace:
    """Train ``item.module`` in place through ``model``, which does not change by a bit.

    ``metrics.jsonl`` gets a row an epoch, and one before the first: ``train_loss`` (nats, of the
    epoch's batches), ``val_loss``, ``lemma_nll``, ``lemma_rank`` (median) of what is held out,
    and ``alpha``. The modulator is saved to ``modulator/``; a finished run only gives the module
    the weights that it ended with.

    Args:
        item: as it is attached, such as ``pk.Lerp(module, site="encoder.resid_pre")``.
        items: attached beside it in training and reading alike.
        factors: of the learning rate, by a part of a parameter's name; the first that fits counts.
        checkpoint_every: steps.

    Raises:
        RunError: a folder of another run. ProbekitError: a Lerp that holds alpha still, or what
            :func:`probekit.attach` refuses.
    """
    module = item.module
    if isinstance(item, Lerp) and item.alpha is not None:
        raise ProbekitError(
            f"{item} holds alpha at {item.alpha}, so that it cannot learn; leave alpha out and "
            f"call module.set_alpha({item.alpha})"
        )
    rows, held_out, orders = training.split(len(examples))
    batches, rates = training.batches(len(examples)), training.rates(len(examples))
    own = dict(module.state_dict(keep_vars=True))
    run.start(
        {
            **asdict(training),
            "module": module.config,
            "site": item.site,
            **({"form": item.form} if isinstance(item, Lerp) else {}),
            "objective": getattr(objective.loss, "__name__", repr(objective.loss)),
            "examples": len(examples),
            "factors": dict(factors),
        }
    )
    if run.done:
        _, tensors, _ = _checkpoint(run)
        copy_into(own, {name: tensors[name] for name in own if name in tensors})
        return read_trace(run)
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    trained = list(named.values())
    groups = [{"params": [p], "factor": _factor(name, factors)} for name, p in named.items()]
    optimizer = torch.optim.AdamW(
        groups, lr=training.lr, weight_decay=training.weight_decay, fused=True
    )
    trace = {
        _ALPHA: torch.zeros(len(rates) + 1, *module.alpha.shape),
        _LOSS: torch.zeros(len(rates)),
    }

    def batch(step: int) -> LemmaExamples:
        epoch, index = divmod(step, batches)
        return examples.take(rows[orders[epoch][index * training.batch :][: training.batch]])

    def update(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rates[step] * group["factor"]
        loss = objective.loss(model, batch(step))
        if not loss.requires_grad:
            raise ProbekitError(f"the loss does not depend on {item}: see its site and the items")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, training.clip)
        optimizer.step()
        if isinstance(module, LerpModulator):
            module.advance()
        trace[_LOSS][step] = loss.detach()
        trace[_ALPHA][step + 1] = module.alpha.detach()

    def log(step: int) -> dict[str, Any]:
        seen = trace[_LOSS][max(step - batches, 0) : step]
        return {
            "step": step,
            "train_loss": float(seen.mean()),
            **held_out_scores(model, examples.take(held_out), objective),
            "alpha": module.alpha.tolist(),
        }

    trace[_ALPHA][0] = module.alpha.detach()
    with attach(model, FreezeWeights("all"), item, *items):
        train(
            run,
            own,
            optimizer,
            steps=len(rates),
            update=update,
            log=log,
            log_every=batches,
            checkpoint_every=checkpoint_every,
            title=title,
            position=position,
            state=trace,
        )
    save_modulator(module, run.path / "modulator")
    run.write_json("summary.json", {"steps": len(rates)})
    return read_trace(run)


def read_trace(run: RunDir) -> ModulatorTrace:
    """The trace of a run that has ended, or as far as its last checkpoint.

    Raises:
        RunError: there is no checkpoint.
    """
    step, tensors, _ = _checkpoint(run)
    return ModulatorTrace(tensors[_ALPHA][: step + 1], tensors[_LOSS][:step], run.rows())


def _factor(name: str, factors: Mapping[str, float]) -> float:
    return next((factor for part, factor in factors.items() if part in name), 1.0)


def _checkpoint(run: RunDir) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    saved = run.load_checkpoint()
    if saved is None:
        raise RunError(f"{run.path} has no checkpoint; train it first")
    return saved
