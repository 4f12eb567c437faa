"""Similarity by information content: how much what two synsets share says.

Information content is ``-ln p`` of a synset, p the share of a corpus's words that it or a hyponym
stands for (:func:`information_content`), or comes from the number of hyponyms alone
(:func:`intrinsic_content`). With IC* that of the most informative common ancestor, 0 without one:

``resnik``          ``IC*``
``lin``             ``2 IC* / (IC1 + IC2)``
``jiang_conrath``   ``1 / (IC1 + IC2 - 2 IC*)``

All compare synsets of one part of speech only, satellite adjectives being one of their own, and
read NaN for others; where NLTK's dictionary has no counts it raises, and NaN stands here.

Source: Resnik 1995, "Using information content to evaluate semantic similarity in a taxonomy"; Lin
1998, "An information-theoretic definition of similarity"; Jiang and Conrath 1997; Seco, Veale and
Hayes 2004, "An intrinsic information content metric for semantic similarity in WordNet".
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ProbekitError
from .similarity import distinct
from .taxonomy import ancestors, closure
from .wordnet import WordNet

UNSEEN = 1e300
"""NLTK's information content of a synset without counts, and its similarity of no difference."""


def information_content(
    wordnet: WordNet, counts: Mapping[str, Mapping[int, float]]
) -> Float[Tensor, " synset"]:
    """``-ln(count / total)`` of each synset in nats, of NLTK's dictionary.

    Args:
        wordnet: of :func:`load_wordnet`.
        counts: by part of speech and offset, 0 being the total, as of NLTK's
            ``wordnet_ic.ic("ic-brown.dat")`` or ``wordnet.ic(corpus)``. Parts of speech that it
            lacks read NaN, synsets without counts 1e300.

    Raises:
        ProbekitError: a part of speech without a positive total.
    """
    for pos, own in counts.items():
        if not own.get(0, 0) > 0:
            raise ProbekitError(
                f"counts[{pos!r}] need their positive total under 0, not {own.get(0)!r}; NLTK's "
                "ic() has it"
            )
    content = np.full(len(wordnet), np.nan)
    for i, (pos, offset) in enumerate(zip(wordnet.pos, wordnet.offsets.tolist(), strict=True)):
        own = counts.get("a" if pos == "s" else str(pos))
        if own is not None:
            count = own.get(offset, 0)
            # math's logarithm, as NLTK: numpy's may differ in the last bit
            content[i] = -math.log(count / own[0]) if count else UNSEEN
    return torch.from_numpy(content)


def intrinsic_content(wordnet: WordNet) -> Float[Tensor, " synset"]:
    """``1 - ln(hyponyms + 1) / ln(synsets)``, hyponyms and synsets of nouns or verbs.

    Between 0 (a root of all) and 1 (a leaf); NaN for adjectives and adverbs, which have no
    taxonomy. Hyponyms are all below, instances among them, each once.
    """
    content = np.full(len(wordnet), np.nan)
    for pos in "nv":
        own = np.flatnonzero(wordnet.pos == pos)
        below = np.bincount(ancestors(wordnet, own).nodes, minlength=len(wordnet))[own]
        content[own] = 1 - np.log(below) / math.log(len(own))
    return torch.from_numpy(content)


def resnik(
    wordnet: WordNet, synsets: Int[Tensor, " synset"], content: Float[Tensor, " all_synsets"]
) -> Float[Tensor, "synset synset"]:
    """``IC*``, the greatest information content of a common ancestor; 0 without one.

    Raises:
        ProbekitError: a place that is no synset, or content not of all synsets.
    """
    _check_content(wordnet, content)
    unique, back = distinct(wordnet, synsets)
    graph = closure(wordnet, unique)
    own = content.double().cpu().numpy()[graph.nodes]
    shared = np.empty((len(unique), len(unique)))
    for columns in graph.columns():
        best = graph.inherit(columns, own[graph.above.nodes], -np.inf, np.maximum)[graph.own]
        best[best == -np.inf] = 0
        shared[:, columns] = best
    pos = wordnet.pos[unique]
    covered = ~np.isnan(own[graph.own])
    shared[(pos[:, None] != pos) | ~(covered[:, None] & covered)] = np.nan
    return torch.from_numpy(shared[back[:, None], back])


def lin(
    wordnet: WordNet, synsets: Int[Tensor, " synset"], content: Float[Tensor, " all_synsets"]
) -> Float[Tensor, "synset synset"]:
    """``2 IC* / (IC1 + IC2)``; NaN for two roots, whose content is 0.

    Raises:
        ProbekitError: as :func:`resnik`.
    """
    shared = resnik(wordnet, synsets, content)
    own = content.double()[synsets]
    return 2.0 * shared / (own[:, None] + own)


def jiang_conrath(
    wordnet: WordNet, synsets: Int[Tensor, " synset"], content: Float[Tensor, " all_synsets"]
) -> Float[Tensor, "synset synset"]:
    """``1 / (IC1 + IC2 - 2 IC*)``: 1e300 where that divides by 0, and 0 where a content is 0.

    These are NLTK's conventions; ranks survive the first, correlations do not.

    Raises:
        ProbekitError: as :func:`resnik`.
    """
    shared = resnik(wordnet, synsets, content)
    own = content.double()[synsets]
    difference = own[:, None] + own - 2 * shared
    found = torch.where(difference == 0, UNSEEN, 1 / difference)
    found[((own == 0)[:, None] | (own == 0)) & ~shared.isnan()] = 0
    same = (synsets[:, None] == synsets) & ~shared.isnan()
    return torch.where(same, UNSEEN, found)


def _check_content(wordnet: WordNet, content: Tensor) -> None:
    if len(content) != len(wordnet):
        raise ProbekitError(
            f"content must be of all {len(wordnet)} synsets, not {len(content)}; "
            "intrinsic_content and information_content give it"
        )
