"""Clamp: bring the norm or the variance of an activation to a target."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..errors import ProbekitError, unknown
from ..items import Firing, Intervention
from ..site import Site, parse_site


@dataclass(frozen=True)
class Clamp(Intervention):
    """Rescales an activation so that its norm or its spread is ``target``.

    ``mode="norm"``, ``per="batch"``: ``x * target / mean(||x||)``, one scalar for batch and
    positions (as the write-up's code does). A head behind it then sees the same directions:
    argmax hardly changes and the margin scales by the same factor.
    ``mode="norm"``, ``per="vector"``: ``x * target / ||x||`` for every position (as it says).
    ``mode="variance"``: ``m + (x - m) * target / std(x - m)``, m the mean vector over batch and
    positions, one std over all entries: the mean is preserved.

    The identity is the measured value as target. Before a norm layer a norm clamp is undone by
    that layer, exactly. Padding positions count towards the means.

    Args:
        mode: ``"norm"`` or ``"variance"``.
        target: the L2 norm, or the standard deviation (not squared), in the activation's units;
            finite, positive.
        site: a residual or norm site; as published ``"ln_final"``.
        per: ``"batch"`` or ``"vector"``, for ``mode="norm"``.

    Raises:
        ProbekitError: target is not finite and positive, an unknown mode, or ``per="vector"``
        with ``mode="variance"``.

    Source: "Conservation of Separability", section 12 (naive and mean-preserving clamp).
    """

    mode: Literal["norm", "variance"]
    target: float | int
    site: str | Site = "ln_final"
    per: Literal["batch", "vector"] = "batch"

    source: ClassVar[str] = "Conservation of Separability, 12"

    def __post_init__(self) -> None:
        for name, valid in (("mode", ("norm", "variance")), ("per", ("batch", "vector"))):
            if getattr(self, name) not in valid:
                raise ProbekitError(unknown(name, str(getattr(self, name)), valid))
        if not (isinstance(self.target, float | int) and 0 < self.target < math.inf):
            raise ProbekitError(f"target must be a finite positive number, not {self.target!r}")
        if self.mode == "variance" and self.per == "vector":
            raise ProbekitError("mode='variance' takes one scalar a batch; leave per out")
        object.__setattr__(self, "site", str(parse_site(self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (parse_site(self.site),)

    def edit(self, x: Tensor, at: Firing) -> Tensor:
        if self.mode == "variance":
            mean = x.mean(tuple(range(x.ndim - 1)), keepdim=True)
            centred = x - mean
            return mean + centred * (self.target / _not_zero(centred.std(), self, at))
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        if self.per == "batch":
            norms = norms.mean()
        return x * (self.target / _not_zero(norms, self, at))


def _not_zero(scale: Tensor, clamp: Clamp, at: Firing) -> Tensor:
    if not scale.detach().all():
        raise ProbekitError(f"{clamp} at {at.site}: a {clamp.mode} of 0 cannot be scaled")
    return scale
