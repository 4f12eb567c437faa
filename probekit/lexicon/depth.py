"""Depths in a taxonomy: edges to a root by the shortest and by the longest way.

Source: NLTK's ``Synset.min_depth`` and ``max_depth``, on which its Wu-Palmer similarity rests.
"""

import numpy as np
from jaxtyping import Int

from ..errors import ProbekitError

DEEPEST = 256
"""What NLTK follows; WordNet is 19 deep. A deeper taxonomy has a cycle."""


def min_depths(
    starts: Int[np.ndarray, " node_and_end"], parents: Int[np.ndarray, " edge"]
) -> Int[np.ndarray, " node"]:
    """Edges of the shortest way to a root; node i has ``parents[starts[i]:starts[i + 1]]``.

    Raises:
        ProbekitError: a chain of more than 256 edges, so a cycle.
    """
    return _depths(starts, parents, np.minimum)


def max_depths(
    starts: Int[np.ndarray, " node_and_end"], parents: Int[np.ndarray, " edge"]
) -> Int[np.ndarray, " node"]:
    """Edges of the longest way to a root.

    Raises:
        ProbekitError: a chain of more than 256 edges, so a cycle.
    """
    return _depths(starts, parents, np.maximum)


def _depths(starts: np.ndarray, parents: np.ndarray, choose: np.ufunc) -> np.ndarray:
    depths = np.zeros(len(starts) - 1, dtype=np.int64)
    below = np.flatnonzero(np.diff(starts))
    for _ in range(DEEPEST):
        if not len(below):
            return depths
        new = choose.reduceat(depths[parents], starts[below]) + 1
        if (new == depths[below]).all():
            return depths
        depths[below] = new
    raise ProbekitError(f"a chain of hypernyms is longer than {DEEPEST}: the taxonomy has a cycle")
