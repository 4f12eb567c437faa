"""Similarities equal NLTK's to the last bit: all pairs of a tangled taxonomy, many of WordNet's."""

import itertools
import math

import numpy as np
import pytest
import torch

from probekit.errors import ProbekitError
from probekit.lexicon import WordNet, path_lengths, path_similarity, wu_palmer
from probekit.lexicon.taxonomy import ancestors


def same(ours: float, theirs: float | None) -> bool:
    return math.isnan(ours) if theirs is None else ours == theirs


def assert_equal(found, nltks, places, method, root):
    """Pairs ``places`` of the table against NLTK's synsets."""
    different = []
    for i, j in places:
        theirs = getattr(nltks[i], method)(nltks[j], simulate_root=root)
        if not same(float(found[i, j]), theirs):
            different.append((nltks[i], nltks[j], float(found[i, j]), theirs))
    assert different == []


@pytest.mark.parametrize("root", [True, False])
def test_all_pairs_of_a_tangled_taxonomy(small, small_reader, root):
    synsets = torch.arange(len(small))
    nltks = [small_reader.synset(name) for name in small.names]
    pairs = list(itertools.product(range(len(small)), repeat=2))
    found = path_similarity(small, synsets, simulate_root=root)
    assert_equal(found, nltks, pairs, "path_similarity", root)
    found = wu_palmer(small, synsets, simulate_root=root)
    assert_equal(found, nltks, pairs, "wup_similarity", root)
    # NLTK's oddities are there to be met.
    assert (found != found.T)[~found.isnan() & ~found.T.isnan()].any()
    assert (found.diagonal() != 1).any()


@pytest.mark.parametrize("root", [True, False])
def test_wordnets_synsets(wordnet, reader, root):
    rng = np.random.default_rng(0)
    nouns, verbs = (np.flatnonzero(wordnet.pos == pos) for pos in "nv")
    for choice in (rng.choice(nouns, 700), rng.choice(verbs, 300), rng.choice(len(wordnet), 300)):
        nltks = [reader.synset(wordnet.names[i]) for i in choice]
        pairs = rng.integers(len(choice), size=(500, 2)).tolist()
        synsets = torch.from_numpy(choice)
        found = path_similarity(wordnet, synsets, simulate_root=root)
        assert_equal(found, nltks, pairs, "path_similarity", root)
        found = wu_palmer(wordnet, synsets, simulate_root=root)
        assert_equal(found, nltks, pairs, "wup_similarity", root)


@pytest.mark.slow
@pytest.mark.parametrize("root", [True, False])
def test_six_thousand_nouns(wordnet, reader, root):
    rng = np.random.default_rng(1)
    choice = rng.choice(np.flatnonzero(wordnet.pos == "n"), 6000, replace=False)
    nltks = [reader.synset(wordnet.names[i]) for i in choice]
    pairs = rng.integers(6000, size=(5000, 2)).tolist()
    synsets = torch.from_numpy(choice)
    for method, ours in (("path_similarity", path_similarity), ("wup_similarity", wu_palmer)):
        found = ours(wordnet, synsets, simulate_root=root)
        assert_equal(found, nltks, pairs, method, root)


def test_the_simulated_root_makes_any_two_adjectives_alike(small):
    adjectives = torch.from_numpy(np.flatnonzero(np.isin(small.pos, ["a", "s"])))
    others = ~torch.eye(3, dtype=torch.bool)
    assert path_similarity(small, adjectives)[others].tolist() == [1 / 3] * 6
    assert wu_palmer(small, adjectives)[others].tolist() == [1 / 2] * 6
    assert path_similarity(small, adjectives, simulate_root=False)[others].isnan().all()


def test_synsets_may_repeat_and_come_in_any_order(small):
    order = torch.tensor([30, 2, 30, 100, 7])
    for method in (path_similarity, wu_palmer):
        whole = method(small, torch.arange(len(small)))
        torch.testing.assert_close(method(small, order), whole[order][:, order], rtol=0, atol=0)


def test_lengths_are_of_the_path_similarity(small):
    synsets = torch.arange(len(small))
    lengths = path_lengths(small, synsets, simulate_root=False)
    found = path_similarity(small, synsets, simulate_root=False)
    assert torch.equal(lengths == -1, found.isnan())
    kept = lengths >= 0
    assert torch.equal(1 / (1 + lengths[kept].double()), found[kept])


def test_columns_in_pieces_change_nothing(small, monkeypatch):
    synsets = torch.arange(len(small))
    whole = [method(small, synsets) for method in (path_similarity, wu_palmer)]
    monkeypatch.setattr("probekit.lexicon.taxonomy.COLUMNS", 7)
    for method, expected in zip((path_similarity, wu_palmer), whole, strict=True):
        torch.testing.assert_close(method(small, synsets), expected, rtol=0, atol=0)


def test_ancestors_are_nltks_shortest_ones(small, small_reader):
    found = ancestors(small, np.arange(len(small)))
    for row, name in enumerate(small.names):
        expected: dict[str, int] = {}
        for one, distance in small_reader.synset(name).hypernym_distances():
            expected[one.name()] = min(distance, expected.get(one.name(), distance))
        own = found.rows == row
        names = [small.names[node] for node in found.nodes[own]]
        assert dict(zip(names, found.distances[own].tolist(), strict=True)) == expected


@pytest.mark.parametrize("method", [path_lengths, path_similarity, wu_palmer])
@pytest.mark.parametrize("places", [[3, 135], [-1, 2]])
def test_places_that_are_no_synsets(small: WordNet, method, places):
    assert len(small) == 135
    with pytest.raises(ProbekitError) as error:
        method(small, torch.tensor(places))
    assert str(error.value) == (
        f"synsets must be places from 0 to 134, not {places}; WordNet.index finds that of a name"
    )
