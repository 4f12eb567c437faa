"""What an optimizer that starts afresh does to a trained network: step sizes, and who follows.

Adam's step is ``lr m / (sqrt(v) + eps)`` with both averages corrected for their start at 0. At the
first step the corrected averages are g and g^2, so that every coordinate moves by
``lr |g| / (|g| + eps)``: lr, whatever the gradient, and ``lr sqrt(n)`` for n parameters together.
A trained network has gradients near 0, and an optimizer that was kept takes far shorter steps.

Read more: Kingma & Ba 2015, "Adam", https://arxiv.org/abs/1412.6980, section 2.1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...hooked.load import random_twin
from ...hooked.model import HookedModel, load_weights, weights
from ...runs import RunDir, restore_optimizer
from ..drift import parameter_distance
from ..fit import Optimisation, cross_entropy, read_logits, scores
from ..loop import train
from ..stack import Stack
from ..stacked_adamw import StackedAdamW
from ..tasks import Labels, ModularTask, Task, Tokens

_AVERAGES = (".exp_avg", ".exp_avg_sq")


@dataclass(frozen=True)
class WholeBatches(ModularTask):
    """Modular addition, every batch of which is the whole training set."""

    @cached_property
    def _whole(self) -> tuple[Tokens, Labels]:
        return self.encode(self.pairs()[0])

    def batch(self, generator: np.random.Generator, size: int) -> tuple[Tokens, Labels]:
        """All training pairs, whatever is asked for."""
        return self._whole


def first_step_share(gradient: Float[Tensor, " parameter"], eps: float = 1e-8) -> float:
    """Length of the first step of a fresh Adam over ``lr sqrt(n)``: 1 but for gradients near eps.

    ``sqrt(mean((|g| / (|g| + eps))^2))``.

    Example:
        >>> round(first_step_share(torch.tensor([3.0, -1e-3, 0.0, 1e-8])), 3)
        0.75
    """
    size = gradient.double().abs()
    return float((size / (size + eps)).square().mean().sqrt())


def first_steps(model: HookedModel, task: Task) -> dict[str, float]:
    """What a fresh Adam's first step on the first batch will be: ``closed form``, ``near eps``.

    The second is the share of coordinates whose gradient is below 1e-7, and whose step is
    therefore shorter than lr.
    """
    stack = Stack([model])
    tokens, labels = task.batch(np.random.default_rng([0, 0]), 1)
    loss = cross_entropy(read_logits(stack, tokens, labels.shape[-1]), labels).sum()
    gradients = torch.autograd.grad(loss, list(stack.parameters.values()))
    every = torch.cat([each.flatten() for each in gradients])
    return {
        "closed form": first_step_share(every),
        "near eps": float((every.abs() < 1e-7).double().mean()),
    }


@torch.no_grad()
def kicked(model: HookedModel, size: float, seed: int) -> HookedModel:
    """A copy, every parameter moved by ``+size`` or ``-size`` at random.

    As long a step as a fresh Adam's first, in a direction that knows nothing.
    """
    twin, drawn = random_twin(model, 0), torch.Generator().manual_seed(2**31 + seed)
    signs = {
        name: torch.randint(0, 2, p.shape, generator=drawn) * 2.0 - 1
        for name, p in weights(model).items()
    }
    load_weights(twin, {name: p + size * signs[name] for name, p in weights(model).items()})
    return twin


def follow(
    run: RunDir,
    stack: Stack,
    task: Task,
    optimisation: Optimisation,
    rates: Callable[[int], Float[Tensor, " run"]],
    kept: Mapping[str, Tensor] | None = None,
    **where: Any,
) -> None:
    """Train runs of one network on, each with a learning rate a step; all see the same batches.

    A row of ``metrics.jsonl`` holds validation scores, and ``step_share``: the length of the step
    before it, without weight decay's part, over ``optimisation.lr * sqrt(parameters)``.

    Args:
        rates: by step.
        kept: a checkpoint's tensors, for all runs to begin with its optimizer; None: afresh.
        where: title and position of the progress bar.

    Raises:
        RunError: a checkpoint of another model, or a folder of another run.
    """
    run.start({"task": repr(task), **vars(optimisation), "kept": kept is not None})
    if run.done:
        return
    own, n = stack.parameters, sum(p[0].numel() for p in stack.parameters.values())
    decay, runs = optimisation.weight_decay, len(stack)
    optimizer = StackedAdamW(list(own.values()), lr=rates(0), weight_decay=decay)
    if kept is not None:
        restore_optimizer(optimizer, {name: _for_all(name, t, runs) for name, t in kept.items()})
    state = {"last step": torch.zeros(runs, dtype=torch.float64)}

    def update(step: int) -> None:
        tokens, labels = task.batch(np.random.default_rng([0, step]), optimisation.batch)
        rate = rates(step)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        cross_entropy(read_logits(stack, tokens, labels.shape[-1]), labels).sum().backward()
        shrunk = {name: _shrunk(p, 1 - rate * decay) for name, p in own.items()}
        optimizer.step()
        moved = parameter_distance(own, shrunk, list(own), stacked=True)
        state["last step"].copy_(moved / (optimisation.lr * n**0.5))

    def log(step: int) -> dict[str, Any]:
        share = state["last step"] if step else torch.full((runs,), torch.nan)
        return {"step": step, **scores(stack, *task.validation()), "step_share": share}

    train(
        run,
        stack,
        optimizer,
        steps=optimisation.steps,
        update=update,
        log=log,
        log_every=optimisation.log_every,
        checkpoint_every=max(100, optimisation.log_every),
        state=state,
        **where,
    )
    run.write_json("summary.json", {"steps": optimisation.steps})


def read_branch(run: RunDir, number: int) -> dict[str, Any]:
    """One of the runs of :func:`follow`, of which every step is logged.

    ``accuracy`` and ``step_share`` by step; ``final``, ``lowest`` (after the first step), ``fall``
    (what the first step costs) and ``first step`` (its share).
    """
    accuracy, share = (
        [row[what][number] for row in run.rows()] for what in ("accuracy", "step_share")
    )
    return {
        "accuracy": accuracy,
        "step_share": share,
        "final": accuracy[-1],
        "lowest": min(accuracy[1:]),
        "fall": accuracy[0] - accuracy[1],
        "first step": share[1],
    }


def _for_all(name: str, tensor: Tensor, runs: int) -> Tensor:
    """An average of one run, for each of several."""
    return tensor.expand(runs, *tensor.shape[1:]) if name.endswith(_AVERAGES) else tensor


def _shrunk(parameter: Tensor, factor: Float[Tensor, " run"]) -> Tensor:
    return parameter.detach() * factor.view(-1, *[1] * (parameter.ndim - 1))
