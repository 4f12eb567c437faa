"""Definitions of a model's one-token words: how alike words are in WordNet and in the model.

The draws are the published ones: of 3,000 words, half a million pairs; then, from the same
generator, pentachora. The published comparison sets the encoding of a gloss beside the embedding of
its word, which never saw the gloss: the mean embedding of the gloss's own tokens and the share of
tokens that two glosses have in common belong beside it, and an encoder with random weights.

Source: the write-up "Geometric Terrain Analysis", its section on WordNet, and its critique.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.categories import intra_cosine
from ..geometry.similarity import cosine_similarity
from ..geometry.volumes import simplex_volumes, volume_stats
from ..hooked.model import HookedModel
from ..lexicon import (
    DISJOINT_BANDS,
    PREFIX,
    PUBLISHED_BANDS,
    Matches,
    PairSample,
    WordNet,
    alignment,
    bag_of_tokens,
    band_cosines,
    chain_decay,
    cosine_table,
    encode_texts,
    eta_squared,
    hypernym_decay,
    hypernym_pairs,
    jaccard,
    lexname_clusters,
    match_tokens,
    node_permutation,
    noun_pairs,
    partial_correlation,
    path_similarity,
    pos_pairs,
    published_chains,
    sample_pairs,
    similarity_gradient,
    synsets_of,
    token_bootstrap,
)
from .tokens import embedding_of

Readings = dict[str, Any]
NODES, PAIRS, SIMPLICES = 3_000, 500_000, 1_000


@dataclass(frozen=True, eq=False)
class Definitions:
    """One-token words with their synsets, and three vectors of each, none of length 0.

    ``static`` is the word's embedding, ``encoder`` the pooled encoding of its gloss, ``bag`` the
    mean embedding of the encoded tokens, those of the gloss alone being ``gloss_tokens``.
    """

    wordnet: WordNet
    matches: Matches
    static: Float[Tensor, "entry d_model"]
    encoder: Float[Tensor, "entry d_model"]
    bag: Float[Tensor, "entry d_model"]
    gloss_tokens: list[list[int]]

    @property
    def vectors(self) -> dict[str, Tensor]:
        return {"static": self.static, "encoder": self.encoder, "bag": self.bag}


def definitions_of(
    model: HookedModel,
    tokenizer: Any,
    wordnet: WordNet,
    rule: Literal["published", "first-sense"] = "published",
) -> Definitions:
    """Match a tokenizer's words, and encode "summarize: " and their glosses.

    Args:
        rule: which sense a word has, see :func:`probekit.lexicon.match_tokens`.
    """

    def tokenize(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    matches = match_tokens(wordnet, tokenize, rule)
    texts = [PREFIX + gloss for gloss in matches.glosses]
    inner: Any = model.original_model
    table = embedding_of(model).cpu()
    return Definitions(
        wordnet,
        matches,
        table[matches.tokens],
        encode_texts(inner, tokenizer, texts),
        bag_of_tokens(table, tokenizer(texts)["input_ids"]),
        tokenize(list(matches.glosses)),
    )


def alignment_readings(found: Definitions, seed: int = 42) -> Readings:
    """The published numbers of each kind of vector, beside those that a critic asks for.

    Returns:
        by kind ("static", "encoder", "bag", "jaccard"): ``pearson``, ``spearman`` over all pairs,
        ``nouns`` (pairs of different nouns), ``partial`` (given the pair of parts of speech),
        their ``gradient``, deviations under permuted words and of resampled words; and ``pairs``,
        ``volumes``, ``bands``, ``chains``, ``clusters``.
    """
    rng = np.random.default_rng(seed)
    entries = len(found.matches)
    sample = sample_pairs(entries, NODES, PAIRS, rng)
    simplices = torch.from_numpy(
        np.stack([rng.choice(entries, 5, replace=False) for _ in range(SIMPLICES)])
    )
    synsets = found.matches.synsets[sample.chosen]
    similarity = sample.of(path_similarity(found.wordnet, synsets))
    groups = pos_pairs(found.wordnet, synsets, sample)
    nouns = noun_pairs(found.wordnet, synsets, sample)
    tables = {name: cosine_table(x, sample) for name, x in found.vectors.items()}
    tables["jaccard"] = jaccard([found.gloss_tokens[entry] for entry in sample.chosen.tolist()])
    readings: Readings = {
        name: _aligned(similarity, table, sample, groups, nouns) for name, table in tables.items()
    }
    own = cosine_similarity(found.static.double(), found.encoder.double())
    readings["pairs"] = {
        "matched": entries,
        "first sense": _first_senses(found),
        "nouns": float(nouns.double().mean()),
        "nouns among high": float(nouns[similarity >= 0.25].double().mean()),
        "part-of-speech share": eta_squared(similarity, groups),
        "static-encoder cosine": float(own.nanmean()),
    }
    readings["bands"] = _bands(similarity, {k: sample.of(tables[k]) for k in found.vectors})
    readings["volumes"] = _volumes(found, simplices)
    readings["chains"] = _chains(found, seed)
    readings["clusters"] = _clusters(found, seed)
    readings["scatter"] = _scatter(similarity, sample.of(tables["encoder"]), nouns)
    return readings


def _first_senses(found: Definitions) -> float:
    """The share of words that have the sense that WordNet puts first."""
    matches = found.matches
    first = (synsets_of(found.wordnet, lemma)[:1] for lemma in matches.lemmas)
    pairs = zip(first, matches.synsets.tolist(), strict=True)
    return sum(sense == [synset] for sense, synset in pairs) / len(matches)


def _aligned(
    similarity: Tensor, table: Tensor, sample: PairSample, groups: Tensor, nouns: Tensor
) -> Readings:
    cosines = sample.of(table)
    whole, steps = alignment(similarity, cosines), similarity_gradient(similarity, cosines)
    permuted = node_permutation(similarity, table, sample)
    resampled = token_bootstrap(similarity, table, sample, draws=100)
    return {
        "pearson": whole.pearson,
        "spearman": whole.spearman,
        "nouns": alignment(similarity[nouns], cosines[nouns]).pearson,
        "partial": partial_correlation(similarity, cosines, groups),
        "gradient": steps.gradient,
        "standardised gradient": steps.standardised,
        "nouns' gradient": similarity_gradient(similarity[nouns], cosines[nouns]).standardised,
        "permuted mean": permuted.mean,
        "permuted deviation": permuted.std,
        "bootstrap deviation": resampled.std,
    }


def _bands(similarity: Tensor, cosines: Mapping[str, Tensor]) -> Readings:
    forms = {"published": PUBLISHED_BANDS, "disjoint": DISJOINT_BANDS}
    return {
        form: {name: band_cosines(similarity, each, bands) for name, each in cosines.items()}
        for form, bands in forms.items()
    }


def _volumes(found: Definitions, simplices: Tensor) -> Readings:
    first, second = (simplex_volumes(x, simplices) for x in (found.static, found.encoder))
    both = (first > 0) & (second > 0)
    return {
        "static cv": volume_stats(first).cv,
        "encoder cv": volume_stats(second).cv,
        "r": float(torch.corrcoef(torch.stack([first[both], second[both]]))[0, 1]),
    }


def _chains(found: Definitions, seed: int) -> Readings:
    """Mean cosines up the hypernyms: as published, by edges, and of words dealt out anew."""
    synsets = found.matches.synsets
    chains, pairs = published_chains(found.wordnet, synsets), hypernym_pairs(found.wordnet, synsets)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(synsets)))
    kinds = {**found.vectors, "shuffled": found.encoder[order]}
    return {
        "published": {name: chain_decay(chains, x) for name, x in kinds.items()},
        "by edges": {name: hypernym_decay(pairs, x) for name, x in kinds.items()},
        "number": len(chains),
    }


def _clusters(found: Definitions, seed: int) -> Readings:
    """Intra cosines of lexicographers' files: their first 200 words, and 200 at random."""
    synsets = found.matches.synsets
    forms = {
        "published": lexname_clusters(found.wordnet, synsets),
        "random": lexname_clusters(found.wordnet, synsets, np.random.default_rng(seed)),
    }
    return {
        form: {
            name: {kind: float(intra_cosine(x[rows])) for kind, x in found.vectors.items()}
            | {"words": len(rows)}
            for name, rows in clusters.items()
        }
        for form, clusters in forms.items()
    }


def _scatter(similarity: Tensor, cosines: Tensor, nouns: Tensor) -> Readings:
    """Mean and deviation of cosines by path length: what a scatter of half a million shows."""
    return {
        form: [
            [float(value), float(here.mean()), float(here.std(correction=0)), len(here)]
            for value in similarity[kept].unique().tolist()
            if len(here := cosines[kept & (similarity == value)]) >= 10
        ]
        for form, kept in (("all", torch.ones_like(nouns)), ("nouns", nouns))
    }
