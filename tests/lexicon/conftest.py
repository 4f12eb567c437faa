"""WordNets beside NLTK's readers of the same files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nltk.data
import numpy as np
import pytest
from wordnet_files import Reader, Synset, write

from probekit.lexicon import WordNet, load_wordnet


def tangled() -> list[Synset]:
    """Nouns of one root, verbs of several, with short cuts, instances, and tied depths."""
    rng = np.random.default_rng(5)
    synsets = []
    for pos, number, roots in (("n", 70, 1), ("v", 60, 4)):
        start = len(synsets)
        for i in range(number):
            several = rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])
            above = rng.choice(i, min(i, several), replace=False) + start if i >= roots else []
            cut = len(above) - int(rng.random() < 0.15)  # the last one is an instance's
            # "'" sorts before NLTK's "*ROOT*", letters after it.
            lemma = f"{'ab' if i % 3 else chr(39)}{rng.integers(1000)}x{i}"
            synsets.append(Synset(pos, (lemma,), tuple(above[:cut]), tuple(above[cut:])))
    head = len(synsets)
    synsets += [Synset("a", ("big", "Large")), Synset("s", ("huge(a)", "big"), head=head)]
    synsets += [Synset("a", ("small",)), Synset("r", ("fast",)), Synset("r", ("slow",))]
    return synsets


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tangled WordNet in a folder that NLTK may read."""
    root = tmp_path_factory.mktemp("nltk")
    folder = root / "corpora" / "small"
    write(folder, tangled(), exceptions="geese goose\n")
    nltk.data.path.append(str(root))
    yield folder
    nltk.data.path.remove(str(root))


@pytest.fixture(scope="session")
def small(small_folder: Path) -> WordNet:
    return load_wordnet(small_folder)


@pytest.fixture(scope="session")
def small_reader(small_folder: Path) -> Any:
    return Reader(nltk.data.find("corpora/small"))


@pytest.fixture(scope="session")
def reader(wordnet: WordNet) -> Any:
    """NLTK's reader of the real WordNet."""
    try:
        root = nltk.data.find("corpora/wordnet")
    except LookupError:
        root = nltk.data.find("corpora/wordnet.zip/wordnet/")
    return Reader(root)
