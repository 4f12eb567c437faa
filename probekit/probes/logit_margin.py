"""LogitMargin: by how much the target's logit exceeds the best of the others."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ProbekitError
from .targets import TargetProbe


@dataclass(frozen=True)
class LogitMargin(TargetProbe):
    """``logit_true - max over k != true of logit_k``, averaged over counted positions.

    Positive where the prediction is right, 0 at the decision boundary. In the units of the
    logits, which are nats up to a constant: a margin m bounds the odds against the runner-up by
    e^m. It misleads across models or steps whose logits differ in scale: twice the unembedding
    is twice the margin at the same predictions. And a mean hides its sign: read
    :class:`Accuracy` beside it. On padding see there too.

    Args: see :class:`~probekit.probes.targets.TargetProbe`.

    Returns (as a Measurement):
        a scalar, dims ``()``, over all counted positions of all forwards.
        ``rows`` holds the same by position. The null is the mean margin expected when the labels
        are shuffled among all counted positions of all forwards, in closed form from the number
        of times that each label occurs: below 0 unless a few labels make up most of them.

    Raises:
        SiteError: the model has no logits, or embeds no tokens; ProbekitError: targets of another
        shape, or beyond the classes; fewer than two classes; when read, no position was counted.
    """

    source: ClassVar[str] = "The Conservation of Separability, margin M; Crammer and Singer 2001"
    null_name: ClassVar[str] = "labels shuffled among the counted positions"
    units: ClassVar[str] = "logits"

    def score(
        self, logits: Float[Tensor, "row vocab"], labels: Int[Tensor, " row"]
    ) -> tuple[Tensor, Float[Tensor, " vocab"]]:
        if logits.shape[-1] < 2:
            raise ProbekitError("LogitMargin compares two classes or more; these logits have one")
        top = logits.topk(2)
        best, second = top.values.double().unbind(-1)
        winner = top.indices[:, 0]
        own = logits.gather(-1, labels[:, None])[:, 0].double()
        lead = torch.where(labels == winner, own - second, own - best)
        # Label c would read logit_c - best in every row, plus the gap where c itself is the best.
        by_label = logits.sum(0, dtype=torch.float64) - best.sum()
        return lead, by_label.index_add(0, winner, best - second)
