"""The arms of the write-up's phase 4: what each adds to its loss, and how all are trained.

Several of them are one algorithm: a term of constant value has no gradient, and an anchor that is
only logged has none either. Their differences are the noise floor of all others.

Source: "The Conservation of Separability", phase 4 (metastability, lambda sweep, factorial).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformer_lens.model_bridge import TransformerBridge

from ...runs import RunDir
from ..fit import Optimisation, Penalty, cross_entropy, fit
from ..stack import Stack
from ..tasks import Task
from .drift_runs import part_names
from .metastability import GOOD

Residual = Float[Tensor, "run batch d_model"]
_KEPT = 0.99  # of the moving average, a step


@dataclass(frozen=True)
class Arm:
    """What is added to a run's cross-entropy; r is what the final norm gives at the last position.

    Args:
        itself: weight of ``|mean_b cos(stopgrad r_b, r_b)|``, which is 1 whatever r is.
        average: weight of ``|cos(m, mean_b r_b)|``, m the moving average of the second.
        anchor: weight of ``|mean_b cos(a_b, r_b)|``, a of the network that the runs began as.
    """

    itself: float = 0.0
    average: float = 0.0
    anchor: float = 0.0


def itself_term(r: Residual) -> Float[Tensor, " run"]:
    """``|mean_b cos(stopgrad r_b, r_b)|``: 1, with a gradient of 0 but for rounding."""
    return F.cosine_similarity(r.detach(), r, dim=-1).mean(-1).abs()


def average_term(r: Residual, average: Float[Tensor, "run d_model"]) -> Float[Tensor, " run"]:
    """``|cos(m, mean_b r_b)|``; 0 while the average m is 0."""
    return F.cosine_similarity(average, r.mean(1), dim=-1).abs()


def anchor_term(r: Residual, anchor: Residual) -> Float[Tensor, " run"]:
    """``|mean_b cos(a_b, r_b)|``, as the write-up's orthogonality penalty."""
    return F.cosine_similarity(anchor.detach(), r, dim=-1).mean(-1).abs()


def arm_penalty(
    arms: Sequence[Arm],
    anchor: Stack,
    average: Float[Tensor, "run d_model"],
    ramp: tuple[int, int],
) -> Penalty:
    """The penalty of :func:`~probekit.training.fit` for a stack with one run an arm.

    Args:
        anchor: a stack of one run, which stays as it is.
        average: zeros; changed in place, pass it to ``fit`` as ``state`` too.
        ramp: steps at which the weights begin to rise from 0 and reach their full size.
    """
    itself, averages, anchors = (
        torch.tensor([getattr(arm, term) for arm in arms])
        for term in ("itself", "average", "anchor")
    )
    anchored = [index for index, arm in enumerate(arms) if arm.anchor]
    begin, full = ramp

    def penalty(step: int, tokens: Tensor, final: Tensor) -> Tensor:
        r, weight = final[:, :, -1], min(max((step - begin) / (full - begin), 0.0), 1.0)
        added = itself * itself_term(r) + averages * average_term(r, average)
        with torch.no_grad():
            average.mul_(_KEPT).add_((1 - _KEPT) * r.mean(1))
        for index in anchored:
            with torch.no_grad():
                there = anchor.final(tokens if tokens.ndim == 2 else tokens[index])[:, :, -1]
            own = F.one_hot(torch.tensor(index), len(arms))
            added = added + own * anchors[index] * anchor_term(r[index : index + 1], there)
        return weight * added

    return penalty


def term_gradients(
    stack: Stack, anchor: Stack, tokens: Int[Tensor, "batch pos"], labels: Int[Tensor, "batch 1"]
) -> dict[str, float]:
    """The gradient norm of each term of weight 1, as a fraction of the cross-entropy's.

    By the parameters that are trained.
    Of the first run; the moving average is that of the anchor.
    """
    own = [p for p in stack.parameters.values() if p.requires_grad]
    final = stack.final(tokens)
    r = final[:, :, -1]
    with torch.no_grad():
        there = anchor.final(tokens)[:1, :, -1]
    terms = {
        "cross-entropy": cross_entropy(stack.unembed(final), labels)[0],
        "itself": itself_term(r)[0],
        "average": average_term(r[:1], there.mean(1))[0],
        "anchor": anchor_term(r[:1], there)[0],
    }

    def norm(term: Tensor) -> float:
        found = torch.autograd.grad(term, own, retain_graph=True, allow_unused=True)
        return float(sum(g.double().square().sum() for g in found if g is not None)) ** 0.5

    norms = {name: norm(term) for name, term in terms.items()}
    whole = norms.pop("cross-entropy")
    return {name: value / whole for name, value in norms.items()}


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
    young, stack = Stack([model]), Stack([model] * len(arms))
    average = torch.zeros(len(arms), model.cfg.d_model)
    ramp = optimisation.steps // 10, optimisation.steps // 5
    fit(
        run,
        stack,
        task,
        optimisation,
        [1_000 * (1 + index) + seed for index in range(len(arms))],
        frozen=part_names(model)["QKV"],
        penalty=arm_penalty([*arms.values()], young, average, ramp),
        state={"average": average},
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
    return {"logs": logs, "gradients": term_gradients(stack, young, tokens, labels)}
