"""Similarity of synsets in WordNet's taxonomy, all pairs at once, equal to NLTK's to the last bit.

``path_similarity``  ``1 / (1 + d)``, d the edges of the shortest way over a common ancestor.
``wu_palmer``        ``2 D / (d1 + d2 + 2 D)``, D the depth of the lowest common ancestor, counted
                     from 1, and d1, d2 the ways to it.

NLTK's conventions have consequences. With its simulated root, which it uses by default as soon as
one of two synsets is no noun, every pair has a similarity: any two adjectives or adverbs read path
1/3 and Wu-Palmer 1/2 whatever they mean, and over mixed synsets the pair of parts of speech is most
of the variance (:func:`probekit.lexicon.eta_squared`). NLTK's Wu-Palmer chooses the common ancestor
by its shortest depth, measures it by its longest, and prefers the first of two synsets where that
is a candidate: it is not quite symmetric, nor always 1 for a synset with itself.

Source: Rada et al. 1989, "Development and application of a metric on semantic nets"; Wu and Palmer
1994, "Verb semantics and lexical selection"; NLTK's ``Synset``.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import ProbekitError
from .taxonomy import Ancestors, Closure, ancestors, closure
from .wordnet import WordNet

_FAR = 10_000  # of no way; what 256 more edges leave far above any true distance
_ROOT = "*ROOT*"  # NLTK's name of it, which decides among candidates of one depth


def path_lengths(
    wordnet: WordNet, synsets: Int[Tensor, " synset"], *, simulate_root: bool = True
) -> Int[Tensor, "synset synset"]:
    """Edges of the shortest way between synsets over a common ancestor; -1 where there is none.

    Hypernyms and instance hypernyms are edges. NLTK's simulated root lies one edge above the
    farthest ancestor of each synset, and joins pairs unless both are nouns.

    Args:
        wordnet: of :func:`load_wordnet`.
        synsets: places in it; some may come twice.
        simulate_root: as NLTK does by default.

    Raises:
        ProbekitError: a place that is no synset.
    """
    unique, back = distinct(wordnet, synsets)
    graph = closure(wordnet, unique)
    lengths = np.concatenate([_ways(graph, columns)[graph.own].T for columns in graph.columns()])
    if simulate_root:
        far = _farthest(graph.above)
        by_root = far[:, None] + far + np.int16(2)
        nouns = wordnet.pos[unique] == "n"
        by_root[nouns[:, None] & nouns] = _FAR
        np.minimum(lengths, by_root, out=lengths)
    lengths[lengths >= _FAR] = -1
    return torch.from_numpy(lengths[back[:, None], back])


def path_similarity(
    wordnet: WordNet, synsets: Int[Tensor, " synset"], *, simulate_root: bool = True
) -> Float[Tensor, "synset synset"]:
    """``1 / (1 + d)`` with :func:`path_lengths`; NaN where there is no way, where NLTK has None.

    In float64.

    Raises:
        ProbekitError: a place that is no synset.
    """
    lengths = path_lengths(wordnet, synsets, simulate_root=simulate_root)
    by_length = 1 / (1 + torch.arange(_FAR, dtype=torch.float64))
    by_length[-1] = torch.nan  # the place of -1
    return by_length[lengths.int()]


def wu_palmer(
    wordnet: WordNet, synsets: Int[Tensor, " synset"], *, simulate_root: bool = True
) -> Float[Tensor, "synset synset"]:
    """NLTK's ``wup_similarity``, row synset first; NaN where there is no common ancestor.

    ``2 D / (d1 + d2 + 2 D)``: among the common ancestors of greatest shortest depth (the row's
    synset if it is one of them, otherwise the first by name) D is the longest depth plus 1 and
    d1, d2 are shortest ways to it, by :func:`path_lengths`. In float64.

    Args:
        wordnet: of :func:`load_wordnet`.
        synsets: places in it; some may come twice.
        simulate_root: as NLTK does by default.

    Raises:
        ProbekitError: a place that is no synset.
    """
    unique, back = distinct(wordnet, synsets)
    graph = closure(wordnet, unique)
    ways = _ways_to_candidates(wordnet, graph, simulate_root)
    order = _by_preference(wordnet, graph)
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order))
    depth = np.append(wordnet.max_depth[graph.nodes], 0) + 1
    others = wordnet.pos[unique] != "n"
    found = np.empty((len(unique), len(unique)))
    for columns in tqdm(list(graph.columns()), desc="Wu-Palmer", delay=3):
        best = graph.inherit(columns, rank[graph.above.nodes], -1, np.maximum)[graph.own]
        if simulate_root:
            np.maximum(best, rank[-1], out=best, where=others[:, None] | others[columns])
        chosen = order[best]
        _prefer_first(wordnet, graph, columns, chosen)
        first = np.take_along_axis(ways, chosen, 1)
        second = np.take_along_axis(ways[columns], chosen.T, 1).T
        found[:, columns] = 2.0 * depth[chosen] / (first + second + 2 * depth[chosen])
        found[:, columns][best < 0] = np.nan
    return torch.from_numpy(found[back[:, None], back])


def distinct(wordnet: WordNet, synsets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The synsets once each, and where each of those given is among them."""
    if not (len(synsets) and ((synsets >= 0) & (synsets < len(wordnet))).all()):
        raise ProbekitError(
            f"synsets must be places from 0 to {len(wordnet) - 1}, not {synsets.tolist()[:8]}; "
            "WordNet.index finds that of a name"
        )
    return np.unique(synsets.cpu().numpy(), return_inverse=True)


