"""Penalties on how alike a residual stream is to another: an anchor network's, or its own average.

"Orthogonality": ``|mean over examples of cos(r, r_anchor)|``, with r the mean over the positions
that are read of what the final norm gives. The anchor does not learn, and no gradient reaches it.
Such a cosine can be brought to 0 without changing what a network computes
(:func:`~probekit.geometry.gauge_rotation`), and between unrelated networks it is about 0 anyway.

Source: "The Conservation of Separability", phases 4 and 5, which read the residual before the final
norm; what the unembedding reads is what :func:`~probekit.training.fit` hands over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ...errors import ProbekitError
from ..fit import Penalty
from ..stack import Stack

Final = Float[Tensor, "run batch read d_model"]
Tokens = Int[Tensor, "*run batch pos"]


def sequence_cosine(
    final: Final, there: Float[Tensor, "#run batch read d_model"]
) -> Float[Tensor, " run"]:
    """``mean over examples of cos(r, r')`` a run, each r a mean over positions.

    0 for orthogonal and for unrelated residuals (standard deviation up to ``1 / sqrt(d_model)``,
    where the examples' residuals share one direction), 1 for equal ones.
    """
    return F.cosine_similarity(final.mean(2), there.mean(2), dim=-1).mean(-1)


@dataclass(frozen=True)
class Ramp:
    """A weight that is 0 before ``begin`` and grows to ``full`` over ``length`` steps.

    Raises:
        ProbekitError: begin or length below 1.

    Example:
        >>> [Ramp(0.3, 10, 10)(step) for step in (10, 15, 99)]
        [0.0, 0.15, 0.3]
    """

    full: float
    begin: int
    length: int

    def __post_init__(self) -> None:
        if min(self.begin, self.length) < 1:
            raise ProbekitError(
                f"a ramp begins at step 1 at least and is 1 long, not {self.begin} and "
                f"{self.length}; give the published quarter of all steps"
            )

    def __call__(self, step: int) -> float:
        return self.full * min(1.0, max(0.0, (step - self.begin) / self.length))


@dataclass(frozen=True, eq=False)
class AnchorPenalty:
    """``weight(step) * |sequence_cosine|`` with frozen networks, of some runs of a stack.

    Args:
        anchor: one network a penalised run.
        runs: which runs of the trained stack are penalised, in the anchor's order.
        attached: False is the released code, which detaches what it reads: there is no gradient.
    """

    anchor: Stack
    runs: Sequence[int]
    weight: Callable[[int], float]
    attached: bool = True

    def __call__(self, step: int, tokens: Tokens, final: Final) -> Float[Tensor, " run"]:
        added, weight, runs = final.new_zeros(len(final)), self.weight(step), [*self.runs]
        if not weight:
            return added
        own = final[runs] if self.attached else final[runs].detach()
        seen = tokens[runs] if tokens.ndim == 3 else tokens
        with torch.no_grad():
            there = self.anchor.final(seen, final.shape[2])
        cosines = sequence_cosine(own, there).abs()
        return added.index_put((torch.tensor(runs),), weight * cosines)


@dataclass(frozen=True, eq=False)
class AveragePenalty:
    """``weight(step) * |cos(r, average of r)|``, r the mean over the batch, of some runs.

    The write-up's EMA arm, which it lists as unpenalised.

    Args:
        average: ``[run, d_model]``, of all runs, zeros at first; it is changed in place, so hand it
            to :func:`~probekit.training.fit` as ``state``.
        keep: of the average at each step.
    """

    average: Float[Tensor, "run d_model"]
    runs: Sequence[int]
    weight: Callable[[int], float]
    keep: float = 0.99

    def __call__(self, step: int, tokens: Tokens, final: Final) -> Float[Tensor, " run"]:
        own, added, weight = final.mean((1, 2)), final.new_zeros(len(final)), self.weight(step)
        if weight:
            cosines = F.cosine_similarity(own, self.average.clone(), dim=-1).abs()
            chosen = torch.tensor([*self.runs])
            added = added.index_put((chosen,), weight * cosines[chosen])
        self.average.lerp_(own.detach(), 1 - self.keep)
        return added


def penalty_gradient(
    stack: Stack, penalty: Penalty, step: int, tokens: Tokens, read: int
) -> Float[Tensor, " run"]:
    """The norm of a penalty's gradient in what is trained, a run each; exactly 0 where it has none.

    Args:
        step: at which the penalty is asked.
        read: the last positions that are read.
    """
    parameters = [p for p in stack.parameters.values() if p.requires_grad]
    added = penalty(step, tokens, stack.final(tokens, read)).sum()
    if not added.requires_grad:
        return torch.zeros(len(stack))
    grads = torch.autograd.grad(added, parameters, allow_unused=True)
    norms = [grad.flatten(1).norm(dim=1) for grad in grads if grad is not None]
    return torch.stack(norms).norm(dim=0)
