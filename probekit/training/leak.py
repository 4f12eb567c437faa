"""Is the answer among the inputs? A detector that is told neither the mask nor the task.

Two signs, either of which suffices. The label stands among the tokens at the read-out position or
after it, at one distance in every example, and the prediction there depends on that token. Or the
accuracy is above what any causal predictor can reach.
"""

from collections.abc import Callable
from dataclasses import dataclass

import scipy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import ProbekitError

_SURPRISE = 1e-3  # p-value below which an accuracy above the ceiling is no luck
_MOVED = 0.05  # share of predictions that must depend on the label's token
_TRIED = 100  # examples in which it is replaced
_ENOUGH = 10  # right predictions, for a share of them to mean something


@dataclass(frozen=True)
class Leak:
    """What :func:`find_leak` found.

    Attributes:
        accuracy: share of labels predicted.
        ceiling: what a causal predictor can reach; None where unknown.
        above_ceiling: one-sided binomial p-value of that accuracy at the ceiling; None likewise.
        distance: how many positions after the read-out position the label stands; None if nowhere.
        dependence: share of right predictions that turn wrong when that token is replaced, at the
            read-out position where that share is largest.
    """

    accuracy: float
    ceiling: float | None
    above_ceiling: float | None
    distance: int | None
    dependence: float

    @property
    def found(self) -> bool:
        """Whether the answer is among the inputs, and used; or the accuracy cannot be honest."""
        lucky = self.above_ceiling is None or self.above_ceiling >= _SURPRISE
        return not lucky or self.dependence > _MOVED

    def __str__(self) -> str:
        if not self.found:
            return "no leak found"
        signs = []
        if self.dependence > _MOVED:
            signs.append(
                f"the label is the input token {self.distance} after the one it is read at, and "
                f"up to {self.dependence:.0%} of right predictions depend on it"
            )
        if self.above_ceiling is not None and self.above_ceiling < _SURPRISE:
            signs.append(f"accuracy {self.accuracy:.4f} is above the ceiling {self.ceiling:.4f}")
        return "leak: " + "; ".join(signs)


@torch.no_grad()
def find_leak(
    predict: Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch read d_vocab"]],
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch read"],
    *,
    ceiling: float | None = None,
    seed: int = 0,
) -> Leak:
    """Look for the label among the inputs that its prediction should not need.

    Args:
        predict: logits of the last ``read`` positions.
        labels: of the last ``read`` positions.
        ceiling: the accuracy that a causal predictor can reach (fraction).

    Raises:
        ProbekitError: more labels than positions, or fewer than two examples.
    """
    (batch, length), read = tokens.shape, labels.shape[1]
    if read > length or batch < 2:
        raise ProbekitError(
            f"find_leak needs two examples and at most as many labels as positions; given "
            f"tokens {tuple(tokens.shape)} and labels {tuple(labels.shape)}"
        )
    right = predict(tokens).argmax(-1) == labels
    accuracy, above = float(right.double().mean()), None
    if ceiling is not None:
        above = float(scipy.stats.binom.sf(int(right.sum()) - 1, right.numel(), ceiling))
    found = [
        (_dependence(predict, tokens[:_TRIED], right[:_TRIED], distance, seed), distance)
        for distance in range(read)
        if torch.equal(tokens[:, length - read + distance :], labels[:, : read - distance])
    ]
    dependence, distance = max(found, default=(0.0, None))
    return Leak(accuracy, ceiling, above, distance, dependence)


def _dependence(
    predict: Callable[[Tensor], Tensor],
    tokens: Int[Tensor, "batch pos"],
    right: Bool[Tensor, "batch read"],
    distance: int,
    seed: int,
) -> float:
    """Largest share of right predictions that turn wrong when the token ``distance`` on changes."""
    (batch, length), read = tokens.shape, right.shape[1]
    generator = torch.Generator().manual_seed(seed)
    known = tokens.unique()
    shares = [0.0]
    for reader in range(read - distance):
        place = length - read + reader + distance
        edited = tokens.clone()
        edited[:, place] = known[torch.randint(len(known), (batch,), generator=generator)]
        before = right[:, reader] & (edited[:, place] != tokens[:, place])
        after = predict(edited)[:, reader].argmax(-1) == tokens[:, place]
        if before.sum() >= _ENOUGH:
            shares.append(float((before & ~after).sum() / before.sum()))
    return max(shares)
