"""Fifty seeds of one fixed list, and the answers that make them unnecessary.

Seeds that draw 2,000 words of the same list measure how well 2,000 words stand for it, not how the
number would change with other words. All pairs have an exact answer, and resampled words a
deviation.

Source: the write-up "Geometric Terrain Analysis", its section on stability, and its critique.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from ..geometry.similarity import cosine_similarity
from ..geometry.volumes import simplex_volumes, volume_stats
from ..lexicon import (
    alignment,
    all_pairs_bootstrap,
    cosine_table,
    path_similarity,
    published_chains,
    sample_pairs,
    similarity_gradient,
)
from ..lexicon.pairs import PairSample
from .definitions import Definitions

Readings = dict[str, Any]
NODES, PAIRS, SIMPLICES, CHAINS = 2_000, 200_000, 500, 1_000
DEPTHS = (1, 3, 5)
KINDS = ("static", "encoder")


def seed_readings(
    found: Definitions, seeds: tuple[int, ...], position: int = 0
) -> dict[str, list[float]]:
    """The published numbers of each seed, by reading: a list over seeds.

    Each seed's generator draws 2,000 words, 200,000 pairs of them, 500 pentachora and 1,000 chains.
    """
    chains = published_chains(found.wordnet, found.matches.synsets)
    columns: dict[str, list[float]] = {}
    for seed in tqdm(seeds, desc="seeds", position=position, delay=3):
        for name, value in _one(found, chains, np.random.default_rng(seed)).items():
            columns.setdefault(name, []).append(value)
    return columns


def _one(
    found: Definitions, chains: list[tuple[int, ...]], rng: np.random.Generator
) -> dict[str, float]:
    entries = len(found.matches)
    sample = sample_pairs(entries, NODES, PAIRS, rng)
    simplices = torch.from_numpy(
        np.stack([rng.choice(entries, 5, replace=False) for _ in range(SIMPLICES)])
    )
    some = rng.choice(len(chains), min(CHAINS, len(chains)), replace=False) if chains else []
    drawn = [chains[i] for i in some]
    similarity = sample.of(path_similarity(found.wordnet, found.matches.synsets[sample.chosen]))
    row: dict[str, float] = {}
    for kind in KINDS:
        x = found.vectors[kind]
        row |= _of(kind, x, similarity, sample, simplices)
        for depth in DEPTHS:
            pairs = torch.tensor([(each[0], each[depth]) for each in drawn if len(each) > depth])
            cosines = cosine_similarity(*x[pairs.T]) if len(pairs) else torch.tensor([torch.nan])
            row[f"{kind} cosine at depth {depth}"] = float(cosines.mean())
        first, last = (row[f"{kind} cosine at depth {depth}"] for depth in (1, 5))
        row[f"{kind} decay"] = first - last
    return row


def _of(
    kind: str,
    x: Tensor,
    similarity: Tensor,
    sample: PairSample,
    simplices: Int[Tensor, "simplex five"],
) -> dict[str, float]:
    cosines = sample.of(cosine_table(x, sample))
    whole, steps = alignment(similarity, cosines), similarity_gradient(similarity, cosines)
    volumes = volume_stats(simplex_volumes(x, simplices))
    return {
        f"{kind} pearson": whole.pearson,
        f"{kind} spearman": whole.spearman,
        f"{kind} high": steps.high,
        f"{kind} low": steps.low,
        f"{kind} gradient": steps.gradient,
        f"{kind} volume cv": volumes.cv,
        f"{kind} mean volume": volumes.mean,
    }


def exact_readings(found: Definitions, seed: int = 0) -> dict[str, Readings]:
    """Over all pairs of words, and of nouns: the correlation and its deviation; and of shuffles."""
    synsets = found.matches.synsets
    similarity = path_similarity(found.wordnet, synsets)
    similarity[synsets[:, None] == synsets] = torch.nan  # one gloss, one encoding
    nouns = torch.from_numpy(found.wordnet.pos[synsets.numpy()] == "n")
    among_nouns = similarity[nouns][:, nouns]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(synsets)))
    readings: dict[str, Readings] = {}
    for kind, x in {**found.vectors, "shuffled": found.encoder[order]}.items():
        whole = all_pairs_bootstrap(similarity, x, seed=seed)
        of_nouns = all_pairs_bootstrap(among_nouns, x[nouns], seed=seed)
        readings[kind] = {
            "pearson": whole.r,
            "deviation": whole.std,
            "nouns": of_nouns.r,
            "nouns' deviation": of_nouns.std,
        }
    return readings
