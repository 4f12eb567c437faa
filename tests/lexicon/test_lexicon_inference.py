"""Null and spread of correlations over pairs, against Mantel's test and literal resampling."""

import numpy as np
import pytest
import torch
from scipy import stats

from probekit.errors import ProbekitError
from probekit.geometry import mantel
from probekit.lexicon import PairSample, cosine_table, node_permutation, token_bootstrap


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def planted(nodes: int) -> tuple[torch.Tensor, torch.Tensor, PairSample]:
    """Similarities of all pairs that follow the cosines somewhat, and the cosines."""
    sample = PairSample(torch.arange(nodes), *torch.triu_indices(nodes, nodes, 1))
    cosines = cosine_table(normal(nodes, 6), sample)
    noise = normal(nodes, nodes, seed=2)
    return cosines + 0.4 * (noise + noise.T), cosines, sample


def test_permutations_are_mantels():
    table, cosines, sample = planted(12)
    expected = mantel(table, cosines, permutations=99, seed=3)
    found = node_permutation(sample.of(table), cosines, sample, permutations=99, seed=3)
    assert found.r == pytest.approx(expected.r)
    assert found.p == expected.p_above


def test_mean_and_deviation_by_hand():
    table, cosines, sample = planted(9)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(20):
        order = rng.permutation(9)
        y = [
            float(cosines[order[i], order[j]]) for i, j in zip(*np.triu_indices(9, 1), strict=True)
        ]
        drawn.append(stats.pearsonr(sample.of(table).numpy(), y).statistic)
    found = node_permutation(sample.of(table), cosines, sample)
    assert found.mean == pytest.approx(np.mean(drawn))
    assert found.std == pytest.approx(np.std(drawn))


def test_pairs_without_similarity_are_left_out():
    table, cosines, sample = planted(12)
    similarity = sample.of(table)
    kept = torch.arange(len(similarity)) % 5 > 0
    holed = torch.where(kept, similarity, torch.nan)
    for method in (node_permutation, token_bootstrap):
        assert method(holed, cosines, sample) == method(similarity[kept], cosines, sample[kept])


def test_bootstrap_is_that_of_lists_with_repeated_entries():
    table, cosines, sample = planted(10)
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(200):
        nodes = rng.integers(10, size=10)
        pairs = [(i, j) for k, i in enumerate(nodes) for j in nodes[:k] if i != j]
        x, y = ([float(matrix[i, j]) for i, j in pairs] for matrix in (table, cosines))
        drawn.append(stats.pearsonr(x, y).statistic)
    found = token_bootstrap(sample.of(table), cosines, sample, seed=5)
    assert found.std == pytest.approx(np.std(drawn))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert found.r == pytest.approx(float(np.corrcoef(sample.of(table), sample.of(cosines))[0, 1]))


def test_what_is_refused():
    table, cosines, sample = planted(5)
    message = (
        "a sample of 5 entries and 10 pairs needs as many cosines and similarities, not (4, 4) and "
        "10"
    )
    for method in (node_permutation, token_bootstrap):
        with pytest.raises(ProbekitError) as error:
            method(sample.of(table), cosines[:4, :4], sample)
        assert str(error.value) == message
    with pytest.raises(ProbekitError, match=r"^draws must be a whole number from 1, not 0$"):
        token_bootstrap(sample.of(table), cosines, sample, draws=0)
