"""Readings of a table against the published loops, written out with NumPy."""

import math

import numpy as np
import pytest
import torch

from probekit.terrain import table as module
from probekit.terrain.table import table_readings

ROWS, DIM = 400, 16


@pytest.fixture
def table(monkeypatch) -> torch.Tensor:
    for name, value in (("COSINE_ROWS", 60), ("SIMPLICES", 40), ("DISTANCE_ROWS", 30)):
        monkeypatch.setattr(module, name, value)
    scale = torch.linspace(0.5, 2, DIM)
    return torch.randn(ROWS, DIM) * scale + 0.3


def published_volume(points: np.ndarray) -> float:
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    bordered = np.ones((6, 6))
    bordered[0, 0] = 0
    bordered[1:, 1:] = squared
    return math.sqrt(-np.linalg.det(bordered) / 9216)


def test_the_generator_is_consumed_as_published(table) -> None:
    found = table_readings(table, (0.2,))
    x, rng = table.double().numpy(), np.random.default_rng(42)
    sample = x[rng.choice(ROWS, 60, replace=False)]
    volumes, gaussian = [], []
    for _ in range(40):
        volumes.append(published_volume(x[rng.choice(ROWS, 5, replace=False)]))
        drawn = rng.normal(0, x.std(), (5, DIM)).astype(np.float32)
        gaussian.append(published_volume(drawn.astype(np.float64)))
    rest = x[rng.choice(ROWS, 30, replace=False)]
    unit = sample / np.linalg.norm(sample, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(60, 1)]
    distances = np.array([np.linalg.norm(a - b) for i, a in enumerate(rest) for b in rest[:i]])
    assert found["cosines"]["mean"] == pytest.approx(cosines.mean())
    assert found["cosines"]["std"] == pytest.approx(cosines.std())
    near = found["cosines"]["constants"]["0.2"]
    assert near["share"] == pytest.approx((abs(cosines - 0.2) < 0.01).mean())
    assert near["nearest"] == pytest.approx(abs(cosines - 0.2).min())
    assert found["volumes"]["cv"] == pytest.approx(np.std(volumes) / np.mean(volumes))
    assert found["volumes"]["mean"] == pytest.approx(np.mean(volumes))
    assert found["volumes"]["ratio"] == pytest.approx(np.mean(volumes) / np.mean(gaussian))
    assert found["volumes"]["std of ln"] == pytest.approx(np.log(volumes).std())
    assert found["distances"]["mean"] == pytest.approx(distances.mean())
    assert found["distances"]["cv"] == pytest.approx(distances.std() / distances.mean())


def test_norms_and_spectrum_are_of_all_rows(table) -> None:
    found = table_readings(table)
    x = table.double().numpy()
    norms, eigenvalues = np.linalg.norm(x, axis=1), np.linalg.eigvalsh(np.cov(x.T, ddof=0))
    assert found["norms"]["mean"] == pytest.approx(norms.mean())
    assert found["norms"]["std"] == pytest.approx(norms.std())
    assert found["norms"]["least token"] == norms.argmin()
    assert found["norms"]["quantiles"][3] == pytest.approx(np.median(norms))
    assert found["norms"]["deviation of dimensions"] == pytest.approx(x.std(0).mean())
    spectrum = found["spectrum"]
    assert spectrum["total variance"] == pytest.approx(eigenvalues.sum())
    assert spectrum["top share"] == pytest.approx(eigenvalues[-1] / eigenvalues.sum())
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert spectrum["participation"] == pytest.approx(expected)
    assert spectrum["participation / dim"] == pytest.approx(expected / DIM)


def test_gaussian_rows_read_their_nulls() -> None:
    found = table_readings(torch.randn(6000, 24))
    spectrum, volumes = found["spectrum"], found["volumes"]
    assert spectrum["participation / dim"] == pytest.approx(
        spectrum["null"]["participation / dim"], rel=0.01
    )
    assert spectrum["dims"] == pytest.approx(spectrum["null"]["dims"], abs=1)
    for null in ("cv", "same-covariance cv", "cv by PR and norms", "norms-shuffled cv"):
        assert volumes["cv"] == pytest.approx(volumes["null"][null], rel=0.15)
    assert volumes["ratio"] == pytest.approx(1, rel=0.05)
    assert found["cosines"]["std"] == pytest.approx(found["cosines"]["null"]["std"], rel=0.02)
    assert found["norms"]["centred cv"] == pytest.approx(
        found["norms"]["null"]["centred cv"], rel=0.05
    )
    assert found["distances"]["cv"] == pytest.approx(found["distances"]["null"]["cv"], rel=0.05)


def test_the_histograms_are_densities(table) -> None:
    histogram = table_readings(table)["histograms"]["cosine"]
    widths = np.diff(histogram["edges"])
    assert (widths * histogram["density"]).sum() == pytest.approx(1)
