"""Rows from relations, vertices and neighbours, and what a reconstruction reads of noise."""

import math

import numpy as np
import pytest
import torch
from checks import refused
from unchecked import unchecked

from probekit.errors import ProbekitError
from probekit.geometry import regular_simplex
from probekit.modulators import (
    from_relations,
    neighbour_rows,
    pool_simplices,
    reconstruction,
    reconstruction_null,
)


@pytest.mark.parametrize("items", [7, 1003])  # 1003: two batches
def test_neighbours_are_weighted_by_the_softmax_of_their_cosines(items) -> None:
    rng = np.random.default_rng(0)
    vectors, anchors, rows = (rng.normal(size=s) for s in ((items, 6), (12, 6), (12, 4)))
    found = neighbour_rows(*map(torch.tensor, (vectors, anchors, rows)), k=3, temperature=0.2)
    for item in (0, items // 2, items - 1):
        v = vectors[item]
        cosines = [v @ a / np.linalg.norm(v) / np.linalg.norm(a) for a in anchors]
        nearest = np.argsort(cosines)[::-1][:3]
        weights = np.array([np.exp(cosines[j] / 0.2) for j in nearest])
        mean = sum(w * rows[j] for w, j in zip(weights / weights.sum(), nearest, strict=True))
        np.testing.assert_allclose(found[item].numpy(), mean / np.linalg.norm(mean), rtol=1e-9)


def test_one_neighbour_gives_its_row_at_length_1() -> None:
    anchors, rows = torch.eye(5), 3 * torch.eye(5)
    vectors = torch.tensor([[0.1, 0.9, 0.0, 0.0, 0.0]])
    assert neighbour_rows(vectors, anchors, rows, k=1).tolist() == [[0, 1, 0, 0, 0]]


def test_the_defaults_are_the_published_ones() -> None:
    vectors, anchors, rows = torch.randn(3, 8), torch.randn(20, 8), torch.randn(20, 4)
    given = neighbour_rows(vectors, anchors, rows, k=10, temperature=0.1)
    assert torch.equal(neighbour_rows(vectors, anchors, rows), given)


def test_what_neighbours_refuse() -> None:
    x, rows = torch.randn(4, 3), torch.randn(4, 2)
    refused("4 anchors with 4 rows do not give k=5 neighbours", neighbour_rows, x, x, rows, k=5)
    message = "4 anchors with 3 rows do not give k=2 neighbours"
    refused(message, unchecked, neighbour_rows, x, x, rows[1:], k=2)
    refused("k must be a whole number from 1, not 0", neighbour_rows, x, x, rows, k=0)
    message = "temperature must be a finite positive number, not 0"
    refused(message, neighbour_rows, x, x, rows, k=2, temperature=0)
    message = "a vector, or a row, has length 0 or is not finite; leave it out"
    refused(message, neighbour_rows, 0 * x, x, rows, k=2)
    refused(message, neighbour_rows, x, 0 * x, rows, k=2)
    with pytest.raises(ProbekitError, match="the neighbours' rows cancel"):
        neighbour_rows(x, torch.ones(2, 3), torch.tensor([[1.0, 0], [-1, 0]]), k=2)


def test_reconstruction_is_numpys_correlation_of_pairs() -> None:
    rng = np.random.default_rng(1)
    noise, rows = rng.normal(size=(9, 9)), rng.normal(size=(9, 4))
    similarity = noise + noise.T
    pairs = np.triu_indices(9, 1)
    expected = np.corrcoef(similarity[pairs], (rows @ rows.T)[pairs])[0, 1]
    found = reconstruction(torch.tensor(similarity), torch.tensor(rows))
    assert found == pytest.approx(expected)
    unit = torch.nn.functional.normalize(torch.randn(12, 4, dtype=torch.float64), dim=-1)
    assert reconstruction(unit @ unit.T, from_relations(unit @ unit.T, 4)) == pytest.approx(1)


def test_reconstruction_of_noise_is_far_from_0() -> None:
    """Findings 003, B11: symmetric noise of 600 items in 64 columns reads .54."""
    noise = torch.randn(600, 600, dtype=torch.float64)
    similarity = noise + noise.T
    own = reconstruction(similarity, from_relations(similarity, 64))
    assert own == pytest.approx(0.54, abs=0.02)
    mean, deviation = reconstruction_null(similarity, 64, draws=3)
    assert own == pytest.approx(mean, abs=0.01) and deviation < 0.01


def test_the_null_keeps_values_and_diagonal_and_no_structure() -> None:
    unit = torch.nn.functional.normalize(torch.randn(40, 3, dtype=torch.float64), dim=-1)
    similarity = unit @ unit.T
    mean, _ = reconstruction_null(similarity, 3, draws=5, seed=2)
    assert mean < 0.6 < 0.99 < reconstruction(similarity, from_relations(similarity, 3))
    assert reconstruction_null(similarity, 3, draws=5, seed=2)[0] == mean
    assert reconstruction_null(similarity, 3, draws=5, seed=3)[0] != mean
    # The diagonal stays: dealt out over itself, the identity plus equal pairs is what it was.
    alike = torch.full((9, 9), 0.3, dtype=torch.float64) + 0.7 * torch.eye(9)
    alike[0, 1] = alike[1, 0] = 0.4
    rows = from_relations(alike, 9)
    assert reconstruction_null(alike, 9, draws=4) == pytest.approx((reconstruction(alike, rows), 0))


def test_what_reconstruction_refuses() -> None:
    message = "reconstruction needs a row an item and 3 items, not 4 for 5"
    refused(message, unchecked, reconstruction, torch.eye(5), torch.eye(4))
    refused(
        "draws must be a whole number from 1, not 0", reconstruction_null, torch.eye(5), 2, draws=0
    )


def test_relations_of_full_rank_are_reproduced():
    unit = torch.nn.functional.normalize(torch.randn(12, 4, dtype=torch.float64), dim=-1)
    rows = from_relations(unit @ unit.T, 4)
    torch.testing.assert_close(rows @ rows.T, unit @ unit.T)


def test_relations_are_the_top_eigenvectors():
    noise = np.random.default_rng(0).normal(size=(9, 9))
    similarity = noise + noise.T  # with negative eigenvalues
    values, vectors = np.linalg.eigh(similarity)
    top = np.argsort(values)[::-1][:3]
    expected = vectors[:, top] * np.sqrt(np.maximum(values[top], 0))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    rows = from_relations(torch.tensor(similarity), 3).numpy()
    np.testing.assert_allclose(rows @ rows.T, expected @ expected.T, atol=1e-12)
    np.testing.assert_allclose(abs(rows[:, 0]), abs(expected[:, 0]), atol=1e-12)  # largest first
    rows = from_relations(torch.tensor(similarity), 9).numpy()
    assert (rows[:, values[::-1] < 0] == 0).all()


def test_pooling_sums_vertices():
    vertices = torch.randn(5, 3, 4)
    expected = vertices.numpy().sum(1)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(pool_simplices(vertices).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_pooling_refuses_a_centred_simplex():
    vertices = torch.randn(3, 5, 8)
    vertices[1] = regular_simplex(4, 8)
    message = (
        "rows 1 are 0 but for rounding, and normalising would give noise: a centred simplex sums"
        " to 0; shift it off the origin or give one vertex as the row"
    )
    refused(message, pool_simplices, vertices)
    vertices[1] = 0
    refused(message, pool_simplices, vertices)


def test_what_relations_refuse():
    refused("d_geometry=4 of 3 eigenvectors", from_relations, torch.eye(3), 4)
    message = "the similarity is not symmetric or not finite; give (S + S.T) / 2"
    refused(message, from_relations, torch.ones(3, 3).triu(), 2)
    refused(message, from_relations, torch.full((3, 3), math.nan), 2)
    refused(
        "rows 0, 1 are 0 but for rounding, and normalising would give noise: they have no part in"
        " the top 1 eigenvectors; raise d_geometry or drop them",
        from_relations,
        torch.diag(torch.tensor([1.0, 2, 3])),
        1,
    )
