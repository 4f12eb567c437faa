"""A training loop that may be killed at any step and ends with the same numbers all the same."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ..hooked.equilibrium_model import EquilibriumModel
from ..hooked.model import copy_into, weights
from ..runs import RunDir, optimizer_tensors, restore_optimizer
from .stack import Stack


def train(
    run: RunDir,
    model: TransformerBridge | EquilibriumModel | Stack | Mapping[str, Tensor],
    optimizer: Optimizer,
    *,
    steps: int,
    update: Callable[[int], None],
    log: Callable[[int], Mapping[str, Any]],
    log_every: int,
    checkpoint_every: int,
    title: str,
    position: int,
    stop: Callable[[], bool] | None = None,
    state: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Call ``update(step)`` for steps 0 to ``steps - 1``, going on from the last checkpoint.

    ``log(step)`` sees the model as it is before that step's update, and once more at the end; its
    row goes to ``metrics.jsonl``. ``update`` must depend on the step, the model and the optimizer
    only: draw random numbers from a generator seeded by the step.

    Args:
        model: what a checkpoint holds: a model's weights, or tensors by name.
        stop: asked after each log whether the run ends here, with the checkpoint that precedes the
            log: let ``checkpoint_every`` be ``log_every``.
        state: further tensors that ``update`` or ``log`` keep, changed in place: they are saved
            with each checkpoint and restored with it. Names other than the model's.

    Raises:
        RunError: the checkpoint in ``run`` is damaged or of another model.
    """
    own = {**_tensors(model), **state}
    begin = _resume(run, own, optimizer)
    bar = tqdm(
        range(begin, steps + 1),
        title,
        initial=begin,
        total=steps + 1,
        position=position,
        mininterval=1,
        leave=False,
    )
    for step in bar:
        if step > begin and (step % checkpoint_every == 0 or step == steps):
            run.save_checkpoint(step, {**own, **optimizer_tensors(optimizer)}, {})
        if step % log_every == 0:
            with torch.no_grad():
                run.append(log(step))
            if stop is not None and stop():
                break
        if step < steps:
            update(step)


def _tensors(
    model: TransformerBridge | EquilibriumModel | Stack | Mapping[str, Tensor],
) -> Mapping[str, Tensor]:
    if isinstance(model, Mapping):
        return model
    return model.parameters if isinstance(model, Stack) else weights(model)


def _resume(run: RunDir, own: Mapping[str, Tensor], optimizer: Optimizer) -> int:
    saved = run.load_checkpoint()
    if saved is None:
        run.truncate(-1)
        return 0
    step, tensors, _ = saved
    copy_into(own, {name: t for name, t in tensors.items() if name in own})
    restore_optimizer(optimizer, tensors)
    run.truncate(step - 1)
    return step
