"""Tokens of a model that are words of WordNet, each with one synset and its gloss.

``match_tokens(..., "published")`` gives a token the first synset in file order, adjectives before
adverbs, nouns and verbs: rarely the word's common sense ("day" becomes its ninth).
``"first-sense"`` gives it the sense that NLTK's ``synsets(word)`` puts first.

Which words are single tokens is the tokenizer's business: an uncased one merges "May" and "may",
SentencePiece counts the word's start, and an unknown word may be one token, ``[UNK]``.

Source: the write-up "Geometric Terrain Analysis" (its WordNet section), and its critique.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import ProbekitError
from .senses import synsets_of
from .wordnet import WordNet

SHORTEST_GLOSS = 11
"""Characters that a gloss has at least."""

_BATCH = 4096

Tokenize = Callable[[list[str]], Sequence[Sequence[int]]]
"""Texts to their token ids, without special tokens."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Entry k: the lemma, its synset's place in WordNet, its token and the synset's gloss.

    Each token comes once; a synset may come with several tokens.
    """

    lemmas: tuple[str, ...]
    synsets: Int[Tensor, " entry"]
    tokens: Int[Tensor, " entry"]
    glosses: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lemmas)


def match_tokens(
    wordnet: WordNet, tokenize: Tokenize, rule: Literal["published", "first-sense"] = "published"
) -> Matches:
    """An entry for each token that a lemma is, in the order of synsets and their lemmas.

    Lemmas are written with spaces for underscores. A lemma counts if it is one token, no entry has
    that token, and the synset's gloss has more than 10 characters; a token is taken only when its
    entry is stored.

    Args:
        wordnet: of :func:`load_wordnet`.
        tokenize: with Hugging Face ``lambda texts: tokenizer(texts,
            add_special_tokens=False)["input_ids"]``.
        rule: "published" takes the synset in which the lemma was met, "first-sense" the first of
            :func:`synsets_of`.

    Raises:
        ProbekitError: an unknown rule, or tokenize answers another number of texts.
    """
    if rule not in ("published", "first-sense"):
        raise ProbekitError(f"rule must be 'published' or 'first-sense', not {rule!r}")
    single = _single_tokens(wordnet, tokenize)
    found: dict[int, tuple[str, int]] = {}
    for synset, lemmas in enumerate(wordnet.lemmas):
        for lemma in lemmas:
            token = single.get(_text(lemma))
            if token is None or token in found:
                continue
            chosen = synset if rule == "published" else synsets_of(wordnet, lemma)[0]
            if len(wordnet.glosses[chosen]) >= SHORTEST_GLOSS:
                found[token] = (_text(lemma), chosen)
    synsets = [synset for _, synset in found.values()]
    return Matches(
        tuple(lemma for lemma, _ in found.values()),
        torch.tensor(synsets, dtype=torch.long),
        torch.tensor(list(found), dtype=torch.long),
        tuple(wordnet.glosses[synset] for synset in synsets),
    )


def _single_tokens(wordnet: WordNet, tokenize: Tokenize) -> dict[str, int]:
    texts = list(dict.fromkeys(_text(lemma) for lemmas in wordnet.lemmas for lemma in lemmas))
    single = {}
    for start in tqdm(range(0, len(texts), _BATCH), desc="tokenising lemmas", delay=3):
        batch = texts[start : start + _BATCH]
        ids = tokenize(batch)
        if len(ids) != len(batch):
            raise ProbekitError(
                f"tokenize must give the ids of each text, not {len(ids)} for {len(batch)} texts"
            )
        single.update(
            (text, each[0]) for text, each in zip(batch, ids, strict=True) if len(each) == 1
        )
    return single


def _text(lemma: str) -> str:
    return lemma.replace("_", " ")