def _ways(graph: Closure, columns: slice) -> np.ndarray:
    """Shortest ways from all nodes to some synsets, [node, column]."""
    return graph.inherit(columns, graph.above.distances.astype(np.int16), _FAR, np.minimum, 1)


def _farthest(above: Ancestors) -> np.ndarray:
    """How far the farthest ancestor of each synset is."""
    starts = np.flatnonzero(np.diff(above.rows, prepend=-1))
    return np.maximum.reduceat(above.distances, starts).astype(np.int16)


def _ways_to_candidates(wordnet: WordNet, graph: Closure, simulate_root: bool) -> np.ndarray:
    """Shortest ways from synsets to all nodes and, in the last column, to the simulated root.

    A noun's way over that root is never asked for: its common ancestors with others are that root.
    """
    ways = np.empty((len(graph.own), len(graph.nodes) + 1), dtype=np.int16)
    far = _farthest(graph.above)
    ways[:, -1] = far + 1
    node_far = _farthest(ancestors(wordnet, graph.nodes)) if simulate_root else None
    for columns in graph.columns():
        part = _ways(graph, columns).T
        if node_far is not None:
            by_root = far[columns, None] + node_far + np.int16(2)
            by_root[wordnet.pos[graph.nodes[graph.own[columns]]] == "n"] = _FAR
            part = np.minimum(part, by_root)
        ways[columns, :-1] = part
    return ways


def _by_preference(wordnet: WordNet, graph: Closure) -> np.ndarray:
    """Places of nodes, the simulated root last among places, in rising order of preference."""
    names = [*(wordnet.names[node] for node in graph.nodes), _ROOT]
    depths = [*wordnet.min_depth[graph.nodes].tolist(), 0]
    order = sorted(range(len(names)), key=names.__getitem__, reverse=True)
    return np.array(sorted(order, key=depths.__getitem__))


def _prefer_first(wordnet: WordNet, graph: Closure, columns: slice, chosen: np.ndarray) -> None:
    """Where the row's synset is a common ancestor as deep as the chosen one, choose it."""
    depths = np.append(wordnet.min_depth[graph.nodes], 0)
    row_of = np.full(len(graph.nodes), -1)
    row_of[graph.own] = np.arange(len(graph.own))
    begin, end = np.searchsorted(graph.above.rows, [columns.start, columns.stop])
    node, column = graph.above.nodes[begin:end], graph.above.rows[begin:end] - columns.start
    row = row_of[node]
    tied = (row >= 0) & (depths[chosen[row, column]] == depths[node])
    chosen[row[tied], column[tied]] = node[tied]
