"""Princeton's files of small taxonomies, and NLTK's reader of them: the independent truth."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nltk.corpus.reader.wordnet import WordNetCorpusReader

from probekit.lexicon.data import FILES, LEXNAMES, SUFFIXES

HEADER = "  1 WordNet 3.0 Copyright 2006\n"


@dataclass(frozen=True)
class Synset:
    """Lemmas first; hypernyms, instances and the head of a satellite are places in the list."""

    pos: str
    lemmas: tuple[str, ...]
    hypernyms: tuple[int, ...] = ()
    instances: tuple[int, ...] = ()
    head: int | None = None
    lexname: str = "noun.Tops"
    gloss: str = 'what it is; with "an example"'


class Reader(WordNetCorpusReader):
    """NLTK's, without the map to other languages, whose building takes most of its start."""

    def __init__(self, root: Any) -> None:
        super().__init__(root, object())

    def map_wn(self, version: str = "wordnet") -> None:
        return None


def write(folder: Path, synsets: list[Synset], exceptions: str = "") -> None:
    """The files; synsets stand in those of their part of speech in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_text("")
    (folder / "noun.exc").write_text(exceptions)
    (folder / "lexnames").write_text(
        "".join(f"{i:02}\t{name}\t1\n" for i, name in enumerate(LEXNAMES))
    )
    offsets: dict[int, int] = {}
    for pos, suffix in SUFFIXES.items():
        offset = len(HEADER)
        own = [i for i, one in enumerate(synsets) if one.pos in (pos, "s" if pos == "a" else pos)]
        for i in own:
            offsets[i] = offset
            offset += len(_line(i, synsets, dict.fromkeys(range(len(synsets)), 0)))
        index: dict[str, list[int]] = {}
        for i in own:
            for lemma in synsets[i].lemmas:
                index.setdefault(lemma.lower().partition("(")[0], []).append(offsets[i])
        (folder / f"index.{suffix}").write_text(HEADER + "".join(_index(pos, index)))
    for pos, suffix in SUFFIXES.items():
        own = [i for i, one in enumerate(synsets) if one.pos in (pos, "s" if pos == "a" else pos)]
        lines = [_line(i, synsets, offsets) for i in own]
        (folder / f"data.{suffix}").write_text(HEADER + "".join(lines))


def _line(i: int, synsets: list[Synset], offsets: dict[int, int]) -> str:
    one = synsets[i]
    pointers = [("@", to) for to in one.hypernyms] + [("@i", to) for to in one.instances]
    pointers += [("&", one.head)] if one.head is not None else []
    words = " ".join(f"{lemma} 0" for lemma in one.lemmas)
    related = "".join(
        f"{symbol} {offsets[to]:08} {synsets[to].pos} 0000 " for symbol, to in pointers
    )
    number = LEXNAMES.index(one.lexname)
    return (
        f"{offsets[i]:08} {number:02} {one.pos} {len(one.lemmas):02x} {words} "
        f"{len(pointers):03} {related}| {one.gloss}  \n"
    )


def _index(pos: str, index: dict[str, list[int]]) -> Iterable[str]:
    for lemma, offsets in sorted(index.items()):
        places = " ".join(f"{offset:08}" for offset in offsets)
        yield f"{lemma} {pos} {len(offsets)} 1 @ {len(offsets)} 0 {places}  \n"
