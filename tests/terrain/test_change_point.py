"""Change points: planted bends are found, smooth curves have none, and the grid does not matter."""

import numpy as np
import pytest

from probekit.errors import ProbekitError
from probekit.terrain.change_point import bend_readings, change_point, change_points

EVEN = np.linspace(0, 1, 25)
DENSE = np.sort(np.concatenate([np.linspace(0, 1, 13), np.linspace(0.27, 0.32, 12)]))


def bend(x: np.ndarray, at: float) -> np.ndarray:
    return 0.4 - 0.1 * x - 0.8 * np.maximum(x - at, 0)


@pytest.mark.parametrize("at", [0.2, 0.29154, 0.7])
@pytest.mark.parametrize("x", [EVEN, DENSE])
def test_a_planted_bend_is_found(x, at) -> None:
    found = change_point(x, bend(x, at))
    assert found.at == pytest.approx(at, abs=1e-3)  # a step of the search
    assert found.before == pytest.approx(-0.1, abs=1e-2)
    assert found.after == pytest.approx(-0.9, abs=1e-2)
    assert found.error < 1e-3 < found.smooth_error and found.sharper


def test_noise_moves_it_little() -> None:
    noise = np.random.default_rng(0).normal(size=(20, 25)) * 0.003
    curves = bend(EVEN, 0.4) + noise
    found = change_points(EVEN, curves)
    assert abs(found - 0.4).max() < 0.03
    single = change_point(EVEN, curves[3])
    assert found[3] == pytest.approx(single.at) and single.sharper


@pytest.mark.parametrize(
    "smooth",
    [
        lambda x: x**2,
        lambda x: 1 - np.exp(-2 * x),
        lambda x: 1 / (1 + np.exp(-4 * (x - 0.3))),
        lambda x: (1 - x) ** 6,
        lambda x: 1 / (1 + np.exp(-10 * (x - 0.6))),
        lambda x: np.exp(-((x - 0.2) ** 2) / 0.05),
    ],
)
def test_a_smooth_curve_has_no_bend(smooth) -> None:
    for x in (EVEN, DENSE):
        assert not change_point(x, smooth(x)).sharper


def test_a_finer_grid_draws_no_bend_to_it() -> None:
    """The best bend of x^2 is in the middle, by symmetry."""
    for x in (EVEN, DENSE):
        assert change_point(x, x**2).at == pytest.approx(0.5, abs=0.03)


def test_errors_are_root_mean_squares_of_numpys_fits() -> None:
    y = np.cos(5 * EVEN)
    found = change_point(EVEN, y)
    weights = np.array([0.5, *[1] * 23, 0.5]) / 24
    cubic = np.polyval(np.polyfit(EVEN, y, 3, w=np.sqrt(weights)), EVEN)
    assert found.smooth_error == pytest.approx(np.sqrt(weights @ (y - cubic) ** 2))
    design = np.stack([np.ones(25), EVEN, np.maximum(EVEN - found.at, 0)], -1)
    normal = design.T * weights
    fit = np.linalg.solve(normal @ design, normal @ y)
    assert found.error == pytest.approx(np.sqrt(weights @ (y - design @ fit) ** 2))
    assert (found.before, found.after) == pytest.approx((fit[1], fit[1] + fit[2]))


def test_refusals() -> None:
    with pytest.raises(ProbekitError, match="needs 7 points or more in ascending x"):
        change_point(EVEN[:6], EVEN[:6])
    with pytest.raises(ProbekitError, match="ascending x"):
        change_point(EVEN[::-1].copy(), EVEN)
    with pytest.raises(ProbekitError, match="a curve of finite values"):
        change_points(EVEN, np.full((2, 25), np.nan))


def test_an_interval_is_of_resampled_bends() -> None:
    curves = np.stack([bend(EVEN, at) for at in np.linspace(0.2, 0.6, 201)])
    found = bend_readings(EVEN.tolist(), bend(EVEN, 0.4).tolist(), curves.tolist())
    assert found["at"] == pytest.approx(0.4, abs=1e-3) and found["sharper"]
    assert found["low"] == pytest.approx(0.21, abs=2e-3)
    assert found["high"] == pytest.approx(0.59, abs=2e-3)
