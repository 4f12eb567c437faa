"""Tokens matched to synsets, by a tokenizer whose tokens are known."""

import pytest
from unchecked import unchecked
from wordnet_files import Synset, write

from probekit.errors import ProbekitError
from probekit.lexicon import load_wordnet, match_tokens

LONG = "long enough for the rule"
VOCABULARY = {"day": 1, "big": 2, "ice cream": 3, "run": 4, "thing": 5, "dog": 6}


def tokenize(texts):
    return [[VOCABULARY[t.lower()]] if t.lower() in VOCABULARY else [7, 8] for t in texts]


@pytest.fixture
def words(tmp_path):
    """Two senses of "day"; that of the adjective comes first in the files, as do its others."""
    synsets = [
        Synset("n", ("thing", "unknownword"), gloss=LONG),
        Synset("n", ("ice_cream",), gloss="ten chars."),
        Synset("n", ("Day", "day"), gloss=LONG + " twice"),
        Synset("n", ("frozen_dessert", "ice_cream"), gloss=LONG),
        Synset("v", ("run",), gloss=LONG),
        Synset("a", ("day", "big"), gloss=LONG + " of adjectives"),
        Synset("a", ("dog",), gloss=LONG),
        Synset("n", ("dog",), gloss="short"),
    ]
    write(tmp_path, synsets)
    return load_wordnet(tmp_path)


def test_the_published_rule(words):
    found = match_tokens(words, tokenize)
    assert found.lemmas == ("day", "big", "dog", "thing", "ice cream", "run")
    assert found.tokens.tolist() == [1, 2, 6, 5, 3, 4]
    # "ice cream" is not taken by the gloss of 10 characters, met first.
    lemmas = [words.lemmas[i][0] for i in found.synsets.tolist()]
    assert lemmas == ["day", "day", "dog", "thing", "frozen_dessert", "run"]
    assert found.glosses[0] == LONG + " of adjectives"
    assert len(found) == 6


def test_the_first_sense(words):
    found = match_tokens(words, tokenize, "first-sense")
    # The glosses of "ice cream" and of "dog", the noun, are too short.
    assert found.lemmas == ("day", "big", "thing", "run")
    assert [words.names[i] for i in found.synsets.tolist()] == [
        "day.n.01",
        "day.a.01",
        "thing.n.01",
        "run.v.01",
    ]


def test_the_real_wordnet_gives_day_its_first_sense(wordnet):
    (published, first) = (
        wordnet.names[int(match_tokens(wordnet, only_day, rule).synsets)]
        for rule in ("published", "first-sense")
    )
    assert (published, first) == ("day.n.09", "day.n.01")


def only_day(texts):
    return [[1] if text == "day" else [2, 3] for text in texts]


def test_what_is_refused(words):
    with pytest.raises(ProbekitError) as error:
        match_tokens(words, lambda texts: [[1]])
    assert str(error.value) == "tokenize must give the ids of each text, not 1 for 9 texts"
    with pytest.raises(ProbekitError) as error:
        unchecked(match_tokens, words, tokenize, "common")
    assert str(error.value) == "rule must be 'published' or 'first-sense', not 'common'"
