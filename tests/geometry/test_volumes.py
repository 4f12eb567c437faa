"""Volumes of drawn simplices against exact rational arithmetic, closed forms and simulation."""

import doctest
import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.geometry import (
    covariance_eigenvalues,
    debiased_participation,
    draw_simplices,
    gaussian_mean_square_volume,
    gaussian_mean_volume,
    gaussian_volume_cv,
    gaussian_volumes,
    norm_cv,
    norms_shuffled,
    participation_ratio,
    simplex_cv_prediction,
    simplex_volume,
    simplex_volumes,
    unit_centred,
    volume_cv,
    volume_nulls,
    volume_stats,
)

# Findings 003, B2: exact CVs of Gaussian pentachora.
DIMS = (8, 41, 45, 50, 54, 128, 512, 768, 1024, 2560, 4096)
PUBLISHED_CVS = (
    *(0.6094, 0.2280, 0.2170, 0.2052, 0.1971, 0.1262),
    *(0.0627, 0.0511, 0.0442, 0.0280, 0.0221),
)


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def exact_square(points: Tensor) -> Fraction:
    """V^2 (k!)^2 in rational arithmetic: the determinant of the edges' products."""
    rows = [[Fraction(value) for value in point] for point in points.tolist()]
    edges = [[a - b for a, b in zip(row, rows[0], strict=True)] for row in rows[1:]]
    gram = [[sum(a * b for a, b in zip(e, f, strict=True)) for f in edges] for e in edges]
    determinant = Fraction(1)
    for i in range(len(gram)):
        determinant *= gram[i][i]
        for j in range(i + 1, len(gram)):
            factor = gram[j][i] / gram[i][i]
            gram[j] = [a - factor * b for a, b in zip(gram[j], gram[i], strict=True)]
    return determinant


def exact_volume(points: Tensor) -> float:
    return math.sqrt(exact_square(points)) / math.factorial(len(points) - 1)


def gram_expansion(x: Tensor, simplices: Tensor) -> Tensor:
    """The write-up's squared distances |a|^2 + |b|^2 - 2 a.b, then the bordered determinant."""
    points = x[simplices]
    squares = points.square().sum(-1)
    squared = squares[:, :, None] + squares[:, None, :] - 2 * points @ points.mT
    bordered = torch.nn.functional.pad(squared, (1, 0, 1, 0), value=1.0)
    bordered[:, 0, 0] = 0
    return (-torch.linalg.det(bordered) / 9216).clamp(min=0).sqrt()


def test_examples_in_docstrings():
    found = doctest.testmod(volume_nulls, extraglobs={"torch": torch})
    assert found.failed == 0 and found.attempted == 2


def test_sets_of_different_rows_equally_often():
    drawn = draw_simplices(6, 2, 40_000, seed=1)
    counts = Counter(tuple(sorted(one)) for one in drawn.tolist())
    assert set(counts) == set(itertools.combinations(range(6), 3))
    # 2,000 expected of each of 20: chi-square of 19 degrees, 4 deviations.
    chi_square = sum((count - 2000) ** 2 / 2000 for count in counts.values())
    assert chi_square < 19 + 4 * math.sqrt(38)
    assert torch.equal(drawn, draw_simplices(6, 2, 40_000, seed=1))
    assert not torch.equal(drawn, draw_simplices(6, 2, 40_000, seed=2))


