"""Ancestors of synsets, and tables that pass from hypernyms to hyponyms.

A node's ancestors are itself and those of its hypernyms. So whatever is a minimum or maximum over
the ancestors that a node shares with each synset follows row by row, roots first, from the rows of
its hypernyms: one vector operation a node, where each pair would ask for its own ancestors.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Num

from .wordnet import WordNet

COLUMNS = 512
"""Synsets whose tables are in memory at once."""


@dataclass(frozen=True)
class Ancestors:
    """``nodes[k]`` is an ancestor of synset ``rows[k]``, ``distances[k]`` edges above at least.

    A synset is its own ancestor, at 0; rows number the synsets as given, and are sorted.
    """

    rows: Int[np.ndarray, " ancestor"]
    nodes: Int[np.ndarray, " ancestor"]
    distances: Int[np.ndarray, " ancestor"]


def ancestors(wordnet: WordNet, synsets: Int[np.ndarray, " synset"]) -> Ancestors:
    """All ancestors of synsets by hypernyms and instance hypernyms, with the shortest distance."""
    size = len(wordnet)
    rows, nodes = np.arange(len(synsets)), np.asarray(synsets)
    seen, distances = rows * size + nodes, np.zeros(len(synsets), dtype=np.int64)
    for distance in range(1, int(wordnet.max_depth.max(initial=0)) + 1):
        number = wordnet.starts[nodes + 1] - wordnet.starts[nodes]
        ends = number.cumsum()
        edges = np.arange(number.sum()) + np.repeat(wordnet.starts[nodes] - ends + number, number)
        reached = np.repeat(rows, number) * size + wordnet.parents[edges]
        reached = np.setdiff1d(reached, seen)
        rows, nodes = reached // size, reached % size
        seen = np.concatenate([seen, reached])
        distances = np.concatenate([distances, np.full(len(reached), distance)])
    order = seen.argsort()
    return Ancestors(seen[order] // size, seen[order] % size, distances[order])


@dataclass(frozen=True)
class Level:
    """Nodes of one longest depth, and for the first, second ... hypernym who has it.

    ``edges`` are pairs of arrays: the child's place in the level, the parent's among all nodes.
    """

    places: slice
    edges: tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclass(frozen=True)
class Closure:
    """Some synsets with all their ancestors, parents before children.

    ``nodes`` are their places in WordNet, ``own`` the places of the synsets in ``nodes``, and
    ``above`` the ancestors of the synsets, ``nodes`` in it being places here.
    """

    nodes: Int[np.ndarray, " node"]
    own: Int[np.ndarray, " synset"]
    levels: tuple[Level, ...]
    above: Ancestors

    def columns(self) -> Iterator[slice]:
        """The synsets in pieces of which a table fits into memory."""
        for start in range(0, len(self.own), COLUMNS):
            yield slice(start, min(start + COLUMNS, len(self.own)))

    def inherit(
        self,
        columns: slice,
        values: Num[np.ndarray, " ancestor"],
        empty: int | float,
        choose: np.ufunc,
        step: int = 0,
    ) -> Num[np.ndarray, "node column"]:
        """``table[a, s]``, the choice among ancestors b that node a and synset s share.

        What is chosen is the value of (s, b), one for each of ``above``, plus ``step`` for each
        edge from a up to b, or ``empty`` if they share none.

        Args:
            columns: which synsets.
            values: of synsets with their ancestors.
            empty: what choose never prefers; with a step it has room for the depth.
            choose: ``np.minimum`` or ``np.maximum``.
            step: added for each edge.
        """
        table = np.full((len(self.nodes), columns.stop - columns.start), empty, dtype=values.dtype)
        first, last = np.searchsorted(self.above.rows, [columns.start, columns.stop])
        node, column = self.above.nodes[first:last], self.above.rows[first:last] - columns.start
        by_node = node.argsort(kind="stable")
        node, column, value = node[by_node], column[by_node], values[first:last][by_node]
        for level in self.levels:
            part = table[level.places]
            for child, parent in level.edges:
                passed = table[parent]
                if step:
                    passed += step
                part[child] = choose(part[child], passed)
            begin, end = np.searchsorted(node, [level.places.start, level.places.stop])
            at = node[begin:end], column[begin:end]
            table[at] = choose(table[at], value[begin:end])
        return table


def closure(wordnet: WordNet, synsets: Int[np.ndarray, " synset"]) -> Closure:
    """The synsets with all their ancestors, in an order in which tables can be passed down."""
    above = ancestors(wordnet, synsets)
    nodes = np.unique(above.nodes)
    nodes = nodes[wordnet.max_depth[nodes].argsort(kind="stable")]
    place = np.full(len(wordnet), -1)
    place[nodes] = np.arange(len(nodes))
    levels = []
    depths = wordnet.max_depth[nodes]
    for depth in range(int(depths.max(initial=-1)) + 1):
        begin, end = np.searchsorted(depths, [depth, depth + 1])
        number = wordnet.starts[nodes[begin:end] + 1] - wordnet.starts[nodes[begin:end]]
        edges = []
        for turn in range(int(number.max())):
            child = np.flatnonzero(number > turn)
            parent = wordnet.parents[wordnet.starts[nodes[begin:end][child]] + turn]
            edges.append((child, place[parent]))
        levels.append(Level(slice(int(begin), int(end)), tuple(edges)))
    return Closure(
        nodes,
        place[synsets],
        tuple(levels),
        Ancestors(above.rows, place[above.nodes], above.distances),
    )
