"""Similarities by information content equal NLTK's, given its dictionary."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from probekit.errors import ProbekitError
from probekit.lexicon import information_content, intrinsic_content, jiang_conrath, lin, resnik

METHODS = {"res_similarity": resnik, "lin_similarity": lin, "jcn_similarity": jiang_conrath}


def corpus(wordnet) -> dict[str, defaultdict[int, float]]:
    """Counts passed up the taxonomy as NLTK's ic() does; some leaves are never met."""
    rng = np.random.default_rng(3)
    counts = {pos: defaultdict(float) for pos in "nv"}
    for i in range(len(wordnet)):
        pos = str(wordnet.pos[i])
        met = float(rng.integers(4))
        if pos not in counts or not met:
            continue
        above, todo = set(), [i]
        while todo:
            above.add(each := todo.pop())
            todo += wordnet.parents[wordnet.starts[each] : wordnet.starts[each + 1]].tolist()
        for each in above:
            counts[pos][int(wordnet.offsets[each])] += met
        counts[pos][0] += met
    return counts


def test_all_pairs_are_nltks(small, small_reader):
    counts = corpus(small)
    content = information_content(small, counts)
    nltks = [small_reader.synset(name) for name in small.names]
    pairs = list(itertools.product(range(len(small)), repeat=2))
    for method, ours in METHODS.items():
        found = ours(small, torch.arange(len(small)), content)
        for i, j in pairs:
            if small.pos[i] == small.pos[j] and small.pos[i] in "nv":
                theirs = None
                try:
                    theirs = getattr(nltks[i], method)(nltks[j], counts)
                except ZeroDivisionError:  # two roots
                    assert math.isnan(found[i, j])
                if theirs is not None:
                    assert float(found[i, j]) == theirs, (method, nltks[i], nltks[j])
            else:
                assert math.isnan(found[i, j])
    assert (content == 1e300).any()


def test_intrinsic_content_counts_hyponyms(small, small_reader):
    content = intrinsic_content(small)
    below = Counter(
        above.name()
        for name in small.names
        for above in {each for each, _ in small_reader.synset(name).hypernym_distances()}
    )
    for i, name in enumerate(small.names):
        number = {"n": 70, "v": 60}.get(str(small.pos[i]))
        if number is None:
            assert math.isnan(content[i])
        else:
            expected = 1 - math.log(below[name]) / math.log(number)
            assert float(content[i]) == pytest.approx(expected, abs=1e-12)
    nouns = content[torch.from_numpy(small.pos == "n")]
    assert (float(nouns.min()), float(nouns.max())) == (0, 1)


def test_what_is_refused(small):
    with pytest.raises(ProbekitError) as error:
        information_content(small, {"n": {5: 1.0}})
    assert str(error.value) == (
        "counts['n'] need their positive total under 0, not None; NLTK's ic() has it"
    )
    with pytest.raises(ProbekitError) as error:
        lin(small, torch.tensor([0]), torch.ones(3))
    assert str(error.value) == (
        "content must be of all 135 synsets, not 3; intrinsic_content and information_content give "
        "it"
    )