@pytest.mark.parametrize("rows", [12, 400])  # a shared Gram matrix, and gathered edges
@pytest.mark.parametrize("k", [1, 2, 4])
def test_volumes_are_exact(k, rows):
    x = normal(rows, 7).float() + 3
    simplices = draw_simplices(rows, k, 20, seed=3)
    expected = [exact_volume(x[one]) for one in simplices]
    np.testing.assert_allclose(simplex_volumes(x, simplices).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(("tightness", "lost"), [(1e-2, 1e-4), (1e-3, 1e-2)])
def test_volumes_are_exact_in_a_tight_cone(tightness, lost):
    x = (normal(1, 64) + tightness * normal(12, 64, seed=2)).float()
    simplices = draw_simplices(12, 4, 10, seed=3)
    expected = np.array([exact_volume(x[one]) for one in simplices])
    np.testing.assert_allclose(simplex_volumes(x, simplices).numpy(), expected, rtol=1e-9)
    expansion = gram_expansion(x, simplices).double().numpy()
    assert np.abs(expansion / expected - 1).max() > lost


def test_two_tight_cones_are_computed_from_differences():
    # Centring helps one cone, not two: from the Gram matrix alone the error here is above 1e-6.
    far = torch.cat([torch.full((6, 32), 1e3), torch.full((6, 32), -1e3)]).double()
    x = far + 1e-3 * normal(12, 32)
    simplices = draw_simplices(6, 4, 30, seed=3) + 6
    simplices = torch.cat([simplices, simplices - 6])
    expected = [exact_volume(x[one]) for one in simplices]
    np.testing.assert_allclose(simplex_volumes(x, simplices).numpy(), expected, rtol=1e-9)


def test_flat_simplices_have_volume_0():
    twice = torch.tensor([[0, 0, 1], [0, 1, 2]])
    assert simplex_volumes(normal(3, 5), twice)[0] == 0 < simplex_volumes(normal(3, 5), twice)[1]
    assert (simplex_volumes(normal(6, 3), draw_simplices(6, 4, 40, seed=1)) == 0).all()


def test_statistics_leave_out_what_is_0():
    found = volume_stats(torch.tensor([0.0, 1.0, 3.0, 0.0]))
    assert (found.kept, found.number, found.mean, found.cv) == (2, 4, 2, 0.5)
    assert found.log_std == pytest.approx(math.log(3) / 2)


@pytest.mark.parametrize(
    ("dim", "published"),
    list(zip(DIMS, PUBLISHED_CVS, strict=True)),
)
def test_the_cv_of_gaussian_pentachora(dim, published):
    assert gaussian_volume_cv(dim) == pytest.approx(published, abs=5.1e-5)
    leading = math.sqrt(sum(1 / (2 * (dim - i)) for i in range(4)))
    assert gaussian_volume_cv(dim) == pytest.approx(leading, rel=2.5 / dim)


@pytest.mark.parametrize(("dim", "k"), [(5, 1), (6, 3), (20, 4)])
def test_gaussian_volumes_have_their_closed_forms(dim, k):
    number = 40_000
    volumes = gaussian_volumes(torch.full((dim,), 2.25), k, number, seed=1)
    found = volume_stats(volumes)
    cv = gaussian_volume_cv(dim, k)
    mean = gaussian_mean_volume(dim, 1.5, k)
    assert found.mean == pytest.approx(mean, rel=4 * cv / math.sqrt(number))
    assert found.cv == pytest.approx(cv, rel=0.025)
    square = float(gaussian_mean_square_volume(torch.full((dim,), 2.25), k))
    assert square == pytest.approx(mean**2 * (1 + cv**2))  # two closed forms of one number


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_mean_square_volume_is_that_of_all_minors(k):
    eigenvalues = torch.tensor([[3.0, 0.5, 2.0, 1.0, 0.1], [1e-3, 1.0, 0.0, 4.0, 2.0]])
    expected = [
        (k + 1) / math.factorial(k) * sum(map(math.prod, itertools.combinations(row, k)))
        for row in eigenvalues.tolist()
    ]
    assert gaussian_mean_square_volume(eigenvalues, k).tolist() == pytest.approx(expected)


def test_the_mean_square_volume_holds_for_any_independent_points():
    # Signs, not Gaussian: all 2^(5 points x 2 coordinates) weighted equally would give it; drawn.
    generator = torch.Generator().manual_seed(1)
    deviations = torch.tensor([2.0, 1.0, 0.5, 0.25])
    signs = torch.randint(2, (40_000, 3, 4), generator=generator) * 2.0 - 1
    squares = simplex_volume(signs * deviations).double().square()
    error = float(squares.std()) / 200
    expected = float(gaussian_mean_square_volume(deviations.square(), 2))
    assert float(squares.mean()) == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("stretch", [0.0, 0.05, 0.15])
def test_norms_set_the_cv_of_pentachora(stretch):
    x = normal(600, 256) * (1 + stretch * normal(600, 1, seed=2))
    simplices = draw_simplices(600, 4, 8000, seed=3)
    ratio = float(debiased_participation(participation_ratio(covariance_eigenvalues(x)), 600))
    found = volume_cv(x, simplices)
    assert found.cv == pytest.approx(simplex_cv_prediction(ratio, float(norm_cv(x))), rel=0.05)
    assert found.log_std == pytest.approx(found.cv, rel=0.1)
    # Without norms, .4 / PR is left; dealt out anew, they give the same again.
    left = volume_cv(unit_centred(x), simplices).cv
    assert left == pytest.approx(math.sqrt(0.4 / ratio), rel=0.08)
    assert volume_cv(norms_shuffled(x, 5), simplices).cv == pytest.approx(found.cv, rel=0.05)


def test_shuffling_keeps_directions_and_norms():
    x = normal(9, 4) + 2
    shuffled = norms_shuffled(x, seed=1)
    norms = (x - x.mean(0)).norm(dim=-1)
    torch.testing.assert_close(shuffled.norm(dim=-1).sort().values, norms.sort().values)
    assert not torch.allclose(shuffled.norm(dim=-1), norms)
    directions = torch.nn.functional.normalize(x - x.mean(0), dim=-1)
    torch.testing.assert_close(torch.nn.functional.normalize(shuffled, dim=-1), directions)
    torch.testing.assert_close(unit_centred(x), directions)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: draw_simplices(4, 4, 10, 0),
            "a 4-simplex has 5 points and does not fit 4 rows",
        ),
        (
            lambda x: draw_simplices(9, 4, 0, 0),
            "number must be a whole number from 1, not 0",
        ),
        (
            lambda x: simplex_volumes(x, torch.tensor([[0, 5]])),
            "simplices must be [simplex, point] of 2 or more row indices from 0 to 4, not (1, 2); "
            "draw_simplices draws them",
        ),
        (
            lambda x: volume_cv(x, torch.tensor([[0]])),
            "simplices must be [simplex, point] of 2 or more row indices from 0 to 4, not (1, 1); "
            "draw_simplices draws them",
        ),
        (
            lambda x: volume_stats(torch.zeros(3)),
            "volume_stats needs finite volumes and one above 0, not 3 of which 0 are not finite; "
            "simplices of k + 1 points need k dimensions and distinct points",
        ),
        (
            lambda x: gaussian_volume_cv(3),
            "a 4-simplex in 3 dimensions has volume 0; lower k or raise dim",
        ),
        (
            lambda x: gaussian_mean_volume(9, 0.0),
            "std must be a finite positive number, not 0.0",
        ),
        (
            lambda x: gaussian_mean_square_volume(torch.tensor([1.0, -1.0])),
            "gaussian_mean_square_volume needs finite eigenvalues from 0, one at least, not (2,) "
            "with others; covariance_eigenvalues gives them",
        ),
        (
            lambda x: gaussian_volumes(torch.ones(0), 4, 9, 0),
            "gaussian_volumes needs finite eigenvalues from 0, one at least, not (0,) with others; "
            "covariance_eigenvalues gives them",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call(normal(5, 4))
    assert str(error.value) == message
