"""Entries by lexicographer file, such as ``noun.animal``: sets whose intra-cosine can be read.

The first 200 in file order, as published, are neighbours in WordNet's files and more alike than the
category: draw at random.

Source: the write-up "Geometric Terrain Analysis", and its critique, section B6.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..checks import check_sizes
from .wordnet import WordNet

SMALLEST, LARGEST = 10, 200
"""Published: entries that a cluster has at least, and how many of them are taken."""


def lexname_clusters(
    wordnet: WordNet,
    synsets: Int[Tensor, " entry"],
    rng: np.random.Generator | None = None,
    *,
    smallest: int = SMALLEST,
    largest: int = LARGEST,
) -> dict[str, Int[Tensor, " member"]]:
    """Places of entries by lexicographer file, in the order in which files come first.

    Args:
        wordnet: of :func:`load_wordnet`.
        synsets: of the entries.
        rng: draws the members of clusters that are too large, in that order; without it the first
            are taken, as published.
        smallest: clusters with fewer are left out.
        largest: how many members are taken.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1.
    """
    check_sizes(smallest=smallest, largest=largest)
    members: dict[str, list[int]] = {}
    for entry, synset in enumerate(synsets.tolist()):
        members.setdefault(wordnet.lexnames[synset], []).append(entry)
    clusters = {}
    for name, entries in members.items():
        if len(entries) >= smallest:
            own = torch.tensor(entries)
            if rng is not None and len(own) > largest:
                own = own[torch.from_numpy(rng.choice(len(own), largest, replace=False))]
            clusters[name] = own[:largest]
    return clusters
