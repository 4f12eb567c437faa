"""A word's synsets, its commonest sense first, as NLTK's ``synsets(word)`` has them.

Base forms come of exceptions, or of endings taken off; nouns come before verbs, adjectives and
adverbs, so "lost" is a verb first.

Source: morphy(7WN).
"""

from .wordnet import WordNet

_ENDINGS = {
    "n": "s- ses-s ves-f xes-x zes-z ches-ch shes-sh men-man ies-y",
    "v": "s- ies-y es-e es- ed-e ed- ing-e ing-",
    "a": "er- est- er-e est-e",
    "r": "",
}


def synsets_of(wordnet: WordNet, word: str) -> list[int]:
    """Synsets of a word in NLTK's order: by part of speech, then base form, then frequency.

    Empty where WordNet has none.
    """
    word = word.lower()
    return [
        synset
        for pos in _ENDINGS
        for form in _base_forms(wordnet, word, pos)
        for synset in wordnet.senses[form][pos]
    ]


def _base_forms(wordnet: WordNet, word: str, pos: str) -> list[str]:
    irregular = wordnet.exceptions[pos].get(word)
    forms = [word, *(irregular if irregular is not None else _stripped(word, pos))]
    return [form for form in dict.fromkeys(forms) if pos in wordnet.senses.get(form, ())]


def _stripped(word: str, pos: str) -> list[str]:
    pairs = [rule.split("-") for rule in _ENDINGS[pos].split()]
    return [word.removesuffix(old) + new for old, new in pairs if word.endswith(old)]
