"""Projection of one table onto another: planted rotations, noise, and the Marchenko-Pastur law."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from probekit.errors import ProbekitError
from probekit.terrain.projection import isotropic_share, projection_readings

ROWS, ANCHORS, TESTS = 900, 600, 300


def tables(noise: float, mean: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    small = torch.randn(ROWS, 12, dtype=torch.float64) + mean
    rotation = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))[0]
    return small @ rotation + noise * torch.randn(ROWS, 12), small


def test_a_rotated_table_is_found_exactly() -> None:
    found = projection_readings(
        *tables(0.0, mean=2.0), anchors=ANCHORS, tests=TESTS, digits=range(10)
    )
    assert found["alignment"]["centred cosine, held out"] == pytest.approx(1)
    assert found["alignment"]["scale"] == pytest.approx(1)
    assert found["relations"]["r"] == pytest.approx(1)
    assert found["volumes"]["r"] == pytest.approx(1)
    assert found["volumes"]["ratio"] == pytest.approx(1)
    assert found["digits"]["cosine"] == pytest.approx([1.0] * 10)
    assert found["residual"]["share of variance"] == pytest.approx(0, abs=1e-12)
    assert found["all rows"]["share above"]["0.9"] == 1


def test_unrelated_tables_read_their_nulls() -> None:
    """The published cosine is high where both have a mean; the centred one is not."""
    large, small = torch.randn(ROWS, 12) + 3, torch.randn(ROWS, 12) + 3
    found = projection_readings(large, small, anchors=ANCHORS, tests=TESTS)["alignment"]
    assert found["cosine"] > 0.85
    assert found["null"]["cosine"] > 0.9
    assert abs(found["centred cosine, held out"]) < 0.06
    assert found["centred cosine, fitted"] == pytest.approx(
        found["null"]["centred cosine, fitted"], abs=0.03
    )


def test_the_published_order_and_scipys_rotation() -> None:
    large, small = tables(0.3, mean=1.0)
    found = projection_readings(large, small, anchors=ANCHORS, tests=TESTS)
    order = np.random.default_rng(42).permutation(ROWS)
    fitted, held = order[:ANCHORS], order[ANCHORS : ANCHORS + TESTS]
    x, y = large.numpy(), small.numpy()
    rotation, _ = scipy.linalg.orthogonal_procrustes(
        x[fitted] - x[fitted].mean(0), y[fitted] - y[fitted].mean(0)
    )
    mapped = (x[held] - x[fitted].mean(0)) @ rotation + y[fitted].mean(0)
    cosines = (mapped * y[held]).sum(1) / np.linalg.norm(mapped, axis=1)
    cosines /= np.linalg.norm(y[held], axis=1)
    assert found["alignment"]["cosine"] == pytest.approx(cosines.mean())
    assert found["alignment"]["quantiles"][3] == pytest.approx(np.median(cosines))
    distances = np.linalg.norm(mapped - y[held], axis=1)
    assert found["alignment"]["distance"] == pytest.approx(distances.mean())
    residual = (y[held] - mapped).var(0).sum() / y[held].var(0).sum()
    assert found["residual"]["share of variance"] == pytest.approx(residual)


def test_pca_keeps_what_isotropic_rows_give() -> None:
    large, small = torch.randn(4000, 40), torch.randn(4000, 16)
    found = projection_readings(large, small, anchors=2000, tests=1000)["pca"]
    assert found["variance retained"] == pytest.approx(found["null"]["variance retained"], abs=5e-3)


def test_isotropic_share_of_the_published_sizes() -> None:
    """Findings 003, B13: 2560 to 1024 with 50,000 rows."""
    assert isotropic_share(2560, 1024, 50_000) == pytest.approx(0.494, abs=5e-4)


def test_the_mean_alone_has_the_root_of_the_mean_cosine() -> None:
    mean = math.sqrt(0.195 / (1 - 0.195))
    small = torch.nn.functional.normalize(torch.randn(ROWS, 256), dim=-1)
    small[:, 0] += mean
    found = projection_readings(small, small, anchors=ANCHORS, tests=TESTS)["alignment"]
    assert found["null"]["cosine"] == pytest.approx(math.sqrt(0.195), abs=0.01)


def test_refusals() -> None:
    with pytest.raises(ProbekitError, match="are not 700 anchors and 300 tests"):
        projection_readings(*tables(0.0), anchors=700, tests=300)
    with pytest.raises(ProbekitError, match="a wider table with a narrower"):
        projection_readings(torch.randn(50, 3), torch.randn(50, 4), anchors=30, tests=20)
