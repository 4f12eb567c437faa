"""Damage to a trained network, training on with or without its optimizer, and who dominates.

For experiments that branch: a network is trained to some accuracy, and arms go on from there. What
differs between arms must be what is asked for: a branch that also starts its optimizer afresh has
two causes, as the first steps of a fresh Adam have size lr in every coordinate whatever the
gradient (:func:`~probekit.training.follow`).

Source: "The Conservation of Separability", phase 6.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...attachment import attach
from ...errors import RunError
from ...geometry import gini
from ...hooked.load import random_twin
from ...hooked.model import HookedModel, load_weights, weights
from ...hooked.selection import Selection
from ...interventions.swap_weights import donor_weights
from ...probes import Record
from ...runs import RunDir
from ..fit import Optimisation, fit
from ..stability import classify_recovery, collapse_count, first_drop
from ..stack import Stack
from ..tasks import Task


@dataclass(frozen=True)
class RecoveryArm:
    """How a branch differs: weights that are made fresh, and other batches."""

    damage: Selection | None = None
    batches: int = 0  # added to the seed of the batches


def train_recoveries(
    run: RunDir,
    model: HookedModel,
    task: Task,
    optimisation: Optimisation,
    arms: Mapping[str, RecoveryArm],
    seed: int,
    *,
    grown: RunDir | None = None,
    title: str,
    position: int,
) -> dict[str, dict[str, Any]]:
    """Train ``model`` on, damaged as each arm says, all arms side by side.

    Args:
        seed: of the damage and of the batches; arms see the same ones unless they say otherwise.
        grown: the run that ``model`` comes from, to go on with its optimizer; None: a fresh one.

    Returns:
        by arm: ``log``, validation accuracy by step; ``first step``, accuracies before and after
        the first one, which the log skips; ``kind``, ``first drop`` and ``collapses`` of the log
        (:func:`classify_recovery`); ``final``; and :func:`dominance` of the first layer's heads.

    Raises:
        RunError: see :func:`fit`.
    """
    starts = [damaged(model, arm.damage, seed) if arm.damage else model for arm in arms.values()]
    seeds = [seed + arm.batches for arm in arms.values()]
    first, long = RunDir(run.path / "first-step"), RunDir(run.path / "long")
    once = replace(optimisation, steps=1, log_every=1)
    stacks = Stack(starts), Stack(starts)
    for each, stack, how in zip((first, long), stacks, (once, optimisation), strict=True):
        if grown is not None:
            begin_with(each, grown)
        fit(each, stack, task, how, seeds, title=title, position=position)
    tokens, twin = task.validation()[0], random_twin(model, seed)
    rows, found = long.rows(), {}
    for index, arm in enumerate(arms):
        stacks[-1].copy_to(index, twin)
        steps, log = [row["step"] for row in rows], [row["accuracy"][index] for row in rows]
        found[arm] = {
            "log": dict(zip(map(str, steps), log, strict=True)),
            "first step": [row["accuracy"][index] for row in first.rows()],
            "kind": classify_recovery(log),
            "first drop": first_drop(steps, log),
            "collapses": collapse_count(log),
            "final": log[-1],
            **dominance(head_shares(twin, tokens, 0)),
        }
    return found


@torch.no_grad()
def damaged(model: HookedModel, selection: Selection, seed: int) -> HookedModel:
    """A copy of ``model`` in which the selected weights are fresh, of its initialisation's law.

    For packed attention that is Xavier-uniform of the packed matrix, biases 0. One seed gives one
    set of fresh weights: the damage of two heads includes that of the first.

    Raises:
        ProbekitError, SiteError: see :class:`Selection`.
    """
    # Not the seed itself: the model may have started from it.
    twin = random_twin(model, 2**31 + seed)
    fresh = donor_weights(twin, selection)
    load_weights(twin, weights(model))
    for each in selection.find(twin):
        each.view.copy_(fresh[each.address])
    return twin


def begin_with(run: RunDir, earlier: RunDir) -> None:
    """Let ``run`` begin where ``earlier`` stopped: with its weights and its optimizer's state.

    Nothing happens to a run that has begun. Steps, and so batches, count from 0 again.

    Raises:
        RunError: ``earlier`` has no checkpoint, or a damaged one.
    """
    if run.load_checkpoint() is None:
        run.save_checkpoint(0, last_checkpoint(earlier), {})


def last_checkpoint(run: RunDir) -> dict[str, Tensor]:
    """Weights and optimizer state that ``run`` stopped with.

    Raises:
        RunError: there is no checkpoint, or it is damaged.
    """
    saved = run.load_checkpoint()
    if saved is None:
        raise RunError(f"{run.path} has no checkpoint to go on from; run it first")
    return saved[1]


def head_shares(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], layer: int
) -> Float[Tensor, " head"]:
    """Each head's share of the norms of z at the last position, means over examples; sums to 1.

    What a head writes goes through W_O, which this does not see: a long z may write little.
    """
    with torch.no_grad(), attach(model, Record(f"{layer}.z", name="z")) as run:
        model(tokens)
    norms = run["z"].values[:, -1].double().norm(dim=-1).mean(0)
    return norms / norms.sum()


def dominance(shares: Float[Tensor, " head"]) -> dict[str, float]:
    """``gini`` (0: all heads alike) and ``max share`` (1 / heads: all alike) of shares of heads."""
    return {"gini": gini(shares), "max share": float(shares.max())}
