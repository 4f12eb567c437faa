"""Does cosine fall along hypernyms? By matched rank, as published, and by true distance.

The published chains follow the first hypernym alone, leave out instance hypernyms, and count only
ancestors that are themselves matched: their "depth" is a rank, not a distance. NLTK keeps hypernyms
in a set, so its first changes with ``PYTHONHASHSEED`` where there are several; here it is the first
in the file. :func:`hypernym_pairs` has all matched ancestors by all hypernyms, with the edges
between.

Entries are rows of representations; a synset of several entries is represented by its first. Null:
flat when synsets are shuffled.

Source: the write-up "Geometric Terrain Analysis", and its critique, section B6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ProbekitError
from ..geometry import cosine_similarity
from .taxonomy import ancestors
from .wordnet import WordNet

STEPS, MEMBERS, DEEPEST = 10, 3, 8
"""Hypernyms followed, members of a chain at least, and members of which cosines are read."""


@dataclass(frozen=True, eq=False)
class HypernymPairs:
    """Entries with ancestors' entries, ``distance`` edges above by the shortest way, 1 or more."""

    start: Int[Tensor, " pair"]
    ancestor: Int[Tensor, " pair"]
    distance: Int[Tensor, " pair"]


@dataclass(frozen=True)
class Decay:
    """At each depth, or distance, the number of pairs and their mean cosine."""

    depths: tuple[int, ...]
    pairs: tuple[int, ...]
    means: tuple[float, ...]


def published_chains(wordnet: WordNet, synsets: Int[Tensor, " entry"]) -> list[tuple[int, ...]]:
    """Chains of entries, in the order in which their first synsets come among the entries.

    For each distinct synset: itself, then of the first hypernyms up to 10 steps above those that
    are matched. Chains of fewer than 3 members are left out.
    """
    entry = _first_entries(synsets)
    chains = []
    for synset in entry:
        chain, current = [entry[synset]], synset
        for _ in range(STEPS):
            edge = wordnet.starts[current]
            if edge == wordnet.starts[current + 1] or wordnet.instance[edge]:
                break
            current = int(wordnet.parents[edge])
            if current in entry:
                chain.append(entry[current])
        if len(chain) >= MEMBERS:
            chains.append(tuple(chain))
    return chains


def chain_decay(chains: Sequence[Sequence[int]], x: Float[Tensor, "entry dim"]) -> Decay:
    """Mean cosine between a chain's start and its d-th matched ancestor, d to 7 at most.

    Raises:
        ProbekitError: no chains.
    """
    if not chains:
        raise ProbekitError("chain_decay needs a chain at least; match more tokens")
    depths = tuple(range(1, min(DEEPEST, max(map(len, chains)))))
    reached = [[(c[0], c[depth]) for c in chains if len(c) > depth] for depth in depths]
    cosines = [_cosines(x, *torch.tensor(pairs).T) for pairs in reached]
    return Decay(depths, tuple(map(len, reached)), tuple(float(each.mean()) for each in cosines))


def hypernym_pairs(wordnet: WordNet, synsets: Int[Tensor, " entry"]) -> HypernymPairs:
    """Every distinct synset of the entries with each of its ancestors among them.

    By hypernyms and instance hypernyms.
    """
    entry = _first_entries(synsets)
    starts = np.array(list(entry), dtype=np.int64)
    above = ancestors(wordnet, starts)
    kept = (above.distances > 0) & np.isin(above.nodes, starts)
    return HypernymPairs(
        torch.tensor([entry[int(each)] for each in starts[above.rows[kept]]], dtype=torch.long),
        torch.tensor([entry[int(each)] for each in above.nodes[kept]], dtype=torch.long),
        torch.from_numpy(above.distances[kept]),
    )


def hypernym_decay(pairs: HypernymPairs, x: Float[Tensor, "entry dim"]) -> Decay:
    """Mean cosine of entries and their ancestors by the edges between, at the distances there are.

    Raises:
        ProbekitError: no pairs.
    """
    if not len(pairs.start):
        raise ProbekitError("hypernym_decay needs a pair at least; match more tokens")
    depths, own, number = pairs.distance.unique(return_inverse=True, return_counts=True)
    cosines = _cosines(x, pairs.start, pairs.ancestor)
    means = cosines.new_zeros(len(depths)).index_add(0, own, cosines) / number
    return Decay(tuple(depths.tolist()), tuple(number.tolist()), tuple(means.tolist()))


def _first_entries(synsets: Tensor) -> dict[int, int]:
    entries: dict[int, int] = {}
    for entry, synset in enumerate(synsets.tolist()):
        entries.setdefault(synset, entry)
    return entries


def _cosines(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return cosine_similarity(x[first], x[second])
