"""Sampled pairs, correlations, bands, and what parts of speech explain."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from unchecked import unchecked

from probekit.errors import ProbekitError
from probekit.geometry import pair_cosines
from probekit.lexicon import (
    DISJOINT_BANDS,
    PairSample,
    alignment,
    band_cosines,
    cosine_table,
    eta_squared,
    noun_pairs,
    partial_correlation,
    pos_pairs,
    sample_pairs,
    similarity_gradient,
)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def all_pairs(nodes: int) -> PairSample:
    first, second = torch.triu_indices(nodes, nodes, 1)
    return PairSample(torch.arange(nodes), first, second)


def test_pairs_are_drawn_in_the_published_order():
    rng = np.random.default_rng(42)
    chosen = rng.choice(50, 20, replace=False)
    first, second = rng.choice(20, 300), rng.choice(20, 300)
    mine = np.random.default_rng(42)
    sample = sample_pairs(50, 20, 300, mine)
    assert sample.chosen.tolist() == chosen.tolist()
    assert sample.first.tolist() == first[first != second].tolist()
    assert sample.second.tolist() == second[first != second].tolist()
    assert mine.random() == rng.random()  # nothing else was drawn
    assert len(sample_pairs(5, 20, 30, mine).chosen) == 5


def test_cosines_of_pairs():
    x, sample = normal(50, 8), sample_pairs(50, 20, 300, np.random.default_rng(0))
    pairs = torch.stack([sample.chosen[sample.first], sample.chosen[sample.second]], 1)
    torch.testing.assert_close(sample.of(cosine_table(x, sample)), pair_cosines(x, pairs))


def test_parts_of_speech(small):
    names = ["n", "n", "v", "a", "s", "r"]
    first = {pos: int(np.flatnonzero(small.pos == pos)[0]) for pos in names}
    places = [first["n"] + 1, *(first[pos] for pos in names[1:])]
    synsets = torch.tensor([*places, places[0]])
    sample = all_pairs(7)
    groups: dict[int, set[frozenset[str]]] = {}
    merged = [{"s": "a"}.get(pos, pos) for pos in [*names, "n"]]
    for code, i, j in zip(
        pos_pairs(small, synsets, sample), sample.first, sample.second, strict=True
    ):
        groups.setdefault(int(code), set()).add(frozenset((merged[i], merged[j])))
    assert all(len(kinds) == 1 for kinds in groups.values())
    assert len(groups) == len({frozenset(kinds) for kinds in groups.values()})
    reverse = PairSample(sample.chosen, sample.second, sample.first)
    assert torch.equal(pos_pairs(small, synsets, reverse), pos_pairs(small, synsets, sample))
    kept = noun_pairs(small, synsets, sample)
    found = set(zip(sample.first[kept].tolist(), sample.second[kept].tolist(), strict=True))
    assert found == {(0, 1), (1, 6)}  # (0, 6) is one synset


def test_correlations_are_scipys_without_nan():
    x, y = normal(200), normal(200, seed=2)
    y = (y + 0.3 * x).round(decimals=1)  # ties
    x[::7] = math.nan
    kept = ~x.isnan()
    found = alignment(x, y)
    assert found.pearson == pytest.approx(stats.pearsonr(x[kept], y[kept]).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(x[kept], y[kept]).statistic)
    assert found.pairs == int(kept.sum())


def test_gradient_by_hand():
    similarity = torch.tensor([1.0, 0.25, 0.2, 0.1, 0.0999, 0.05, math.nan], dtype=torch.float64)
    cosines = torch.tensor([0.9, 0.5, 0.7, 0.8, 0.2, 0.4, 5.0], dtype=torch.float64)
    found = similarity_gradient(similarity, cosines)
    assert (found.high, found.low, found.gradient) == pytest.approx((0.7, 0.3, 0.4))
    assert found.standardised == pytest.approx(0.4 / np.std([0.9, 0.5, 0.7, 0.8, 0.2, 0.4]))


def test_eta_squared_is_the_f_statistics():
    groups = torch.arange(90) % 3 * 5
    values = normal(90) + 0.2 * groups
    f = stats.f_oneway(*(values[groups == g].numpy() for g in (0, 5, 10))).statistic
    assert eta_squared(values, groups) == pytest.approx(2 * f / (2 * f + 87))


def test_partial_correlation_is_of_regressions_on_dummies():
    groups = torch.arange(90) % 4
    x, y = normal(90) + groups, normal(90, seed=2) - 2 * groups
    y = y + 0.4 * x
    dummies = np.eye(4)[groups.numpy()]
    residuals = [
        values.numpy() - dummies @ np.linalg.lstsq(dummies, values.numpy(), rcond=None)[0]
        for values in (x, y)
    ]
    expected = stats.pearsonr(*residuals).statistic
    assert partial_correlation(x, y, groups) == pytest.approx(expected)
    assert alignment(x, y).pearson < 0 < expected


def test_bands_as_published_and_disjoint():
    lengths = torch.arange(40)
    similarity = 1 / (1 + lengths.double())
    cosines = lengths.double() / 40
    published = band_cosines(similarity, cosines)
    edges = [[], [1], [2, 3], range(4, 10), range(10, 20), range(19, 40)]
    assert [band.pairs for band in published] == [len(each) for each in edges]
    for band, each in zip(published[1:], edges[1:], strict=True):
        assert band.mean == pytest.approx(np.mean(each) / 40)
    assert math.isnan(published[0].mean)
    disjoint = band_cosines(similarity, cosines, DISJOINT_BANDS)
    assert [band.pairs for band in disjoint] == [1, 1, 2, 6, 10, 20]
    assert disjoint[-1].mean == pytest.approx(np.mean(range(20, 40)) / 40)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: unchecked(alignment, x, x[1:]),
            "alignment needs values of the same pairs, not 5 and 4",
        ),
        (
            lambda x: alignment(x, torch.ones(5)),
            "alignment needs 3 pairs or more with similarities and finite cosines that differ, not "
            "5 of 5; draw more",
        ),
        (
            lambda x: similarity_gradient(x.abs() + 1, x),
            "similarity_gradient needs pairs with similarity >= 0.25 and < 0.1, not 5 and 0; draw "
            "more",
        ),
        (
            lambda x: eta_squared(torch.ones(5), torch.arange(5)),
            "eta_squared needs values that differ, none of them NaN",
        ),
        (
            lambda x: partial_correlation(x, torch.arange(5) / 3, torch.arange(5)),
            "partial_correlation needs x and y that vary within groups, without NaN",
        ),
        (
            lambda x: unchecked(band_cosines, x, x[1:]),
            "band_cosines needs values of the same pairs, not 5 and 4",
        ),
        (lambda x: band_cosines(x, x, [(0.5, 0.1)]), "a band needs low < high, not 0.5 and 0.1"),
        (
            lambda x: cosine_table(x[:, None], all_pairs(6)),
            "the sample is of 6 entries or more, x has 5 rows",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call(normal(5))
    assert str(error.value) == message
