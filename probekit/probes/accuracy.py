"""Accuracy: how often the largest logit is the target's."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .targets import TargetProbe


@dataclass(frozen=True)
class Accuracy(TargetProbe):
    """Fraction of counted positions where the argmax of the logits is the target.

    It misleads where few classes make up most labels: always answering the commonest is then
    right that often, and the null says how often. It misleads on padding, which has tokens like
    any other: leave it out with a function such as
    ``lambda ids: ids.masked_fill(ids == pad, -100)``. Equal largest logits count for the one that
    torch's argmax returns.

    Args: see :class:`~probekit.probes.targets.TargetProbe`.

    Returns (as a Measurement):
        a scalar, dims ``()``, over all counted positions of all forwards.
        ``rows`` holds the same by position. The null is the accuracy expected under shuffled
        labels, in closed form: ``sum_c p(prediction = c) p(target = c)``.

    Raises:
        SiteError: the model has no logits, or embeds no tokens; ProbekitError: targets of another
        shape, or beyond the classes; when read, no position was counted.

    Example::

        with pk.attach(model, pk.Accuracy(positions=(-2,))) as run:
            model(tokens)
        float(run["accuracy"].values), float(run["accuracy"].null)
    """

    source: ClassVar[str] = "elementary; the null is Cohen's 1960 chance agreement"
    null_name: ClassVar[str] = "labels shuffled among the counted positions"
    units: ClassVar[str] = "fraction of positions"

    def score(
        self, logits: Float[Tensor, "row vocab"], labels: Int[Tensor, " row"]
    ) -> tuple[Tensor, Float[Tensor, " vocab"]]:
        predicted = logits.argmax(-1)
        counts = torch.bincount(predicted, minlength=logits.shape[-1])
        return predicted == labels, counts.double()
