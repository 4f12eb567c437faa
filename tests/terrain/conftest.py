"""Definitions of a few words, so that no test encodes thousands."""

from typing import Any

import pytest
import torch

from probekit.lexicon import Matches, WordNet
from probekit.terrain import definitions, modulation, stability

WORDS = ("dog", "oak", "car", "bread", "table", "violin", "rose", "hammer", "teacher", "river")


def few_matches(wordnet: WordNet) -> Matches:
    """Ten nouns' hypernyms, their neighbours, and adjectives and verbs in file order."""
    places = {name: place for place, name in enumerate(wordnet.names)}
    chosen: list[int] = []
    for word in WORDS:
        current = places[f"{word}.n.01"]
        while True:
            chosen.append(current)
            edges = wordnet.parents[wordnet.starts[current] : wordnet.starts[current + 1]]
            if not len(edges):
                break
            current = int(edges[0])
    for pos, number in (("a", 60), ("n", 60), ("v", 60)):
        chosen += [i for i, each in enumerate(wordnet.pos) if each == pos][:number]
    chosen = list(dict.fromkeys(chosen))
    tokens = torch.arange(1_000, 1_000 + len(chosen))
    return Matches(
        tuple(wordnet.lemmas[i][0] for i in chosen),
        torch.tensor(chosen),
        tokens,
        tuple(wordnet.glosses[i] for i in chosen),
    )


@pytest.fixture(scope="session")
def few_words(wordnet: WordNet) -> Any:
    """While in use, every tokenizer knows few words, and samples are small."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (definitions, modulation):
            patch.setattr(module, "match_tokens", lambda w, tokenize, rule: few_matches(w))
        for module, sizes in (
            (definitions, {"NODES": 150, "PAIRS": 4_000, "SIMPLICES": 50}),
            (stability, {"NODES": 150, "PAIRS": 4_000, "SIMPLICES": 50, "CHAINS": 8}),
        ):
            for name, value in sizes.items():
                patch.setattr(module, name, value)
        yield few_matches(wordnet)
