"""Train runs until each has got somewhere, and keep each as it was when it did.

For experiments that begin at an event (validation accuracy of 99 %, the end of a "critical
period"), which every seed reaches at a step of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..runs import RunDir
from .fit import Optimisation, fit
from .stack import Stack
from .tasks import Task


def fit_until(
    run: RunDir,
    stack: Stack,
    task: Task,
    optimisation: Optimisation,
    seeds: Sequence[int],
    reached: Callable[[Sequence[float]], bool],
    **more: Any,
) -> list[int | None]:
    """:func:`fit` a stack until all of its runs have ``reached`` what is asked for.

    The stack is left with each run's weights of that log, though a run that is early goes on until
    the last is there; runs that have not reached it after ``optimisation.steps`` have their last.
    What each reached lies in the folder ``reached``, so that a killed run goes on.

    Args:
        reached: asked at each log of a run's validation accuracies so far, this one last.
        more: title, position and whatever else :func:`fit` takes, but watch and stop.

    Returns:
        the step at which each run reached it, or None.

    Raises:
        RunError: see :func:`fit`.
    """
    folder = RunDir(run.path / "reached")
    saved = folder.load_checkpoint()
    kept = saved[1] if saved else {n: p.detach().clone() for n, p in stack.parameters.items()}
    steps: list[int | None] = saved[2]["steps"] if saved else [None] * len(stack)

    def watch(step: int, row: Mapping[str, Any]) -> Mapping[str, Any]:
        logs = [*(earlier["accuracy"] for earlier in run.rows()), row["accuracy"]]
        for index in range(len(stack)):
            if steps[index] is None and reached([float(log[index]) for log in logs]):
                steps[index] = step
                for name, parameter in stack.parameters.items():
                    kept[name][index] = parameter[index]
                folder.save_checkpoint(step, kept, {"steps": steps})
        return {}

    def everywhere() -> bool:
        return None not in steps

    fit(run, stack, task, optimisation, seeds, watch=watch, stop=everywhere, **more)
    with torch.no_grad():
        for name, parameter in stack.parameters.items():
            for index, step in enumerate(steps):
                if step is not None:
                    parameter[index] = kept[name][index]
    return steps
