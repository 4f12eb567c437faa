"""Clamp: bring the norm or the variance of an activation to a target."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..checks import check_positive
from ..errors import ProbekitError, unknown
from ..items import Firing, Intervention, plain_numbers
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
    that layer, exactly. Padding positions count towards the means. Half precision is computed in
    float32: the norm of a few thousand such numbers is too large for float16.

    Args:
        mode: ``"norm"`` or ``"variance"``.
        target: the L2 norm, or the standard deviation (not squared), in the activation's units;
            finite, positive.
        site: a residual or norm site; as published ``"ln_final"``.
        per: ``"batch"`` or ``"vector"``, for ``mode="norm"``.

    Raises:
        ProbekitError: target is not finite and positive, an unknown mode, or ``per="vector"``
        with ``mode="variance"``; in a forward, a measured value that is 0 or not finite.

    Source: "Conservation of Separability", section 12 (naive and mean-preserving clamp).
    """

    mode: Literal["norm", "variance"]
    target: float | int
    site: str | Site = "ln_final"
    per: Literal["batch", "vector"] = "batch"

    source: ClassVar[str] = "Conservation of Separability, 12"

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name, valid in (("mode", ("norm", "variance")), ("per", ("batch", "vector"))):
            if getattr(self, name) not in valid:
                raise ProbekitError(unknown(name, str(getattr(self, name)), valid))
        check_positive("target", self.target)
        if self.mode == "variance" and self.per == "vector":
            raise ProbekitError("mode='variance' takes one scalar a batch; leave per out")
        object.__setattr__(self, "site", str(parse_site(self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (parse_site(self.site),)

    def edit(self, x: Tensor, at: Firing) -> Tensor:
        exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return self._clamped(exact, at).to(x.dtype)

    def _clamped(self, x: Tensor, at: Firing) -> Tensor:
        if self.mode == "variance":
            mean = x.mean(tuple(range(x.ndim - 1)), keepdim=True)
            centred = x - mean
            return mean + centred * (self.target / _scalable(centred.std(), self, at))
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        if self.per == "batch":
            norms = norms.mean()
        return x * (self.target / _scalable(norms, self, at))


def _scalable(measured: Tensor, clamp: Clamp, at: Firing) -> Tensor:
    fine = measured.detach().isfinite() & (measured.detach() != 0)
    if not fine.all():
        value = float(measured.detach()[~fine].flatten()[0])
        raise ProbekitError(f"{clamp} at {at.site}: a {clamp.mode} of {value:g} cannot be scaled")
    return measured
