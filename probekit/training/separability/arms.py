"""The arms of the write-up's phase 4: what each adds to its loss, and how all are trained.

Several of them are one algorithm: a term of constant value has no gradient, and an anchor that is
only logged has none either. Their differences are the noise floor of all others.

Source: "The Conservation of Separability", phase 4 (metastability, lambda sweep, factorial).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...runs import RunDir
from ..fit import Optimisation, Penalty, cross_entropy, fit
from ..stack import Stack
from ..tasks import Task
from .anchoring import AnchorPenalty, AveragePenalty, Ramp, penalty_gradient, sequence_cosine
from .drift_runs import part_names
from .metastability import GOOD

Final = Float[Tensor, "run batch read d_model"]
Tokens = Int[Tensor, "*run batch pos"]
TERMS = ("itself", "average", "anchor")


@dataclass(frozen=True)
class Arm:
    """What is added to a run's cross-entropy, and its full weight.

    ``itself`` is ``|mean cos(r, r)|`` with one r detached, ``average`` the cosine with r's moving
    average, ``anchor`` that with the network that the runs began as; None adds nothing.
    """

    term: Literal["itself", "average", "anchor"] | None = None
    weight: float = 0.3


@dataclass(frozen=True, eq=False)
class ItselfPenalty:
    """``weight(step) * |mean cos(stopgrad r, r)|``, of some runs: 1 whatever r is.

    Its gradient is 0 but for rounding, so that the weight changes nothing. The write-up's lambda
    sweep has it.
    """

    runs: Sequence[int]
    weight: Callable[[int], float]

    def __call__(self, step: int, tokens: Tokens, final: Final) -> Float[Tensor, " run"]:
        runs = [*self.runs]
        cosines = sequence_cosine(final[runs], final[runs].detach()).abs()
        added = final.new_zeros(len(final))
        return added.index_put((torch.tensor(runs),), self.weight(step) * cosines)


def arm_penalties(
    arms: Sequence[Arm], model: TransformerBridge, ramp: Callable[[float], Ramp]
) -> tuple[list[Penalty], dict[str, Tensor]]:
    """The penalties of a stack with one run an arm, and the state that they keep.

    Args:
        model: the anchor; it is copied.
        ramp: from a full weight to the weight by step.
    """
    penalties: list[Penalty] = []
    state: dict[str, Tensor] = {}
    for run, arm in enumerate(arms):
        if arm.term == "itself":
            penalties.append(ItselfPenalty([run], ramp(arm.weight)))
        elif arm.term == "anchor":
            penalties.append(AnchorPenalty(Stack([model]), [run], ramp(arm.weight)))
        elif arm.term == "average":
            average = state[f"average.{run}"] = torch.zeros(len(arms), model.cfg.d_model)
            penalties.append(AveragePenalty(average, [run], ramp(arm.weight)))
    return penalties, state


def term_gradients(
    stack: Stack, model: TransformerBridge, tokens: Int[Tensor, "batch pos"], labels: Tensor
) -> dict[str, float]:
    """The gradient norm of each term of weight 1, as a fraction of the cross-entropy's.

    Of the stack's first run, by the parameters that are trained. The moving average is that of
    the anchor.

    Args:
        model: the anchor.
    """
    anchor, read = Stack([model]), labels.shape[-1]
    with torch.no_grad():
        average = anchor.final(tokens, read).mean((1, 2)).expand(len(stack), -1).clone()

    def one(_: int) -> float:
        return 1.0

    def whole(step: int, tokens: Tensor, final: Tensor) -> Tensor:
        return cross_entropy(stack.unembed(final), labels)

    penalties: dict[str, Penalty] = {
        "itself": ItselfPenalty([0], one),
        "average": AveragePenalty(average, [0], one),
        "anchor": AnchorPenalty(anchor, [0], one),
        "cross-entropy": whole,
    }
    norms = {
        name: float(penalty_gradient(stack, penalty, 0, tokens, read)[0])
        for name, penalty in penalties.items()
    }
    return {term: norms[term] / norms["cross-entropy"] for term in TERMS}


def critical(accuracies: Sequence[float]) -> bool:
    """The write-up's critical period: two good logs in a row, when the task is generalised."""
    return len(accuracies) > 1 and min(accuracies[-2:]) >= GOOD


def train_arms(
    run: RunDir,
    model: TransformerBridge,
    arms: Mapping[str, Arm],
    task: Task,
    optimisation: Optimisation,
    seed: int,
    **where: Any,
) -> dict[str, Any]:
    """Train each arm from ``model``, with Q, K and V frozen as published.

    Each arm draws batches of its own, or arms of one algorithm would be one run. The penalties'
    weights rise between a tenth and a fifth of the steps.

    Args:
        where: title and position.

    Returns:
        ``logs``, by arm the ``steps`` and each one's ``accuracy``; and ``gradients``, the
        :func:`term_gradients` where the first arm ends.
    """
    stack, tenth = Stack([model] * len(arms)), optimisation.steps // 10
    penalties, state = arm_penalties(
        [*arms.values()], model, lambda weight: Ramp(weight, tenth, tenth)
    )

    def penalty(step: int, tokens: Tensor, final: Tensor) -> Tensor:
        return sum((each(step, tokens, final) for each in penalties), final.new_zeros(len(final)))

    fit(
        run,
        stack,
        task,
        optimisation,
        [1_000 * (1 + index) + seed for index in range(len(arms))],
        frozen=part_names(model)["QKV"],
        penalty=penalty,
        state=state,
        **where,
    )
    rows = run.rows()
    logs = {
        arm: {
            "steps": [row["step"] for row in rows],
            "accuracy": [row["accuracy"][index] for row in rows],
        }
        for index, arm in enumerate(arms)
    }
    tokens, labels = task.batch(np.random.default_rng(seed), optimisation.batch)
    return {"logs": logs, "gradients": term_gradients(stack, model, tokens, labels)}
