"""Definitions' readings against NLTK and NumPy on the published draws, for a few words."""

from dataclasses import replace

import nltk.corpus
import numpy as np
import pytest
import torch

from probekit.lexicon import published_chains
from probekit.terrain.definitions import Definitions, alignment_readings
from probekit.terrain.stability import exact_readings, seed_readings

DIM = 24


@pytest.fixture
def found(wordnet, few_words) -> Definitions:
    entries = len(few_words)
    generator = torch.Generator().manual_seed(0)

    def drawn() -> torch.Tensor:
        return torch.randn(entries, DIM, generator=generator, dtype=torch.float64)

    tokens = [[i % 7, i % 5] for i in range(entries)]
    return Definitions(wordnet, few_words, drawn(), drawn(), drawn(), tokens)


@pytest.fixture
def synsets(wordnet, few_words) -> list:
    return [nltk.corpus.wordnet.synset(wordnet.names[i]) for i in few_words.synsets.tolist()]


def cosine(x: np.ndarray, i: int, j: int) -> float:
    return float(x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]))


def test_correlations_are_of_nltks_similarities_over_the_published_draws(found, synsets) -> None:
    readings = alignment_readings(found, seed=42)
    rng = np.random.default_rng(42)
    chosen = rng.choice(len(synsets), 150, replace=False)
    pairs = zip(rng.choice(150, 4_000), rng.choice(150, 4_000), strict=True)
    kept = [(chosen[i], chosen[j]) for i, j in pairs if i != j]
    similarity = np.array([synsets[i].path_similarity(synsets[j]) for i, j in kept])
    x = found.encoder.numpy()
    cosines = np.array([cosine(x, i, j) for i, j in kept])
    assert readings["encoder"]["pearson"] == pytest.approx(np.corrcoef(similarity, cosines)[0, 1])
    nouns = np.array(
        [synsets[i].pos() == synsets[j].pos() == "n" and synsets[i] != synsets[j] for i, j in kept]
    )
    expected = np.corrcoef(similarity[nouns], cosines[nouns])[0, 1]
    assert readings["encoder"]["nouns"] == pytest.approx(expected)
    assert readings["pairs"]["nouns"] == pytest.approx(nouns.mean())
    steps = cosines[similarity >= 0.25].mean() - cosines[similarity < 0.1].mean()
    assert readings["encoder"]["gradient"] == pytest.approx(steps)
    assert readings["pairs"]["nouns among high"] == pytest.approx(nouns[similarity >= 0.25].mean())
    assert sum(row[3] for row in readings["scatter"]["all"]) <= len(kept)


def test_every_kind_of_vector_is_read_and_shared_tokens_are_jaccards(found) -> None:
    readings = alignment_readings(found)
    alike = alignment_readings(replace(found, bag=found.encoder))
    assert alike["bag"] == alike["encoder"] == readings["encoder"]
    assert readings["jaccard"]["pearson"] != readings["encoder"]["pearson"]
    chain = readings["chains"]["by edges"]["encoder"]
    assert chain.depths[0] == 1 and chain.pairs[0] > 10
    assert set(readings["clusters"]["published"]) == set(readings["clusters"]["random"])


def test_a_seed_draws_words_pairs_simplices_and_chains_as_published(found, synsets) -> None:
    columns = seed_readings(found, (7,))
    rng, entries = np.random.default_rng(7), len(synsets)
    chosen = rng.choice(entries, 150, replace=False)
    pairs = zip(rng.choice(150, 4_000), rng.choice(150, 4_000), strict=True)
    kept = [(chosen[i], chosen[j]) for i, j in pairs if i != j]
    similarity = [synsets[i].path_similarity(synsets[j]) for i, j in kept]
    x = found.encoder.numpy()
    expected = np.corrcoef(similarity, [cosine(x, i, j) for i, j in kept])[0, 1]
    assert columns["encoder pearson"] == [pytest.approx(expected)]
    volumes = []
    for _ in range(50):
        edges = np.diff(x[rng.choice(entries, 5, replace=False)], axis=0)
        volumes.append(np.sqrt(np.linalg.det(edges @ edges.T)) / 24)
    assert columns["encoder volume cv"] == [pytest.approx(np.std(volumes) / np.mean(volumes))]
    chains = published_chains(found.wordnet, found.matches.synsets)
    drawn = [chains[i] for i in rng.choice(len(chains), min(8, len(chains)), replace=False)]
    deep = [cosine(x, chain[0], chain[3]) for chain in drawn if len(chain) > 3]
    assert columns["encoder cosine at depth 3"] == [pytest.approx(np.mean(deep))]
    assert columns["encoder decay"][0] == pytest.approx(
        columns["encoder cosine at depth 1"][0] - columns["encoder cosine at depth 5"][0],
        nan_ok=True,
    )


def test_all_pairs_are_nltks(found, synsets) -> None:
    readings = exact_readings(found)
    x, entries = found.encoder.numpy(), range(len(synsets))
    nouns = [i for i in entries if synsets[i].pos() == "n"]
    pairs = [(i, j) for i in nouns for j in nouns if i < j and synsets[i] != synsets[j]]
    similarity = [synsets[i].path_similarity(synsets[j]) for i, j in pairs]
    expected = np.corrcoef(similarity, [cosine(x, i, j) for i, j in pairs])[0, 1]
    assert readings["encoder"]["nouns"] == pytest.approx(expected)
    assert abs(readings["shuffled"]["pearson"]) < 0.1
