"""Two networks of one task from different seeds, and forks of the first: what hybrids are made of.

A fork shares its start with A and sees other batches. If the two still fit into each other, what
keeps independent networks apart was settled by the start and not by what was learned.

Read more: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis",
https://arxiv.org/abs/1912.05671.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import RunError
from ...hooked.model import HookedModel, weights
from ...runs import RunDir
from ..fit import Optimisation, fit, read_weights
from ..stack import Stack
from ..tasks import Task


@dataclass(frozen=True, eq=False)
class TrainedPair:
    """Network ``a``, and what may be put into it.

    Attributes:
        b: trained from another seed on other batches.
        fork: from a's initial weights, on b's batches.
        late_fork: from a's weights halfway, on the first half of b's batches, with an optimizer
            that starts afresh.
    """

    a: HookedModel
    b: HookedModel
    fork: HookedModel
    late_fork: HookedModel


def train_pair(
    run: RunDir,
    load: Callable[[int], HookedModel],
    task: Task,
    optimisation: Optimisation,
    pair: int,
    *,
    title: str,
    position: int,
) -> TrainedPair:
    """Train pair ``i``: seeds 2i (a) and 2i + 1 (b). May be killed, and goes on where it stopped.

    In ``metrics.jsonl`` a, b and fork are runs 0, 1 and 2; the late fork has a folder of its own.

    Args:
        load: from a seed to a network with its initial weights.

    Raises:
        RunError: the half of ``steps`` is at no log row.
    """
    half = optimisation.steps // 2
    if optimisation.steps % 2 or half % optimisation.log_every:
        raise RunError(
            f"train_pair forks halfway, at a log row: steps must be a multiple of 2 * log_every, "
            f"given {optimisation.steps} and {optimisation.log_every}"
        )
    own, other = 2 * pair, 2 * pair + 1
    a, b, fork, late = (load(seed) for seed in (own, other, own, own))
    stack, halfway = Stack([a, b, fork]), RunDir(run.path / "halfway")

    def keep(step: int, _: Any) -> Mapping[str, Any]:
        if step == half:
            stack.copy_to(0, late)
            halfway.save_checkpoint(step, weights(late), {})
        return {}

    where = {"title": title, "position": position}
    fit(run, stack, task, optimisation, [own, other, other], watch=keep, **where)
    read_weights(halfway, late)
    alone, rest = Stack([late]), replace(optimisation, steps=half)
    fit(RunDir(run.path / "late-fork"), alone, task, rest, [other], **where)
    for index, model in enumerate((a, b, fork)):
        stack.copy_to(index, model)
    alone.copy_to(0, late)
    return TrainedPair(a, b, fork, late)
