"""Pairs of entries: drawn as published, their cosines and their parts of speech.

Source: the write-up "Geometric Terrain Analysis" (its WordNet and stability sections), and its
critique, section D.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError
from ..geometry.similarity import unit_rows
from .wordnet import WordNet


@dataclass(frozen=True, eq=False)
class PairSample:
    """``first`` and ``second`` are places in ``chosen``, which are places among all entries.

    Chosen entries are distinct; pairs may repeat, and share entries: their number is no sample
    size.
    """

    chosen: Int[Tensor, " node"]
    first: Int[Tensor, " pair"]
    second: Int[Tensor, " pair"]

    def __getitem__(self, kept: Bool[Tensor, " pair"]) -> "PairSample":
        """The same sample with some of its pairs."""
        return PairSample(self.chosen, self.first[kept], self.second[kept])

    def of(self, table: Tensor) -> Tensor:
        """A table's entries ``[first, second]``, [node, node] to [pair]."""
        return table[self.first, self.second]


def sample_pairs(entries: int, nodes: int, pairs: int, rng: np.random.Generator) -> PairSample:
    """``nodes`` entries, then ``pairs`` first and ``pairs`` second ones among them, as published.

    ``rng.choice(entries, nodes, replace=False)``, ``rng.choice(nodes, pairs)`` twice; pairs of an
    entry with itself are dropped. All entries are taken where there are fewer than nodes.

    Raises:
        ProbekitError: numbers that are no whole numbers from 1.
    """
    check_sizes(entries=entries, nodes=nodes, pairs=pairs)
    nodes = min(nodes, entries)
    chosen = rng.choice(entries, nodes, replace=False)
    first, second = rng.choice(nodes, pairs), rng.choice(nodes, pairs)
    apart = first != second
    return PairSample(*map(torch.from_numpy, (chosen, first[apart], second[apart])))


def cosine_table(x: Float[Tensor, "entry dim"], sample: PairSample) -> Float[Tensor, "node node"]:
    """Cosines of the sample's chosen entries, in float64; ``sample.of`` picks those of its pairs.

    Raises:
        ProbekitError: a chosen entry is no row.
    """
    if int(sample.chosen.max()) >= len(x):
        raise ProbekitError(
            f"the sample is of {int(sample.chosen.max()) + 1} entries or more, x has {len(x)} rows"
        )
    units = unit_rows(x[sample.chosen])
    return units @ units.T


def pos_pairs(
    wordnet: WordNet, synsets: Int[Tensor, " node"], sample: PairSample
) -> Int[Tensor, " pair"]:
    """The unordered pair of parts of speech of each pair, as a number; satellites are adjectives.

    Args:
        wordnet: of :func:`load_wordnet`.
        synsets: of the sample's chosen entries.
        sample: of :func:`sample_pairs`.
    """
    code = torch.from_numpy(np.unique(_pos(wordnet, synsets), return_inverse=True)[1])
    first, second = code[sample.first], code[sample.second]
    return torch.minimum(first, second) * 4 + torch.maximum(first, second)


def noun_pairs(
    wordnet: WordNet, synsets: Int[Tensor, " node"], sample: PairSample
) -> Bool[Tensor, " pair"]:
    """Whether a pair is of two nouns of different synsets.

    Two tokens of one synset have the same gloss, so cosine 1 at similarity 1.

    Args:
        wordnet: of :func:`load_wordnet`.
        synsets: of the sample's chosen entries.
        sample: of :func:`sample_pairs`.
    """
    noun = torch.from_numpy(_pos(wordnet, synsets) == "n")
    different = synsets[sample.first] != synsets[sample.second]
    return noun[sample.first] & noun[sample.second] & different


def _pos(wordnet: WordNet, synsets: Tensor) -> np.ndarray:
    pos = wordnet.pos[synsets.numpy()]
    return np.where(pos == "s", "a", pos)
