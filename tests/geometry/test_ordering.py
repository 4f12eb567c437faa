"""Order of items against scipy, all permutations by hand, and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.geometry import (
    digit_order,
    digit_order_null,
    digit_order_walk,
    mantel,
    pair_cosines,
)


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def steps(items: int) -> list[int]:
    return [j - i for i, j in itertools.combinations(range(items), 2)]


def with_cosines(matrix: Tensor) -> Tensor:
    """Unit rows whose products are ``matrix``."""
    return torch.linalg.cholesky(matrix)


def test_correlations_are_scipys():
    x = normal(10, 30).cumsum(0)
    cosines = pair_cosines(x).numpy()
    found = digit_order(x, permutations=10)
    assert found.pearson == pytest.approx(stats.pearsonr(steps(10), cosines).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(steps(10), cosines).statistic)
    near = np.array(steps(10)) == 1
    assert found.adjacent == pytest.approx(cosines[near].mean())
    assert found.distant == pytest.approx(cosines[~near].mean())


@pytest.mark.parametrize(("tau", "published"), [(1, -0.79), (2, -0.90), (4, -0.97)])
def test_chains_read_as_in_the_review(tau, published):
    items = torch.arange(10, dtype=torch.float64)
    kernel = (-(items[:, None] - items).abs() / tau).exp()
    found = digit_order(with_cosines(kernel), permutations=999)
    assert found.pearson == pytest.approx(published, abs=0.006)
    # Rounding breaks ties of equal cosines: sqrt(1 - 3.67 / 168.7) of the rank variance is left.
    assert found.spearman == pytest.approx(-0.989, abs=0.011)
    assert found.p == 1 / 1000  # no other order does as well


def test_neighbours_alone_read_as_in_the_review():
    chain = torch.eye(10, dtype=torch.float64)
    chain.diagonal(1).fill_(0.3)
    chain.diagonal(-1).fill_(0.3)
    found = digit_order(with_cosines(chain), permutations=9)
    assert found.pearson == pytest.approx(-0.603, abs=1e-3)


def test_mantel_by_hand_over_all_permutations():
    x, y = (one + one.T for one in (normal(5, 5), normal(5, 5, seed=4)))
    pairs = list(itertools.combinations(range(5), 2))
    first = [float(x[i, j]) for i, j in pairs]
    drawn = [
        stats.pearsonr(first, [float(y[order[i], order[j]]) for i, j in pairs]).statistic
        for order in itertools.permutations(range(5))
    ]
    found = mantel(x, y, permutations=4000)
    assert found.r == pytest.approx(drawn[0])
    below = np.mean([r <= drawn[0] + 1e-9 for r in drawn])
    above = np.mean([r >= drawn[0] - 1e-9 for r in drawn])
    # 4,000 draws: deviation at most .008.
    assert found.p_below == pytest.approx(below, abs=0.03)
    assert found.p_above == pytest.approx(above, abs=0.03)


def test_a_reversed_order_counts_as_equal():
    line = torch.arange(4, dtype=torch.float64)
    x = (line[:, None] - line).abs()
    found = mantel(x, x.sqrt(), permutations=6000)
    # The order itself and its reverse, 2 of 24; deviation .0036.
    assert found.p_above == pytest.approx(1 / 12, abs=0.015)
    assert found.p_below == 1


def test_independent_rows_read_the_null():
    found = [digit_order(normal(10, 64, seed=s), permutations=1).pearson for s in range(400)]
    assert digit_order_null(10) == pytest.approx(0.151, abs=5e-4)
    assert np.mean(found) == pytest.approx(0, abs=4 * 0.151 / 20)
    assert np.std(found) == pytest.approx(digit_order_null(10), rel=4 / math.sqrt(800))


def test_a_random_walk_reads_as_ordered():
    limit = [math.sqrt((i + 1) / (j + 1)) for i, j in itertools.combinations(range(10), 2)]
    expected = stats.pearsonr(steps(10), limit).statistic
    assert expected == pytest.approx(-0.851, abs=1e-3)
    mean, deviation = digit_order_walk(10, 20_000, 5, seed=1)
    assert mean == pytest.approx(expected, abs=0.01) and deviation < 0.02
    mean, deviation = digit_order_walk(10, 512, 100, seed=1)
    assert (mean, deviation) == pytest.approx((-0.84, 0.04), abs=0.02)  # of the review


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: digit_order(x[:3]),
            "digit_order needs 4 items or more, none of length 0, not (3, 4) with 0 of length 0 or "
            "NaN",
        ),
        (
            lambda x: digit_order(torch.zeros_like(x)),
            "digit_order needs 4 items or more, none of length 0, not (5, 4) with 5 of length 0 or "
            "NaN",
        ),
        (
            lambda x: digit_order(x, permutations=0),
            "permutations must be a whole number from 1, not 0",
        ),
        (
            lambda x: mantel(x[:4], x[:4]),
            "mantel needs two symmetric matrices of 3 items or more, not (4, 4) and (4, 4); both "
            "are [item, item]",
        ),
        (
            lambda x: mantel(torch.eye(4), torch.ones(4, 4)),
            "mantel needs pairs that differ, not all alike or NaN; leave out rows of length 0",
        ),
        (lambda x: digit_order_null(3), "digit_order needs 4 items or more, not 3"),
        (
            lambda x: digit_order_walk(10, 4, 1, 0),
            "digit_order_walk needs 4 items and 2 draws or more, not 10 and 1",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call(normal(5, 4))
    assert str(error.value) == message
