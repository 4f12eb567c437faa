"""Resampled curves against the lexicon's own bootstrap and against pairs written out."""

from typing import Any

import numpy as np
import pytest
import torch

from probekit.lexicon import alignment, sample_pairs, similarity_gradient, token_bootstrap
from probekit.terrain.resampling import difference, resampled_curves

NODES, SETTINGS = 30, 3


@pytest.fixture
def given():
    sample = sample_pairs(NODES, NODES, 800, np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    tables = torch.rand(SETTINGS, NODES, NODES, generator=generator, dtype=torch.float64)
    tables = tables + tables.mT
    similarity = torch.rand(len(sample.first), generator=generator, dtype=torch.float64)
    kept = torch.rand(SETTINGS, NODES, generator=generator, dtype=torch.float64)
    nouns = torch.rand(len(sample.first), generator=generator) < 0.5
    cosines = torch.stack([sample.of(table) for table in tables])
    return similarity, cosines, kept, nouns, sample, tables


def test_pearsons_draws_are_the_lexicons(given) -> None:
    *args, tables = given
    found = resampled_curves(*args, draws=50, seed=3)["pearson"]
    assert found.shape == (50, SETTINGS)
    for index, table in enumerate(tables):
        expected = token_bootstrap(args[0], table, args[-1], draws=50, seed=3)
        assert float(found[:, index].std(correction=0)) == pytest.approx(expected.std)
        low, high = np.quantile(found[:, index].numpy(), [0.025, 0.975])
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_a_draw_is_every_pair_as_often_as_its_definitions(given) -> None:
    similarity, cosines, kept, nouns, sample, _ = given
    found = resampled_curves(similarity, cosines, kept, nouns, sample, draws=2, seed=1)
    rng = np.random.default_rng(1)
    rng.integers(NODES, size=NODES)
    drawn = rng.integers(NODES, size=NODES)  # the second draw
    counts = torch.tensor([(drawn == node).sum() for node in range(NODES)])
    times = counts[sample.first] * counts[sample.second]
    s, y, n = (x.repeat_interleave(times) for x in (similarity, cosines[2], nouns))
    assert float(found["pearson"][1, 2]) == pytest.approx(alignment(s, y).pearson)
    assert float(found["nouns"][1, 2]) == pytest.approx(alignment(s[n], y[n]).pearson)
    assert float(found["gradient"][1, 2]) == pytest.approx(similarity_gradient(s, y).gradient)
    assert float(found["preservation"][1, 2]) == pytest.approx(float(kept[2][drawn].mean()))


def test_a_difference_is_paired_by_draw() -> None:
    shared = np.random.default_rng(0).normal(size=(100, 1))

    def curve(alphas: list[float], values: list[float], draws: np.ndarray) -> dict[str, Any]:
        return {"alphas": alphas, "r": values, "resampled": {"r": np.array(values) + draws}}

    one, other = curve([0.1, 0.5], [3.0, 5.0], shared), curve([0.5, 0.7], [1.0, 2.0], shared)
    assert difference(one, other, "r", 0.5) == pytest.approx((4, 4, 4))
    alone = curve([0.5], [1.0], 0 * shared)
    low, high = np.quantile(shared + 4, [0.025, 0.975])
    assert difference(one, alone, "r", 0.5) == pytest.approx((4, low, high))
