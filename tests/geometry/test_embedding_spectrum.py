"""Spectra against numpy, closed forms and simulated samples."""

import doctest
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.geometry import (
    covariance_eigenvalues,
    debiased_participation,
    dims_for_variance,
    dims_for_variance_null,
    participation_null,
    participation_ratio,
    spectrum,
)


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_examples_in_docstrings():
    found = doctest.testmod(spectrum, extraglobs={"torch": torch})
    assert found.failed == 0 and found.attempted == 4


def test_the_spectrum_is_that_of_numpys_covariance():
    x = normal(3, 20, 6) * torch.arange(1.0, 7) + 5
    expected = [np.linalg.eigvalsh(np.cov(one.T.numpy(), ddof=0))[::-1] for one in x]
    np.testing.assert_allclose(covariance_eigenvalues(x).numpy(), expected, rtol=1e-10)


def test_the_spectrum_of_few_float32_points_is_not_negative():
    eigenvalues = covariance_eigenvalues(normal(4, 30).float())
    assert (eigenvalues >= 0).all() and (eigenvalues[3:] < 1e-12).all()


@pytest.mark.parametrize("equal", [1, 3, 8])
def test_the_participation_ratio_counts_equal_values(equal):
    values = torch.zeros(2, 8)
    values[:, :equal] = torch.tensor([[0.5], [7.0]])
    assert participation_ratio(values).tolist() == pytest.approx([equal, equal])


def test_the_participation_ratio_is_trace_squared_over_frobenius():
    x = normal(50, 6) * torch.arange(1.0, 7)
    covariance = np.cov(x.T.numpy(), ddof=0)
    expected = np.trace(covariance) ** 2 / np.square(covariance).sum()
    assert float(participation_ratio(covariance_eigenvalues(x))) == pytest.approx(expected)


def test_isotropic_points_read_the_null_and_debias_to_the_dimension():
    # The deviation of one sample is about 1 / rows, relatively; five samples.
    rows, dim = 400, 100
    ratios = participation_ratio(covariance_eigenvalues(normal(5, rows, dim)))
    assert float(ratios.mean()) == pytest.approx(participation_null(dim, rows), rel=2 / rows)
    assert float(debiased_participation(ratios, rows).mean()) == pytest.approx(dim, rel=4 / rows)


def test_debiasing_finds_the_ratio_of_any_spectrum():
    weights = torch.arange(1, 41) ** -0.5  # deviations: eigenvalues 1 / j
    true = float(participation_ratio(weights.square()))
    seen = participation_ratio(covariance_eigenvalues(normal(40, 100, 40) * weights))
    assert float(seen.mean()) < 0.95 * true
    assert float(debiased_participation(seen, 100).mean()) == pytest.approx(true, rel=0.03)


def test_the_published_readings_of_random_tables():
    # Findings 003, B1: randomly initialised T5-small, and isotropic points as many as Qwen's.
    assert participation_null(512, 32128) / 512 == pytest.approx(0.98421, abs=2e-4)
    assert participation_null(1024, 10_000) / 1024 == pytest.approx(0.907, abs=5e-4)
    fractions = (0.8, 0.9, 0.95, 0.99)
    assert dims_for_variance_null(512, 32128, fractions) == [390, 449, 480, 506]
    # It prints 705, 846, 928, 1003: the law's 705.2, 846.4, 928.2 and 1003.0, not yet reached.
    assert dims_for_variance_null(1024, 10_000, fractions) == [706, 847, 929, 1003]


@pytest.mark.parametrize(("rows", "dim"), [(900, 300), (300, 300), (150, 300)])
def test_the_null_of_dims_is_what_isotropic_points_need(rows, dim):
    fractions = (0.5, 0.8, 0.9, 0.99)
    found = dims_for_variance(covariance_eigenvalues(normal(rows, dim)), fractions)
    assert dims_for_variance_null(dim, rows, fractions) == pytest.approx(found.tolist(), abs=2)


def test_all_variance_takes_all_the_rank():
    assert dims_for_variance_null(50, 200, (0.0, 1.0)) == [1, 50]
    assert dims_for_variance_null(200, 50, (0.0, 1.0)) == [1, 50]


def test_dims_for_variance_by_a_loop():
    values = normal(4, 30).square()
    fractions = (0.0, 0.3, 0.8, 0.95)
    for row, found in zip(values, dims_for_variance(values, fractions), strict=True):
        largest = sorted(row.tolist(), reverse=True)
        for fraction, dims in zip(fractions, found.tolist(), strict=True):
            assert sum(largest[:dims]) >= fraction * sum(largest)
            assert dims == 1 or sum(largest[: dims - 1]) < fraction * sum(largest)


def test_a_sample_that_says_nothing_debiases_to_infinity():
    assert math.isinf(float(debiased_participation(torch.tensor(10.0), 10)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: covariance_eigenvalues(torch.ones(1, 4)),
            "covariance_eigenvalues needs two rows at least, not (1, 4); rows are the last axis "
            "but one",
        ),
        (
            lambda: participation_ratio(torch.tensor([1.0, -2.0])),
            "participation_ratio needs finite values from 0, not -2 to 1; pass eigenvalues of a "
            "covariance, or singular values",
        ),
        (
            lambda: dims_for_variance(torch.tensor([1.0, math.nan]), (0.5,)),
            "dims_for_variance needs finite values from 0, not nan to nan; pass eigenvalues of a "
            "covariance, or singular values",
        ),
        (
            lambda: dims_for_variance(torch.ones(3), (0.5, 95.0)),
            "each of fractions must be a number from 0 to 1, not 95.0",
        ),
        (
            lambda: dims_for_variance_null(4, 9, (2.0,)),
            "each of fractions must be a number from 0 to 1, not 2.0",
        ),
        (lambda: participation_null(0, 9), "dim must be a whole number from 1, not 0"),
        (
            lambda: debiased_participation(torch.ones(1), 0),
            "rows must be a whole number from 1, not 0",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call()
    assert str(error.value) == message
