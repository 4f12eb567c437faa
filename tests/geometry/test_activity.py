"""Activity metrics against closed forms, published values, scipy and brute force."""

import doctest
import itertools
import math

import pytest
import scipy.spatial
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.geometry import (
    activity,
    cka,
    feature_variance,
    flattened_cosine,
    gauge_rotation,
    gini,
    mean_example_cosine,
    mean_norm,
    outlier_ratio,
    outlier_variance,
    pattern_constancy,
    snr_db,
)

shares = st.lists(st.floats(0, 10), min_size=2, max_size=12).filter(lambda v: sum(v) > 0.1)


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def patterns(*shape: int, seed: int = 1) -> Tensor:
    return normal(*shape, seed=seed).softmax(-1)


def after_layer_norm(width: int, gain: float) -> Tensor:
    return gain * torch.nn.functional.layer_norm(7 * normal(5, 20, width) + 3, (width,), eps=1e-12)


def test_examples_in_docstrings():
    found = doctest.testmod(activity, extraglobs={"torch": torch})
    assert found.failed == 0 and found.attempted == 2


@pytest.mark.parametrize(("width", "published"), [(32, 5.66), (64, 8.0), (128, 11.31)])
def test_the_norm_after_a_layer_norm_is_its_gain(width, published):
    assert mean_norm(after_layer_norm(width, 1.0)) == pytest.approx(published, abs=0.005)
    assert mean_norm(after_layer_norm(width, 1.3)) == pytest.approx(1.3 * math.sqrt(width))


@pytest.mark.parametrize(("norm", "published"), [(11.64, 1.07), (11.39, 1.02)])
def test_the_feature_variance_after_a_layer_norm_is_the_norm_again(norm, published):
    x = after_layer_norm(128, norm / math.sqrt(128))
    assert mean_norm(x) == pytest.approx(norm)
    assert feature_variance(x) == pytest.approx(norm**2 / 127)
    assert feature_variance(x) == pytest.approx(published, abs=0.005)


def test_the_feature_variance_is_that_within_vectors():
    # One vector, many times: no variance over inputs. Deviations 1 and 3 average to 2.
    assert feature_variance(torch.tensor([[1.0, 2.0, 3.0]] * 9)) == pytest.approx(1)
    assert feature_variance(torch.tensor([[1.0, 2, 3], [3.0, 6, 9]])) == pytest.approx(4)


def test_snr_is_ten_decibels_a_factor_of_ten():
    x = normal(400, 500)
    scaled = 3 * (x - x.mean()) / x.std()
    assert snr_db(scaled, 3.0) == pytest.approx(0)
    assert snr_db(scaled, 3 * math.sqrt(0.1)) == pytest.approx(10)
    assert snr_db(10 * scaled + 5, 3.0) == pytest.approx(20)
    # 20,000 entries of a LayerNorm: the gain in decibels.
    assert snr_db(after_layer_norm(128, 1.4), 1.0) == pytest.approx(20 * math.log10(1.4), abs=1e-3)


@pytest.mark.parametrize("other", [1, 2, 3])
def test_pattern_constancy_is_scipys_distance(other):
    p, q = patterns(4, 9, 9), patterns(4, 9, 9, seed=other)
    q = q.tril() if other == 3 else q
    distance = scipy.spatial.distance.jensenshannon(p.flatten(), q.flatten())
    assert pattern_constancy(p, q) == pytest.approx(1 - distance, abs=1e-7)


@given(shares, st.randoms(use_true_random=False))
def test_pattern_constancy_has_its_bounds(values, random):
    p = torch.tensor(values, dtype=torch.float64)
    q = torch.tensor(random.sample(values, len(values)), dtype=torch.float64)
    constancy = pattern_constancy(p, q)
    assert 1 - math.sqrt(math.log(2)) - 1e-7 <= constancy <= 1
    assert constancy == pattern_constancy(q, p)
    assert pattern_constancy(p, 5 * p) == pytest.approx(1, abs=1e-7)


def test_disjoint_patterns_do_not_read_0():
    eye = torch.eye(6)
    assert pattern_constancy(eye, eye.flip(0)) == pytest.approx(1 - math.sqrt(math.log(2)))
    assert pattern_constancy(eye, eye) == 1


def test_the_flattened_cosine_is_scipys():
    x, y = normal(3, 4, 5), normal(3, 4, 5, seed=2)
    expected = 1 - scipy.spatial.distance.cosine(x.flatten(), y.flatten())
    assert flattened_cosine(x, y) == pytest.approx(expected)
    assert flattened_cosine(x, -2 * x) == pytest.approx(-1)


def test_averaging_heads_hides_which_head_attends_where():
    x = (4 * normal(8, 4, 12, 12)).softmax(-1)
    swapped = x.flip(1)
    assert flattened_cosine(x, swapped) < 0.5
    assert flattened_cosine(x.mean(1), swapped.mean(1)) == pytest.approx(1)
    # Unrelated patterns are no 0 either, and less so averaged.
    other = (4 * normal(8, 4, 12, 12, seed=2)).softmax(-1)
    assert 0.1 < flattened_cosine(x, other) < flattened_cosine(x.mean(1), other.mean(1))


