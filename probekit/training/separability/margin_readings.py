"""What a margin is made of: how long a network trained, its scale, and the number of its rivals.

Trained by cross-entropy a margin grows with every update, for the loss never gets to 0; it counts
logits, which a larger unembedding makes larger; and it is the lead over the best of ``d_vocab - 1``
others. None of these is how precisely the task has to be represented.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..fit import margins
from ..stack import Stack
from ..tasks import ModularTask
from .noise_response import falling_share

Readings = dict[str, Float[Tensor, " run"]]


@torch.no_grad()
def margin_readings(
    stack: Stack,
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch read"],
    there: int = -1,
) -> Readings:
    """Means over examples of what is read at one position, a number a run.

    ``accuracy_there`` and ``margin_there`` (logits). ``gap_there`` is ``|W_label - W_rival|``, the
    length of the difference of two rows of the unembedding, the rival being the best other token,
    and ``distance_there`` the margin over it: how far the final stream is from the boundary between
    the two, whatever the unembedding's scale (its offset counts as distance). ``spread_there`` is
    the standard deviation of the logits. ``norm`` is the mean L2 norm of the final norm's output
    over all positions that are read, the write-up's A, and ``gain`` that over ``sqrt(d_model)``,
    1 after a LayerNorm that has not been trained.

    Args:
        there: the position that is read alone.
    """
    at = there - tokens.shape[1] if there >= 0 else there
    final = stack.final(tokens, labels.shape[1])
    logits, label = stack.unembed(final[:, :, at : at + 1 or None])[:, :, 0], labels[:, at]
    label = label.expand(logits.shape[:-1])
    margin = margins(logits, label)
    rival = logits.scatter(-1, label[..., None], -torch.inf).argmax(-1)
    rows = zip(stack.parameters["head.weight"], label, rival, strict=True)
    gap = torch.stack([(w[one] - w[other]).norm(dim=-1) for w, one, other in rows])
    norm = final.norm(dim=-1).mean((1, 2))
    return {
        "accuracy_there": (margin > 0).double().mean(1),
        "margin_there": margin.mean(1),
        "gap_there": gap.mean(1),
        "distance_there": (margin / gap).mean(1),
        "spread_there": logits.std(-1).mean(1),
        "norm": norm,
        "gain": norm / final.shape[-1] ** 0.5,
    }


def updates_per_epoch(task: ModularTask, batch: int) -> int:
    """Updates in which every training pair is seen once, the last batch being smaller.

    Example:
        >>> [updates_per_epoch(ModularTask("sequence", p, 0.5), 64) for p in (7, 13, 41, 113, 227)]
        [1, 2, 14, 100, 403]
    """
    return -(-len(task.pairs()[0]) // batch)


def rising_shares(values: Sequence[Sequence[float]]) -> list[float]:
    """The share of steps from each setting to the next that go up, a number a seed.

    Args:
        values: by setting, in order, a number a seed.

    Example:
        >>> rising_shares([[1.0, 3.0], [2.0, 2.0], [3.0, 4.0]])
        [1.0, 0.5]
    """
    return [falling_share([-value for value in each]) for each in zip(*values, strict=True)]
