"""Are two networks two solutions, or one in two bases? Similarities that a basis changes, or not.

The cosine of two networks' residuals is 0 for unrelated networks, and for one network in another
basis (:func:`rotated`, the same logits). Whether they compute the same thing is in what no change
of basis touches: CKA, the cosine after the best rotation, the logits. All of these read high for
any two networks that are right, as far as the labels force them to; hold them against networks of
other seeds.

Read more: Kornblith et al. 2019, "Similarity of neural network representations revisited",
https://arxiv.org/abs/1905.00414.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...geometry import (
    cka,
    cosine_similarity,
    gauge_rotation,
    mean_example_cosine,
    procrustes,
)
from ...geometry.similarity import unit_rows
from ..fit import Penalty
from ..stack import Stack

Final = Float[Tensor, "run batch read d_model"]
_HELD_OUT = 0.2  # of the rows, the last, are held out of the rotation's fit


@dataclass(frozen=True, eq=False)
class Solution:
    """What one network gives on examples: what the unembedding reads, and the unembedding.

    Where several positions are read, each is a row of its own.
    """

    final: Float[Tensor, "row d_model"]
    unembed: Float[Tensor, "d_model d_vocab"]
    offset: Float[Tensor, " d_vocab"]

    @property
    def logits(self) -> Float[Tensor, "row d_vocab"]:
        return self.final.double() @ self.unembed.double() + self.offset


@torch.no_grad()
def read_solution(stack: Stack, run: int, tokens: Int[Tensor, "batch pos"], read: int) -> Solution:
    """One run of a stack on the last ``read`` positions of some tokens."""
    final, weight = stack.final(tokens, read)[run].flatten(0, 1), stack.parameters["head.weight"]
    offset = stack.parameters.get("head.bias", torch.zeros(weight.shape[:2]))
    return Solution(final, weight[run].detach().T, offset[run].detach())


def rotated(solution: Solution, seed: int) -> Solution:
    """The same function in another basis: :func:`~probekit.geometry.gauge_rotation`."""
    final, unembed = gauge_rotation(solution.final, solution.unembed, seed)
    return Solution(final, unembed, solution.offset)


def compare_solutions(
    one: Solution, other: Solution, labels: Int[Tensor, "batch read"]
) -> dict[str, float]:
    """How alike two networks are: in the native basis, and in whatever basis.

    ``cosine`` is the write-up's, of each row in the native basis, averaged; ``|cosine|`` averages
    its amount, which a mean of 0 may hide. ``linear CKA`` and ``aligned cosine`` (after the best
    rotation, on rows whose label it was not fitted on) need no basis; nor does ``wrong logits``,
    the correlation within a row of all logits but the label's, or ``agreement``, the share of rows
    with one prediction.
    """
    answers = labels.flatten()
    logits = one.logits, other.logits
    return {
        "cosine": mean_example_cosine(one.final, other.final),
        "|cosine|": float(cosine_similarity(one.final, other.final).abs().mean()),
        "linear CKA": cka(one.final, other.final),
        "aligned cosine": procrustes(one.final, other.final, test=_HELD_OUT).held_out or 0.0,
        "wrong logits": wrong_logit_correlation(*logits, answers),
        "agreement": float((logits[0].argmax(-1) == logits[1].argmax(-1)).double().mean()),
    }


def wrong_logit_correlation(
    one: Float[Tensor, "row d_vocab"], other: Float[Tensor, "row d_vocab"], labels: Tensor
) -> float:
    """Mean over rows of the correlation of two networks' logits, the label's left out.

    The label's own logit is what training forces to agree; how likely a network finds each wrong
    answer is its own affair. 0 for unrelated ones.
    """
    wrong = torch.ones_like(one, dtype=torch.bool).scatter(1, labels[:, None], False)
    rows = [logits[wrong].view(len(logits), -1) for logits in (one, other)]
    centred = [row - row.mean(-1, keepdim=True) for row in rows]
    return float((unit_rows(centred[0]) * unit_rows(centred[1])).sum(-1).mean())


def row_cosine(final: Final, there: Final) -> Float[Tensor, " run"]:
    """``|mean over rows of cos(r, r')|`` a run: the write-up's orthogonality penalty."""
    return torch.cosine_similarity(final, there, dim=-1).mean((1, 2)).abs()


def batch_cka(final: Final, there: Final) -> Float[Tensor, " run"]:
    """:func:`~probekit.geometry.cka` of a batch, a run each, with a gradient.

    As a penalty it asks for what "orthogonal" only seems to: no rotation lowers it.
    """
    x, y = (each.flatten(1, 2) for each in (final, there))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    xy, xx, yy = ((a.mT @ b).square().sum((1, 2)) for a, b in ((x, y), (x, x), (y, y)))
    return xy / (xx * yy).sqrt()


#: By what a penalised run is called: what is asked to be 0 between it and its anchor.
PENALTIES = {"cosine": row_cosine, "CKA": batch_cka}


def similarity_penalty(anchor: Stack, runs: Mapping[int, str], weight: float = 1.0) -> Penalty:
    """``weight * similarity`` of some runs of a stack with networks that do not learn.

    A run that starts as its anchor starts where both similarities are greatest: the penalty has no
    gradient until the loss has moved the run away.

    Args:
        anchor: a network for each of ``runs``, in their order.
        runs: by the number of a run the similarity that is to be 0, a name of PENALTIES.
    """

    def penalty(step: int, tokens: Int[Tensor, "*run batch pos"], final: Final) -> Tensor:
        with torch.no_grad():
            there = anchor.final(tokens[[*runs]] if tokens.ndim == 3 else tokens, final.shape[2])
        added = [final.new_zeros(1) for _ in final]
        for (run, name), one in zip(runs.items(), there, strict=True):
            added[run] = weight * PENALTIES[name](final[run : run + 1], one[None])
        return torch.cat(added)

    return penalty
