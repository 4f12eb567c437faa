"""Volumes against scipy, numpy and closed forms; templates against published numbers."""

import doctest
import math

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from probekit.errors import ProbekitError
from probekit.geometry import (
    cayley_menger,
    n_edges,
    published_simplex,
    regular_simplex,
    simplex,
    simplex_volume,
    squared_distances,
)


def edges(points: torch.Tensor) -> np.ndarray:
    """Distances in the order (01), (02), ..., (12), ..."""
    return pdist(points.double().numpy())


def regular_v2(k: int) -> float:
    return (k + 1) / (2**k * math.factorial(k) ** 2)


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def test_examples_in_docstrings():
    found = doctest.testmod(simplex, extraglobs={"torch": torch})
    assert found.failed == 0 and found.attempted >= 3


def test_squared_distances_are_scipys():
    points = normal(3, 5, 7)
    expected = np.stack([squareform(pdist(p.numpy(), "sqeuclidean")) for p in points])
    np.testing.assert_allclose(squared_distances(points).numpy(), expected, rtol=1e-13)


def test_squared_distances_keep_a_tight_cone():
    # A Gram expansion loses the small differences of points far from the origin.
    points = normal(5, 8, dtype=torch.float32) * 1e-3 + 10
    expected = squareform(pdist(points.double().numpy(), "sqeuclidean"))
    np.testing.assert_allclose(squared_distances(points).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_both_volumes_are_the_convex_hulls(k):
    points = normal(6, k + 1, k)
    expected = [ConvexHull(p.numpy()).volume for p in points]
    np.testing.assert_allclose(simplex_volume(points).numpy(), expected, rtol=1e-10)
    v2 = cayley_menger(squared_distances(points))
    np.testing.assert_allclose(v2.numpy(), np.square(expected), rtol=1e-9)


@pytest.mark.parametrize(("k", "dim"), [(1, 1), (1, 6), (2, 9), (4, 4), (4, 512), (7, 20)])
def test_both_volumes_are_numpys_gram_determinant(k, dim):
    points = normal(2, 3, k + 1, dim)
    e = (points[..., 1:, :] - points[..., :1, :]).numpy()
    expected = np.linalg.det(e @ e.swapaxes(-1, -2)) / math.factorial(k) ** 2
    np.testing.assert_allclose(simplex_volume(points).square().numpy(), expected, rtol=1e-9)
    v2 = cayley_menger(squared_distances(points))
    np.testing.assert_allclose(v2.numpy(), expected, rtol=1e-9)


def test_degenerate_points_have_no_volume():
    line = torch.arange(4.0)[:, None] * torch.ones(3)
    assert simplex_volume(line) == 0
    assert simplex_volume(normal(5, 3)) == 0  # five points in three dimensions
    plane = normal(40, 5, 2) @ normal(2, 6)
    assert simplex_volume(plane).max() < 1e-12  # the square root of rounding, twice
    assert cayley_menger(squared_distances(line)).abs() < 1e-12


def test_two_points_have_exactly_their_squared_distance():
    squared = squared_distances(normal(1000, 2, 8))
    assert torch.equal(cayley_menger(squared), squared[:, 0, 1])


def test_distances_of_no_euclidean_points_give_a_negative_square():
    far = torch.tensor([[0.0, 1, 1], [1, 0, 9], [1, 9, 0]])  # 1 + 1 < 3
    assert cayley_menger(far) < 0


@pytest.mark.parametrize("function", [cayley_menger, simplex_volume])
def test_dtypes_and_no_simplices(function):
    assert function(torch.zeros(0, 3, 3)).shape == (0,)
    for given, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        assert function(torch.eye(3, dtype=given)).dtype == expected


def test_volume_is_differentiable():
    points = normal(2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(simplex_volume, points)
    assert torch.autograd.gradcheck(lambda p: cayley_menger(squared_distances(p)), points)


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("k", range(1, 13))
def test_regular_simplex_is_regular(k, extra):
    points = regular_simplex(k, k + extra, torch.float64)
    assert points.shape == (k + 1, k + extra)
    assert len(edges(points)) == n_edges(k)
    np.testing.assert_allclose(edges(points), 1, rtol=1e-12)
    np.testing.assert_allclose(points.mean(0).numpy(), 0, atol=1e-14)
    v2 = cayley_menger(squared_distances(points))
    assert float(v2) == pytest.approx(regular_v2(k), rel=1e-9)
    assert float(simplex_volume(points)) == pytest.approx(math.sqrt(regular_v2(k)), rel=1e-12)


def test_regular_simplex_in_single_precision():
    np.testing.assert_allclose(edges(regular_simplex(4, 8)), 1, rtol=1e-6)


def test_published_simplex_has_the_published_edges_and_volumes():
    # Findings 003, B12, computed there from the write-up's own code.
    published = {
        1: ([1.0], 1.0),
        2: ([1.0000, 1.0499, 0.9594], 0.188275),
        4: (
            [1, 1.0335, 1.0569, 1.0755, 0.9438, 0.9695, 0.9897, 0.9752, 0.9952, 0.9944],
            5.46688e-4,
        ),
    }
    for k, (lengths, v2) in published.items():
        points = published_simplex(k, 8, torch.float64)
        np.testing.assert_allclose(edges(points), lengths, atol=5.1e-5)
        assert float(cayley_menger(squared_distances(points))) == pytest.approx(v2, rel=3e-6)
        np.testing.assert_allclose(points.mean(0).numpy(), 0, atol=1e-15)


def test_published_simplex_without_a_spare_dimension_is_worse():
    # B12: "edges .564-1.057", the shortest at k = 2 and the longest at k = 4.
    lengths = np.concatenate([edges(published_simplex(k, k)) for k in (1, 2, 4)])
    assert (round(lengths.min(), 3), round(lengths.max(), 3)) == (0.564, 1.057)


@pytest.mark.parametrize("template", [regular_simplex, published_simplex])
@pytest.mark.parametrize(("k", "dim"), [(0, 3), (4, 3)])
def test_a_simplex_that_does_not_fit(template, k, dim):
    with pytest.raises(ProbekitError) as error:
        template(k, dim)
    assert str(error.value) == (
        f"a {k}-simplex in {dim} dimensions: k must be at least 1 and at most the dimension;"
        " lower k or raise dim"
    )


@pytest.mark.parametrize("function", [cayley_menger, simplex_volume])
def test_one_point_is_no_simplex(function):
    with pytest.raises(ProbekitError) as error:
        function(torch.zeros(2, 1, 1))
    assert str(error.value) == (
        "a simplex needs 2 points or more, given 1 (shape [2, 1, 1]);"
        " points are the last axis but one"
    )