def test_the_mean_cosine_weighs_examples_equally():
    x = torch.tensor([[100.0, 0.0], [0.0, 1.0]])
    y = torch.tensor([[100.0, 0.0], [1.0, 0.0]])
    assert mean_example_cosine(x, y) == pytest.approx(0.5)
    assert flattened_cosine(x, y) == pytest.approx(10000 / 10001)
    expected = [
        1 - scipy.spatial.distance.cosine(a, b)
        for a, b in zip(normal(7, 5), normal(7, 5, seed=2), strict=True)
    ]
    assert mean_example_cosine(normal(7, 5), normal(7, 5, seed=2)) == pytest.approx(
        sum(expected) / 7
    )


def test_a_gauge_rotation_changes_cosines_and_not_the_function():
    x, unembed = normal(40, 16), normal(16, 30, seed=2)
    turned, matrix = gauge_rotation(x, unembed, seed=3)
    torch.testing.assert_close(turned @ matrix, x @ unembed)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert cka(x, turned) == pytest.approx(1)
    assert mean_example_cosine(x, turned) < 0.3
    again, other = (gauge_rotation(x, unembed, seed=seed)[0] for seed in (3, 4))
    assert torch.equal(turned, again) and not torch.allclose(turned, other)


def test_the_spread_of_the_gauge_null_is_the_documented_one():
    x, draws, dim = normal(50, 12) + 1, 400, 12
    unembed = torch.eye(dim, dtype=torch.float64)
    cosines = torch.tensor(
        [mean_example_cosine(x, gauge_rotation(x, unembed, seed)[0]) for seed in range(draws)]
    )
    unit = torch.nn.functional.normalize(x, dim=-1)
    moment = unit.T @ unit / len(unit)
    spread = float(moment.square().sum().sqrt()) / math.sqrt(dim)  # 1 / sqrt(d PR), trace 1
    assert abs(float(cosines.mean())) < 4 * spread / math.sqrt(draws)
    # A sample deviation of 400 draws is within 1 / sqrt(800) of its own, three times over.
    assert float(cosines.std()) == pytest.approx(spread, rel=3 / math.sqrt(800))


def test_outliers_of_known_variances():
    signs = torch.tensor([[1.0], [-1.0]]).repeat(50, 1)  # sample variance 100/99
    deviations = torch.tensor([1.0] * 18 + [2.0, 10.0])
    x = signs * deviations + 7
    # The 90th percentile lies between 1 and 4: both large features are above it.
    assert outlier_variance(x) == pytest.approx((4 + 100) / 2 * 100 / 99)
    assert outlier_ratio(x) == pytest.approx(100)
    assert outlier_ratio(x.reshape(4, 25, 20)) == pytest.approx(100)
    assert outlier_variance(3 * x) == pytest.approx(9 * outlier_variance(x))
    assert math.isnan(outlier_variance(signs * torch.ones(4)))


def test_equal_features_read_as_equal_only_of_many_vectors():
    assert outlier_ratio(normal(20_000, 64)) < 1.05 < 2 < outlier_ratio(normal(10, 64))


@given(shares)
def test_gini_is_the_mean_absolute_difference(values):
    pairs = sum(abs(a - b) for a, b in itertools.product(values, repeat=2))
    expected = pairs / (2 * len(values) * sum(values))
    assert gini(torch.tensor(values, dtype=torch.float64)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [1, 4, 32])
def test_gini_has_its_bounds(n):
    assert gini(torch.ones(n)) == pytest.approx(0, abs=1e-15)
    assert gini(torch.eye(n)[0]) == pytest.approx((n - 1) / n)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: feature_variance(x[:, :1]),
            "feature_variance needs two features at least, not (5, 1); put features last",
        ),
        (
            lambda x: snr_db(x, 0.0),
            "noise_std must be a finite positive number, not 0.0",
        ),
        (
            lambda x: snr_db(x[:1, :1], 1.0),
            "snr_db needs two entries at least for a variance, not (1, 1); pass the activations "
            "of a batch",
        ),
        (
            lambda x: pattern_constancy(x, x[:3]),
            "pattern_constancy compares tensors of one shape, not (5, 4) and (3, 4)",
        ),
        (
            lambda x: pattern_constancy(torch.ones(5, 4), torch.zeros(5, 4)),
            "weights must be finite, not negative and not all 0, not 20 that sum to 0; pass "
            "attention weights or shares, not scores",
        ),
        (
            lambda x: gini(torch.tensor([3.0, -1.0])),
            "weights must be finite, not negative and not all 0, not 2 that sum to 2; pass "
            "attention weights or shares, not scores",
        ),
        (
            lambda x: gini(torch.tensor([3.0, math.nan])),
            "weights must be finite, not negative and not all 0, not 2 that sum to nan; pass "
            "attention weights or shares, not scores",
        ),
        (
            lambda x: flattened_cosine(x, x.T),
            "flattened_cosine compares tensors of one shape, not (5, 4) and (4, 5)",
        ),
        (
            lambda x: mean_example_cosine(x, x[:3]),
            "mean_example_cosine compares tensors of one shape, not (5, 4) and (3, 4)",
        ),
        (
            lambda x: gauge_rotation(x, x, 0),
            "gauge_rotation needs residuals [..., d_model] and unembed [d_model, d_vocab] of one "
            "d_model from 2, not (5, 4) and (5, 4); a nn.Linear keeps its weight transposed",
        ),
        (
            lambda x: outlier_ratio(x[:1]),
            "outlier_ratio needs two vectors at least, not (1, 4)",
        ),
        (
            lambda x: outlier_variance(x[0]),
            "outlier_variance needs two vectors at least, not (4,)",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call(normal(5, 4))
    assert str(error.value) == message
