"""Spread of norms and distances against numpy, simulation and the numbers of findings 003."""

import doctest
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.geometry import (
    covariance_eigenvalues,
    debiased_participation,
    distance_cv,
    norm_cv,
    norm_cv_null,
    participation_ratio,
    simplex_cv_prediction,
    spread,
)


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def beyond(c: float, ratio: float) -> float:
    """The measured norm CV of Gaussian points whose lengths are stretched with a CV of c."""
    return math.hypot(c, norm_cv_null(ratio))


def test_examples_in_docstrings():
    found = doctest.testmod(spread, extraglobs={"torch": torch})
    assert found.failed == 0 and found.attempted == 2


def test_norm_cv_is_numpys_after_centring():
    x = normal(2, 9, 4) + 30
    for one, found in zip(x.numpy(), norm_cv(x), strict=True):
        norms = np.linalg.norm(one - one.mean(0), axis=1)
        assert float(found) == pytest.approx(norms.std() / norms.mean())


def test_gaussian_norms_vary_as_their_null_says():
    x = normal(4000, 200) * torch.arange(1, 201) ** -0.25
    ratio = float(participation_ratio(covariance_eigenvalues(x)))
    # A deviation of 4,000 norms is within 1 / sqrt(8000) of its own; 3 of them, and 1 / PR.
    assert float(norm_cv(x)) == pytest.approx(norm_cv_null(ratio), rel=0.04)


def test_distance_cv_is_scipys():
    x = normal(40, 6)
    distances = pdist(x.numpy())
    assert distance_cv(x) == pytest.approx(distances.std() / distances.mean())


@pytest.mark.parametrize("stretch", [0.0, 0.1])
def test_distances_vary_as_predicted(stretch):
    dim = 256.0
    x = normal(1500, 256) * (1 + stretch * normal(1500, 1, seed=2))
    seen = participation_ratio(covariance_eigenvalues(x))
    ratio = float(debiased_participation(seen, 1500))
    predicted = simplex_cv_prediction(ratio, float(norm_cv(x)), k=1)
    assert distance_cv(x) == pytest.approx(predicted, rel=0.02)
    # The review's own form, with what norms vary beyond a Gaussian's.
    review = math.sqrt(1 / (2 * dim) + stretch**2 / 2)
    assert simplex_cv_prediction(dim, beyond(stretch, dim), k=1) == pytest.approx(review)


@pytest.mark.parametrize(
    ("ratio", "c", "published"),
    [(512.0, 0.05, 0.109), (512.0, 0.1, 0.19), (512.0, 0.15, 0.276), (236.0, 0.1, 0.201)],
)
def test_pentachora_as_in_the_review(ratio, c, published):
    predicted = simplex_cv_prediction(ratio, beyond(c, ratio))
    assert predicted == pytest.approx(math.sqrt(2 / ratio + 3.2 * c**2))
    assert predicted == pytest.approx(published, abs=7e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: norm_cv(torch.ones(3, 1, 4)),
            "norm_cv needs two rows at least, not (3, 1, 4); rows are the last axis but one",
        ),
        (
            lambda: distance_cv(torch.ones(1, 4)),
            "distance_cv needs two rows at least, not (1, 4); rows are the last axis but one",
        ),
        (lambda: norm_cv_null(0.0), "ratio must be a finite positive number, not 0.0"),
        (
            lambda: simplex_cv_prediction(4.0, -0.1),
            "norm_cv must be a finite number from 0, not -0.1",
        ),
        (lambda: simplex_cv_prediction(4.0, 0.1, 0), "k must be a whole number from 1, not 0"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call()
    assert str(error.value) == message
