"""WordNet as arrays: synsets in NLTK's ``all_synsets()`` order, read once a process.

Names, glosses (NLTK's ``definition()``), lemmas and lexicographer files are NLTK's to the letter.
Where a synset has several hypernyms they stand in file order; NLTK keeps them in a set, whose order
changes with ``PYTHONHASHSEED``.

NLTK takes minutes a million pairs because it builds every ancestor dictionary anew; with arrays all
pairs take seconds (:mod:`probekit.lexicon.similarity`).

Source: Miller 1995, "WordNet: a lexical database for English"; wndb(5WN).
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from ..errors import ProbekitError, closest
from .data import FILES, LEXNAMES, ROUTES, SUFFIXES, find_wordnet
from .depth import max_depths, min_depths


@dataclass(frozen=True, eq=False, repr=False)
class WordNet:
    """Synset i is ``names[i]``; its hypernyms are ``parents[starts[i]:starts[i + 1]]``.

    Instance hypernyms come last there and have ``instance`` True. ``pos`` is one of n, v, a, s
    (satellite adjective) and r; ``offsets`` are those of the data files, which with the part of
    speech make the keys of NLTK's information-content files. Depths count edges to a root, by the
    shortest and the longest way. ``senses`` gives a lemma's synsets by part of speech, the most
    frequent first, and ``exceptions`` the base forms of irregular ones.
    """

    names: tuple[str, ...]
    pos: np.ndarray
    offsets: Int[np.ndarray, " synset"]
    glosses: tuple[str, ...]
    lemmas: tuple[tuple[str, ...], ...]
    lexnames: tuple[str, ...]
    starts: Int[np.ndarray, " synset_and_end"]
    parents: Int[np.ndarray, " edge"]
    instance: Bool[np.ndarray, " edge"]
    min_depth: Int[np.ndarray, " synset"]
    max_depth: Int[np.ndarray, " synset"]
    senses: dict[str, dict[str, tuple[int, ...]]]
    exceptions: dict[str, dict[str, tuple[str, ...]]]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"WordNet({len(self)} synsets)"

    def index(self, name: str) -> int:
        """The synset of a name such as ``"dog.n.01"``.

        Raises:
            ProbekitError: there is none.
        """
        if name not in self._places:
            near = closest(name, (each for each in self.names if each[:2] == name[:2]))
            raise ProbekitError(f"unknown synset {name!r}, such as 'dog.n.01'{near}")
        return self._places[name]

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}


class _Entry(NamedTuple):
    pos: str
    offset: int
    gloss: str
    lemmas: tuple[str, ...]
    lexname: str
    hypernyms: tuple[int, ...]
    instances: tuple[int, ...]


_loaded: dict[str, WordNet] = {}


def load_wordnet(folder: str | Path | None = None) -> WordNet:
    """WordNet as NLTK finds it, or from a folder of its files; read once a process.

    Raises:
        ProbekitError: WordNet is not installed, or files are missing or not WordNet's.
    """
    source: Traversable | None = find_wordnet() if folder is None else Path(folder)
    if source is None:
        raise ProbekitError(f"WordNet is not installed; get it by {ROUTES}")
    if str(source) in _loaded:
        return _loaded[str(source)]
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing:
        raise ProbekitError(f"{source} lacks {', '.join(missing)}; get WordNet by {ROUTES}")
    try:
        return _loaded.setdefault(str(source), _read(source))
    except (ValueError, LookupError) as error:
        raise ProbekitError(
            f"{source} holds no WordNet that can be read ({type(error).__name__}: {error}); "
            f"get it by {ROUTES}"
        ) from error


def _read(source: Traversable) -> WordNet:
    entries: list[_Entry] = []
    places: dict[tuple[str, int], int] = {}
    for pos in SUFFIXES:
        for entry in _data_entries(_lines(source, f"data.{SUFFIXES[pos]}")):
            places[pos, entry.offset] = len(entries)
            entries.append(entry)
    senses: dict[str, dict[str, tuple[int, ...]]] = {}
    for pos in SUFFIXES:
        for lemma, offsets in _index_entries(_lines(source, f"index.{SUFFIXES[pos]}")):
            found = tuple(places[pos, offset] for offset in offsets)
            senses.setdefault(lemma, {})[pos] = found
            if pos == "a":  # satellites are numbered among themselves
                senses[lemma]["s"] = tuple(i for i in found if entries[i].pos == "s")
    exceptions = {
        pos: {word: tuple(forms) for word, *forms in map(str.split, _lines(source, f"{name}.exc"))}
        for pos, name in SUFFIXES.items()
    }
    edges = [
        tuple(places[_file_of(entry.pos), offset] for offset in entry.hypernyms + entry.instances)
        for entry in entries
    ]
    starts = np.array([0, *accumulate(map(len, edges))])
    parents = np.array([parent for each in edges for parent in each], dtype=np.int64)
    kinds = [[False] * len(one.hypernyms) + [True] * len(one.instances) for one in entries]
    return WordNet(
        tuple(_name(entry, i, senses) for i, entry in enumerate(entries)),
        np.array([entry.pos for entry in entries]),
        np.array([entry.offset for entry in entries]),
        tuple(entry.gloss for entry in entries),
        tuple(entry.lemmas for entry in entries),
        tuple(entry.lexname for entry in entries),
        starts,
        parents,
        np.array([kind for each in kinds for kind in each], dtype=bool),
        min_depths(starts, parents),
        max_depths(starts, parents),
        senses,
        exceptions,
    )


def _lines(source: Traversable, name: str) -> Iterator[str]:
    """Lines of a file but those of the licence, which begin with a space."""
    text = (source / name).read_text(encoding="utf8")
    return (line for line in text.split("\n") if line and line[0] != " ")


def _data_entries(lines: Iterator[str]) -> Iterator[_Entry]:
    for line in lines:
        columns, gloss = line.split("|")
        offset, lexname, pos, lemmas, *fields = columns.split()
        end = 2 * int(lemmas, 16)
        pointers = fields[end + 1 : end + 1 + 4 * int(fields[end])]
        symbols, offsets = pointers[::4], pointers[1::4]
        yield _Entry(
            pos,
            int(offset),
            re.sub(r'".*?"', "", gloss).strip().strip("; "),
            tuple(_unmarked(lemma) for lemma in fields[:end:2]),
            LEXNAMES[int(lexname)],
            _pointed(symbols, offsets, "@"),
            _pointed(symbols, offsets, "@i"),
        )


def _unmarked(lemma: str) -> str:
    """A lemma without its syntactic marker, as in ``galore(ip)``."""
    return re.sub(r"\([^()]*\)$", "", lemma) if lemma[-1] == ")" else lemma


def _pointed(symbols: list[str], offsets: list[str], symbol: str) -> tuple[int, ...]:
    if symbol not in symbols:
        return ()
    found = (int(to) for one, to in zip(symbols, offsets, strict=True) if one == symbol)
    return tuple(dict.fromkeys(found))


def _index_entries(lines: Iterator[str]) -> Iterator[tuple[str, list[int]]]:
    for line in lines:
        lemma, _, number, *fields = line.split()
        yield lemma, [int(offset) for offset in fields[-int(number) :]]


def _file_of(pos: str) -> str:
    return "a" if pos == "s" else pos


def _name(entry: _Entry, place: int, senses: dict[str, dict[str, tuple[int, ...]]]) -> str:
    lemma = entry.lemmas[0].lower()
    return f"{lemma}.{entry.pos}.{senses[lemma][entry.pos].index(place) + 1:02}"
