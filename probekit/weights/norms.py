"""Scales of LayerNorm and RMSNorm: the published counts, and a number that a factor leaves alone.

A scale can be moved into the weights that read it, so that counts above 1.5 or below .5 say nothing
about the function; the spread (:attr:`NormScales.cv`) at least does not see a common factor. At
initialisation all are 1.

Source: the terrain write-up, section 4; its critique, section B10.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError


@dataclass(frozen=True)
class NormScales:
    """Of the scales gamma of one norm; the counts are the write-up's, deviations divide by n."""

    mean: float
    std: float
    cv: float
    n_above_1_5: int
    n_below_0_5: int
    n_near_1: int
    number: int


NORM_NULL = NormScales(1.0, 0.0, 0.0, 0, 0, 1, 1)
"""At initialisation: every scale is 1 (of one scale)."""


def norm_scales(gamma: Float[Tensor, " d_model"]) -> NormScales:
    """Mean, deviation, ``std / |mean|`` and how many are > 1.5, < .5, and between .8 and 1.2.

    Raises:
        ProbekitError: no scales, or some that are not finite.
    """
    gamma = gamma.detach().double().cpu()
    if not (len(gamma) and gamma.isfinite().all()):
        raise ProbekitError(f"gamma needs finite scales, one at least, not {len(gamma)}")
    std = gamma.std(correction=0)
    return NormScales(
        mean=float(gamma.mean()),
        std=float(std),
        cv=float(std / gamma.mean().abs()),
        n_above_1_5=int((gamma > 1.5).sum()),
        n_below_0_5=int((gamma < 0.5).sum()),
        n_near_1=int(((gamma > 0.8) & (gamma < 1.2)).sum()),
        number=len(gamma),
    )
