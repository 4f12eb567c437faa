"""Shares against NumPy, Hoyer and kurtosis against SciPy, Gini against pk.geometry."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from probekit.errors import ProbekitError
from probekit.geometry import gini
from probekit.weights import (
    GAUSSIAN,
    THRESHOLDS,
    Magnitudes,
    gaussian_error,
    published_sparsity_null,
)


@pytest.fixture
def weights() -> torch.Tensor:
    drawn = np.random.default_rng(0).standard_t(4, size=(1100, 1000)) * 0.05 + 0.01
    return torch.from_numpy(drawn).float()


def test_against_other_libraries(weights):
    found = Magnitudes.of(weights)
    w = weights.double().numpy().ravel()
    assert found.shares == tuple(float((np.abs(weights.numpy()) < t).mean()) for t in THRESHOLDS)
    assert found.rms == pytest.approx(np.sqrt((w**2).mean()), rel=1e-12)
    share = (np.abs(w) < 0.1 * found.rms).mean()
    assert found.stats.below_rms == pytest.approx(share, rel=2e-5)
    assert found.stats.gini == pytest.approx(gini(weights.abs().flatten()), rel=1e-6)
    assert found.stats.kurtosis == pytest.approx(stats.kurtosis(w), rel=1e-9)
    n = w.size
    hoyer = (math.sqrt(n) - np.abs(w).sum() / np.linalg.norm(w)) / (math.sqrt(n) - 1)
    assert found.stats.hoyer == pytest.approx(hoyer, rel=1e-10)


def test_parts_add_up(weights):
    parts = [Magnitudes.of(part) for part in weights.split(300)]
    pooled = parts[0] + parts[1] + parts[2] + parts[3]
    whole = Magnitudes.of(weights)
    assert pooled.shares == whole.shares and pooled.number == whole.number
    assert dataclasses.asdict(pooled.stats) == pytest.approx(dataclasses.asdict(whole.stats))


def test_scale_changes_the_published_share_alone(weights):
    small, large = Magnitudes.of(weights), Magnitudes.of(8 * weights)
    assert small.shares[-1] > 0.8 > 0.3 > large.shares[-1]
    # 8 is a power of two, so that the histogram's bins move with the weights
    assert dataclasses.asdict(large.stats) == pytest.approx(dataclasses.asdict(small.stats))


def test_gaussian_weights_read_the_null_within_its_error():
    number = 200_000
    error = dataclasses.asdict(gaussian_error(number))
    generator = torch.Generator().manual_seed(0)
    drawn = [
        dataclasses.asdict(Magnitudes.of(torch.randn(number, generator=generator)).stats)
        for _ in range(40)
    ]
    for name, null in dataclasses.asdict(GAUSSIAN).items():
        values = np.array([each[name] for each in drawn])
        bias = (1 - math.sqrt(2 / math.pi)) / math.sqrt(number) if name == "hoyer" else 0
        assert abs(values.mean() - null - bias) < 3.5 * error[name] / math.sqrt(len(drawn)), name
        assert 0.6 < values.std() / error[name] < 1.5, name


def test_published_null():
    """B8: at T5-small's initialisation, and the deviations that the published shares stand for."""
    assert published_sparsity_null(0.1, 512**-0.5) == pytest.approx(0.9763, abs=5e-5)
    assert published_sparsity_null(0.1, 0.0538) == pytest.approx(0.937, abs=5e-4)
    assert published_sparsity_null(0.1, 0.4115) == pytest.approx(0.192, abs=5e-4)
    assert published_sparsity_null(0.1, 0.0) == 1 and published_sparsity_null(0.0, 0.0) == 0
    found = Magnitudes.of(0.3 * torch.randn(50_000, generator=torch.Generator().manual_seed(0)))
    assert found.shares == pytest.approx(found.shares_null, abs=5e-3)


def test_half_precision_and_zeros():
    exact = Magnitudes.of(torch.tensor([0.0, 0.5, -0.5, 1.0], dtype=torch.bfloat16), (0.5, 1.0))
    assert exact.shares == (0.25, 0.75)
    assert exact.stats.gini == pytest.approx(gini(torch.tensor([0.0, 0.5, 0.5, 1.0])), abs=1e-3)
    assert math.isnan(Magnitudes.of(torch.zeros(3)).stats.hoyer)


def test_refusals():
    with pytest.raises(ProbekitError, match=r"^weights must be finite and at least one, not 2 "):
        Magnitudes.of(torch.tensor([1.0, math.inf]))
    with pytest.raises(ProbekitError, match=r"^weights must be finite and at least one, not 0 "):
        Magnitudes.of(torch.zeros(0))
    with pytest.raises(ProbekitError, match=r"^each of thresholds must be a finite number from 0"):
        Magnitudes.of(torch.ones(1), (-1.0,))
    with pytest.raises(ProbekitError, match=r"do not add up$"):
        _ = Magnitudes.of(torch.ones(1), (0.1,)) + Magnitudes.of(torch.ones(1), (0.2,))
    with pytest.raises(ProbekitError, match=r"^number must be a whole number from 1, not 0"):
        gaussian_error(0)
