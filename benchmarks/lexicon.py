"""Similarity of all pairs of WordNet nouns: pk.lexicon against NLTK, pair by pair.

    python benchmarks/lexicon.py

One process; both take turns in each round. NLTK sees a sample of the pairs, as it takes the same
time for each, and has parsed its synsets before; pk.lexicon computes all ordered pairs. Printed are
microseconds a pair in the median, NLTK's time over ours, the median over rounds of the ratio within
the round, and how many of the sampled pairs differ.
"""

import math
import statistics
import time
from collections.abc import Callable

import nltk.corpus
import numpy as np
import torch

import probekit as pk

NOUNS, SAMPLED, ROUNDS = 6000, 1000, 3


def main() -> None:
    wordnet = pk.lexicon.load_wordnet()
    rng = np.random.default_rng(0)
    nouns = rng.choice(np.flatnonzero(wordnet.pos == "n"), NOUNS, replace=False)
    synsets = [nltk.corpus.wordnet.synset(wordnet.names[i]) for i in nouns]
    pairs = rng.integers(NOUNS, size=(SAMPLED, 2)).tolist()
    ways: dict[str, Callable] = {
        "path_similarity": pk.lexicon.path_similarity,
        "wup_similarity": pk.lexicon.wu_palmer,
    }
    print(f"all pairs of {NOUNS} nouns; NLTK on {SAMPLED} of them")
    for method, ours in ways.items():
        for root in (True, False):
            rounds, differ = [], 0
            for _ in range(1 + ROUNDS):  # the first warms up
                begin = time.perf_counter()
                found = ours(wordnet, torch.from_numpy(nouns), simulate_root=root)
                own = (time.perf_counter() - begin) / NOUNS**2
                begin = time.perf_counter()
                theirs = [
                    getattr(synsets[i], method)(synsets[j], simulate_root=root) for i, j in pairs
                ]
                rounds.append(((time.perf_counter() - begin) / SAMPLED, own))
                differ = sum(
                    float(found[i, j]) != (math.nan if value is None else value)
                    for (i, j), value in zip(pairs, theirs, strict=True)
                )
            nltks, own = (statistics.median(times) * 1e6 for times in zip(*rounds[1:], strict=True))
            ratio = statistics.median(theirs / own for theirs, own in rounds[1:])
            print(
                f"  {method:16s} root {'on ' if root else 'off'}  NLTK {nltks:7.1f}   "
                f"pk.lexicon {own:6.3f}   ratio {ratio:7.0f}   {differ} differ"
            )


if __name__ == "__main__":
    main()
