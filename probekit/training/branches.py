"""Branches of a training run: a stack put together from others, and a fit that keeps snapshots.

For experiments that go on from one state in several ways. A branch copies weights only: an
optimizer starts afresh there, as moments belong to the run that gathered them.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import ProbekitError, RunError
from ..runs import RunDir
from .fit import Optimisation, fit, read_weights
from .stack import Stack
from .tasks import Task


def branch(parts: Sequence[tuple[Stack, int]]) -> Stack:
    """A stack of copies: of each (stack, run) its weights as they are now, in that order.

    Raises:
        ProbekitError: no parts, or stacks of other parameters than the first's.
    """
    if not parts:
        raise ProbekitError("branch needs at least one (stack, run); given none")
    first = parts[0][0]
    for stack, _ in parts:
        shapes = [{n: p.shape[1:] for n, p in s.parameters.items()} for s in (first, stack)]
        if shapes[0] != shapes[1]:
            raise ProbekitError(
                "branch joins stacks of one model's shape; these have other parameters: "
                f"{', '.join(n for n in shapes[0] if shapes[0][n] != shapes[1].get(n))}"
            )
    joined = copy.copy(first)
    joined.parameters = {
        name: nn.Parameter(torch.stack([s.parameters[name][run].detach() for s, run in parts]))
        for name in first.parameters
    }
    return joined


def fit_keeping(
    run: RunDir,
    stack: Stack,
    task: Task,
    optimisation: Optimisation,
    seeds: Sequence[int],
    at: int,
    **more: Any,
) -> Stack:
    """:func:`fit`, and the stack as it was at step ``at``; may be killed and resumed as that.

    Args:
        more: title, position and whatever else :func:`fit` takes, but watch.

    Raises:
        RunError: no log is written at that step; else see :func:`fit`.
    """
    if not 0 <= at <= optimisation.steps or at % optimisation.log_every:
        raise RunError(
            f"fit_keeping keeps the weights of a log row, at a multiple of log_every "
            f"({optimisation.log_every}) up to steps ({optimisation.steps}); given {at}"
        )
    folder = RunDir(run.path / f"step{at}")

    def keep(step: int, _: Mapping[str, Any]) -> Mapping[str, Any]:
        if step == at:
            folder.save_checkpoint(step, stack.parameters, {})
        return {}

    fit(run, stack, task, optimisation, seeds, watch=keep, **more)
    kept = branch([(stack, index) for index in range(len(stack))])
    read_weights(folder, kept)
    return kept
