"""The published check against its formula by another route, and against its null."""

import math

import numpy as np
import pytest
import torch

from probekit.errors import ProbekitError
from probekit.geometry import gaussian_volume_cv
from probekit.modulators import cv_check


def by_determinants(x: np.ndarray, drawn: np.ndarray) -> list[float]:
    """Volumes above 0 from bordered determinants, one simplex at a time."""
    volumes = []
    for five in drawn:
        points = x[five, :8]
        bordered = np.ones((6, 6))
        bordered[0, 0] = 0
        bordered[1:, 1:] = np.square(points[:, None] - points[None]).sum(-1)
        square = -np.linalg.det(bordered) / (2**4 * math.factorial(4) ** 2)
        if len(set(five.tolist())) == 5:
            volumes.append(math.sqrt(square))
    return volumes


@pytest.mark.parametrize("rows", [40, 1000])
def test_as_published(rows):
    x = torch.randn(rows, 512, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    drawn = torch.randint(0, rows, (500, 5), generator=torch.Generator().manual_seed(42))
    volumes = by_determinants(x.numpy(), drawn.numpy())
    found = cv_check(x)
    assert found.kept == len(volumes) < 500
    assert found.cv == pytest.approx(np.std(volumes, ddof=1) / np.mean(volumes), rel=1e-9)


def test_gaussian_points_are_never_in_the_band():
    for seed in range(5):
        x = torch.randn(2000, 512, generator=torch.Generator().manual_seed(seed))
        found = cv_check(x, seed=seed)
        assert not found.in_band
        assert found.cv == pytest.approx(gaussian_volume_cv(8), abs=0.1)


def test_wide_coordinates_can_be_in_it():
    """The CV falls with the number of coordinates: of 64 it is in the band."""
    x = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
    assert cv_check(x, dims=64).in_band
    assert not cv_check(x, dims=64, target=0.3).in_band


def test_flat_rows_are_refused():
    with pytest.raises(
        ProbekitError, match=r"^cv_check found 0 pentachora that are not flat among"
    ):
        cv_check(torch.randn(4, 8))
    with pytest.raises(ProbekitError, match=r"of 3 coordinates; give more rows, and at least 4"):
        cv_check(torch.randn(100, 3))
