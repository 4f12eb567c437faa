"""Chains of hypernyms and clusters by lexicographer file, on a taxonomy whose answers are plain."""

import numpy as np
import pytest
import torch
from wordnet_files import Synset, write

from probekit.errors import ProbekitError
from probekit.geometry import cosine_similarity
from probekit.lexicon import (
    HypernymPairs,
    chain_decay,
    hypernym_decay,
    hypernym_pairs,
    lexname_clusters,
    load_wordnet,
    published_chains,
)


@pytest.fixture
def line(tmp_path):
    """a0 <- a1 <- ... <- a13, with a short cut a5 -> a1, and an instance of a3."""
    synsets = [Synset("n", ("a0",))]
    synsets += [Synset("n", (f"a{i}",), (i - 1, *([1] if i == 5 else []))) for i in range(1, 14)]
    synsets.append(Synset("n", ("instance",), (), (3,), lexname="noun.person"))
    write(tmp_path, synsets)
    return load_wordnet(tmp_path)


def places(wordnet, *lemmas):
    return torch.tensor([wordnet.index(f"{lemma}.n.01") for lemma in lemmas])


def test_published_chains(line):
    # Entries 0 to 5; a7 comes twice, and its first entry stands for it.
    synsets = places(line, "a7", "a2", "a7", "a4", "instance", "a13", "a3")
    assert published_chains(line, synsets) == [
        (0, 3, 6, 1),  # a7 a4 a3 a2: the short cut is the second hypernym
        (3, 6, 1),  # a4 a3 a2
        (5, 0, 3, 6),  # a13 a7 a4 a3: ten steps end at a3
    ]


def test_decay_by_rank():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 5, dtype=torch.float64, generator=generator)
    chains = [tuple(range(11)), (3, 4, 5), (2, 9, 8, 7)]
    found = chain_decay(chains, x)
    assert found.depths == (1, 2, 3, 4, 5, 6, 7)
    assert found.pairs == (3, 3, 2, 1, 1, 1, 1)
    for depth, mean in zip(found.depths, found.means, strict=True):
        own = [cosine_similarity(x[c[0]], x[c[depth]]) for c in chains if len(c) > depth]
        assert mean == pytest.approx(np.mean(own))
    assert chain_decay(chains[1:2], x).depths == (1, 2)


def test_pairs_by_true_distance(line):
    synsets = places(line, "a6", "a2", "a6", "a1", "instance", "a3")
    found = hypernym_pairs(line, synsets)
    pairs = {
        (int(i), int(j)): int(d)
        for i, j, d in zip(found.start, found.ancestor, found.distance, strict=True)
    }
    assert pairs == {
        (0, 5): 3,  # a6 a5 a4 a3
        (0, 1): 4,
        (0, 3): 2,  # a6 a5 a1
        (1, 3): 1,
        (4, 5): 1,
        (4, 1): 2,
        (4, 3): 3,
        (5, 1): 1,
        (5, 3): 2,
    }


def test_decay_by_distance():
    x = torch.eye(3, dtype=torch.float64) + 0.5
    pairs = HypernymPairs(*torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2], [4, 2, 4, 2]]))
    cosine = float(cosine_similarity(x[0], x[1]))
    found = hypernym_decay(pairs, x)
    assert (found.depths, found.pairs) == ((2, 4), (2, 2))
    assert found.means == pytest.approx(((1 + cosine) / 2, cosine))


def test_clusters(line):
    synsets = places(line, "a1", "instance", "a2", "a3", "instance", "a4")
    found = lexname_clusters(line, synsets, smallest=2, largest=3)
    assert {name: own.tolist() for name, own in found.items()} == {
        "noun.Tops": [0, 2, 3],
        "noun.person": [1, 4],
    }
    drawn = lexname_clusters(line, synsets, np.random.default_rng(1), smallest=3, largest=3)
    order = np.random.default_rng(1).choice(4, 3, replace=False)
    assert list(drawn) == ["noun.Tops"]
    assert drawn["noun.Tops"].tolist() == np.array([0, 2, 3, 5])[order].tolist()
    assert lexname_clusters(line, synsets) == {}


def test_what_is_refused(line):
    with pytest.raises(ProbekitError) as error:
        chain_decay([], torch.ones(2, 2))
    assert str(error.value) == "chain_decay needs a chain at least; match more tokens"
    with pytest.raises(ProbekitError) as error:
        hypernym_decay(hypernym_pairs(line, places(line, "a1")), torch.ones(2, 2))
    assert str(error.value) == "hypernym_decay needs a pair at least; match more tokens"
    with pytest.raises(ProbekitError, match=r"^largest must be a whole number from 1, not 0$"):
        lexname_clusters(line, places(line, "a1"), largest=0)
