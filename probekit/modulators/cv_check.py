"""The write-up's health check of a field modulator: the CV of pentachora in eight coordinates.

It reads 8 of the active coordinates, whatever the width. Gaussian points of 8 dimensions have a CV
of .609 (:func:`probekit.geometry.gaussian_volume_cv`) and never come near the band around .21, so
that training which stops after five checks outside it always stops after five checks. In full
space the CV is another number: :func:`probekit.geometry.volume_cv`.

Source: "Geometric Terrain Analysis", S12 (geometric field modulator).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError
from ..geometry import simplex_volumes

SIMPLICES = 500


@dataclass(frozen=True)
class CvCheck:
    """``cv`` of the volumes above 0, ``kept`` of 500, and whether it is within .05 of .21."""

    cv: float
    kept: int
    in_band: bool


def cv_check(
    x: Float[Tensor, "rows dim"],
    *,
    dims: int = 8,
    target: float = 0.21,
    tolerance: float = 0.05,
    seed: int = 42,
) -> CvCheck:
    """As published: 5 rows each drawn with replacement, the first ``dims`` coordinates, ddof 1.

    A row that comes twice makes a simplex flat, and it is left out: about 1 % of them at 1,000
    rows.

    Raises:
        ProbekitError: fewer than two simplices that are not flat; the write-up calls that healthy.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, len(x), (SIMPLICES, 5), generator=generator)
    whole = (drawn.sort(-1).values.diff(dim=-1) > 0).all(-1)
    volumes = simplex_volumes(x[:, :dims].cpu(), drawn[whole]) if whole.any() else x.new_zeros(0)
    volumes = volumes[volumes > 0].double()
    if len(volumes) < 2:
        raise ProbekitError(
            f"cv_check found {len(volumes)} pentachora that are not flat among {len(x)} rows of "
            f"{x.shape[1]} coordinates; give more rows, and at least 4 coordinates"
        )
    cv = float(volumes.std() / volumes.mean())
    return CvCheck(cv, len(volumes), abs(cv - target) < tolerance)
