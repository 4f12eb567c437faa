"""How far a learning-rate schedule can carry alpha from where it starts.

Adam moves a parameter by about the learning rate a step, whatever the size of the gradient. So the
end of ``alpha = sigmoid(logit)`` depends on its start and on the sum of the rates, and a published
end far beyond that was not reached by that schedule. Under a gradient of one sign and one size the
reach is exact. It is no strict bound: while gradients grow Adam's step is longer than the rate. In
the recipe ``lerp-training`` logits travel up to a fifth further.

Source: "Geometric Terrain Analysis", S9, and its critique, section B11.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..checks import check_from_zero, check_share, check_sizes
from ..errors import ProbekitError


@dataclass(frozen=True)
class Reach:
    """Where alpha can end: ``low`` and ``high`` if all steps agree, ``drift`` by decay alone."""

    start: float
    low: float
    drift: float
    high: float

    def holds(self, alpha: float) -> bool:
        """Whether an alpha lies between the two ends."""
        return self.low <= alpha <= self.high


def alpha_reach(
    start: float | int, rates: Sequence[float], weight_decay: float | int = 0.01
) -> Reach:
    """What AdamW can make of alpha's logit ``l`` in ``len(rates)`` steps of length ``rates``.

    ``l <- (1 - w r) l -+ r`` ends, with ``k = prod(1 - w r)``, at ``k l -+ (1 - k) / w``: without
    weight decay at ``l -+ sum(rates)``.

    Args:
        start: alpha in (0, 1) before the first step.
        rates: the learning rate of every step, as of :func:`cosine_rates`.
        weight_decay: w, decoupled; as published it acts on alpha's logit too and pulls it to 0,
            alpha to a half.

    Raises:
        ProbekitError: a start whose logit is infinite, rates or a decay that are negative or not
            finite, or their product at 1 or more.
    """
    check_share("start", start)
    if start in (0, 1):
        raise ProbekitError(f"start={start} has an infinite logit, which no step moves")
    check_from_zero("weight_decay", weight_decay)
    for rate in rates:
        check_from_zero("a rate", rate)
        if weight_decay * rate >= 1:
            raise ProbekitError(f"weight_decay={weight_decay} at rate {rate} leaves no logit")
    shrunk = math.fsum(math.log1p(-weight_decay * rate) for rate in rates)
    travel = -math.expm1(shrunk) / weight_decay if weight_decay else math.fsum(rates)
    drift = math.exp(shrunk) * math.log(start / (1 - start))
    return Reach(start, *(_sigmoid(drift + sign * travel) for sign in (-1, 0, 1)))


def cosine_rates(lr: float, epochs: int, batches: int) -> list[float]:
    """The published schedule: cosine annealing to 0, stepped once an epoch, a rate a batch.

    ``lr (1 + cos(pi e / epochs)) / 2`` in epoch e. Published: 1e-3, 10 epochs of 264 batches, whose
    rates sum to 1.452.

    Raises:
        ProbekitError: a negative rate, or a count below 1.
    """
    check_from_zero("lr", lr)
    check_sizes(epochs=epochs, batches=batches)
    each = [lr * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs)]
    return [rate for rate in each for _ in range(batches)]


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > 0 else math.exp(logit) / (1 + math.exp(logit))
