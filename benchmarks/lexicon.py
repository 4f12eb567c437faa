"""Similarity of all pairs of WordNet nouns: pk.lexicon against NLTK, pair by pair.

    python benchmarks/lexicon.py       # about a minute

NLTK sees a sample of the pairs, as it takes the same time for each, and has parsed its synsets
before; pk.lexicon computes all ordered pairs. Those of the sample must agree to the last digit.
"""

import math
from functools import partial
from typing import Any

import harness
import nltk.corpus
import numpy as np
import torch

import probekit as pk

NLTK, OURS = "NLTK", "pk.lexicon"
NOUNS, SAMPLED = 6000, 1000


def main(config: harness.Settings) -> None:
    wordnet = pk.lexicon.load_wordnet()
    rng = np.random.default_rng(0)
    nouns = rng.choice(np.flatnonzero(wordnet.pos == "n"), NOUNS, replace=False)
    synsets = [nltk.corpus.wordnet.synset(wordnet.names[i]) for i in nouns]
    pairs = rng.integers(NOUNS, size=(SAMPLED, 2)).tolist()
    ways: dict[str, Any] = {
        "path_similarity": pk.lexicon.path_similarity,
        "wup_similarity": pk.lexicon.wu_palmer,
    }

    def one_by_one(method: str, root: bool) -> list[float | None]:
        return [getattr(synsets[i], method)(synsets[j], simulate_root=root) for i, j in pairs]

    with harness.Report(__file__, __doc__, config) as report:
        for method, ours in ways.items():
            for root in (True, False):
                arms = {
                    NLTK: partial(one_by_one, method, root),
                    OURS: partial(ours, wordnet, torch.from_numpy(nouns), simulate_root=root),
                }
                found = arms[OURS]()
                for (i, j), value in zip(pairs, arms[NLTK](), strict=True):
                    # -1 is no similarity, so that NaN, NLTK's None, equals itself.
                    assert nan_as(-1, float(found[i, j])) == nan_as(-1, value), (i, j)
                times = harness.timed(arms, config.rounds, items={NLTK: SAMPLED, OURS: NOUNS**2})
                question = f"a pair of {NOUNS} nouns, {method}, root {'on' if root else 'off'}"
                report.table(question, times, (OURS,), unit="µs", scale=1e6)


def nan_as(number: float, value: float | None) -> float:
    """``number`` in place of what is missing."""
    return number if value is None or math.isnan(value) else value


if __name__ == "__main__":
    main(harness.settings(harness.Settings(rounds=3), __doc__))
