"""Cosines of pairs against scipy, and densities against exact distributions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import pdist
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.geometry import (
    cosine_null,
    cosine_stats,
    density_ratio,
    mean_cosine_prediction,
    pair_cosines,
    window_share,
)


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def quantiles_of(distribution, n: int) -> Tensor:
    """n points spread as the distribution is, without chance."""
    return torch.from_numpy(distribution.ppf((np.arange(n) + 0.5) / n))


def test_all_pairs_are_scipys_in_order():
    x = normal(9, 5)
    np.testing.assert_allclose(pair_cosines(x).numpy(), 1 - pdist(x.numpy(), "cosine"))


def test_given_pairs_are_scipys():
    x, pairs = normal(9, 5), torch.tensor([[3, 8], [8, 3], [0, 1], [2, 2]])
    all_pairs = pair_cosines(x)
    found = pair_cosines(x, pairs)
    assert found[0] == found[1] and found[2] == pytest.approx(float(all_pairs[0]))
    assert float(found[3]) == pytest.approx(1)
    expected = 1 - pdist(x[[3, 8]].numpy(), "cosine")
    assert float(found[0]) == pytest.approx(expected[0])


def test_statistics_are_numpys():
    cosines = pair_cosines(normal(30, 5).float())
    found = cosine_stats(cosines, (0.0, 0.25, 0.5))
    values = cosines.numpy()
    assert found.mean == pytest.approx(values.mean()) and found.std == pytest.approx(values.std())
    assert found.quantiles == pytest.approx(
        {0.0: values.min(), 0.25: np.percentile(values, 25), 0.5: np.median(values)}
    )
    assert len(cosine_stats(cosines).quantiles) == 7


def test_isotropic_rows_read_the_null():
    dim, rows = 64, 600
    found = cosine_stats(pair_cosines(normal(rows, dim)))
    # The mean is that of |sum of unit rows|^2 - rows: deviation sqrt(2 / dim) / rows.
    assert abs(found.mean) < 4 * math.sqrt(2 / dim) / rows
    assert found.std == pytest.approx(cosine_null(dim), rel=0.01)


def test_a_common_part_predicts_the_mean_cosine():
    x = normal(800, 64) + 0.5
    found = cosine_stats(pair_cosines(x)).mean
    assert float(mean_cosine_prediction(x)) == pytest.approx(found, rel=0.02)
    assert found == pytest.approx(0.2, abs=0.01)  # .25 / (1 + .25)
    assert float(mean_cosine_prediction(x - x.mean(0))) < 1e-20
    # For equal lengths it is the mean over all pairs, own ones included, exactly.
    units = torch.nn.functional.normalize(x, dim=-1)
    total = 2 * float(pair_cosines(x).sum()) + len(x)
    assert float(mean_cosine_prediction(units)) == pytest.approx(total / len(x) ** 2)


def test_a_window_holds_its_share():
    values = quantiles_of(stats.uniform(-1, 2), 10_000)
    assert window_share(values, 0.3, 0.01) == pytest.approx(0.01)
    assert window_share(values, 1.0, 0.01) == pytest.approx(0.005)


@pytest.mark.parametrize("centre", [0.0, 0.05, 0.1, -0.12])
def test_a_smooth_distribution_has_a_ratio_of_1_everywhere(centre):
    values = quantiles_of(stats.norm(0, 1 / math.sqrt(512)), 2_000_000)
    assert density_ratio(values, centre, 0.01) == pytest.approx(1, abs=0.01)


def test_a_crowded_constant_is_found():
    smooth = quantiles_of(stats.uniform(0, 1), 100_000)
    crowd = torch.full((500,), 0.29514, dtype=torch.float64)
    values = torch.cat([smooth, crowd])
    # Uniform: 2,000 in a window of width .02, and 500 more.
    assert density_ratio(values, 0.29514, 0.01) == pytest.approx(1.25, abs=0.002)
    assert density_ratio(values, 0.6, 0.01) == pytest.approx(1, abs=0.002)


def test_the_ratio_scatters_as_documented():
    ratios, count = [], 1000
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        values = torch.rand(20 * count, generator=generator, dtype=torch.float64)
        ratios.append(density_ratio(values, 0.5, 0.025))
    assert np.mean(ratios) == pytest.approx(1, abs=3 * 1.4 / math.sqrt(200 * count))
    assert np.std(ratios) == pytest.approx(1.4 / math.sqrt(count), rel=3 / math.sqrt(400))


def test_no_neighbours_say_nothing():
    assert math.isnan(density_ratio(torch.tensor([0.5, 0.5]), 0.5, 0.01))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pair_cosines(x[:1]), "pair_cosines needs two rows at least, not (1, 4)"),
        (
            lambda x: pair_cosines(x, torch.tensor([[0, 5]])),
            "pairs must be [pair, 2] of row indices from 0 to 4, not (1, 2) up to 5",
        ),
        (
            lambda x: pair_cosines(x, torch.tensor([[0, 1, 2]])),
            "pairs must be [pair, 2] of row indices from 0 to 4, not (1, 3) up to 2",
        ),
        (
            lambda x: cosine_stats(pair_cosines(x * torch.tensor([0.0, 1, 1, 1, 1])[:, None])),
            "cosine_stats needs cosines, not 10 with 4 NaN; leave out rows of length 0",
        ),
        (
            lambda x: cosine_stats(x[0], (50.0,)),
            "each of quantiles must be a number from 0 to 1, not 50.0",
        ),
        (lambda x: cosine_null(0), "dim must be a whole number from 1, not 0"),
        (
            lambda x: window_share(x[0], 0.5, 0.0),
            "half_width must be a finite positive number, not 0.0",
        ),
        (
            lambda x: density_ratio(x[0], math.nan, 0.1),
            "centre must be a finite number, not nan",
        ),
        (
            lambda x: window_share(x[0, :0], 0.5, 0.1),
            "a window's share needs values, not none; pass pair_cosines",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call(normal(5, 4))
    assert str(error.value) == message
