"""An encoder of definitions with a geometric modulator: does it follow WordNet more closely?

The write-up gives every one-token word a row of geometry made of Wu-Palmer similarities, pulls the
encoder's residual stream towards it before every block, and reads how encodings of definitions
follow path similarity. Its controls are the modulator without its parts, one at a time
(:data:`KINDS`): the stream's shrinking alone, rows at other words, rows of no geometry.

It misleads where a change of encodings as such raises the correlation; and the rows are made of
the same WordNet that scores them, and a definition contains the word's genus.

Conventions that the write-up leaves open, as chosen here. Draws are without replacement. Wu-Palmer
of anchors i < j is NLTK's with i first, and stands for both orders. Eigenvectors come largest
first, with LAPACK's signs. Matched rows do not depend on them, since the fit turns them anyway; but
tokens without geometry have random rows, which meet the projection in that basis: another library's
signs are another draw of them. On MiniLM at .29154 that moves Pearson by .008 and preservation by
.01; so "redrawn" stands among the kinds, and "zero unmatched" is the modulator without that chance.
Neighbours are looked for among static embeddings. The projection's length is a tenth of the mean
length of the anchors' encodings before their mean is removed. Preservation is over the definitions
that are compared.

Source: the write-up "Geometric Terrain Analysis", its sections on the modulator's pipeline and on
alpha = .29154, and its critique, sections B11 and D.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from ..attachment import attach
from ..errors import ProbekitError, unknown
from ..geometry.similarity import cosine_similarity
from ..hooked.model import HookedModel
from ..interventions import Lerp
from ..lexicon import (
    PREFIX,
    Matches,
    PairSample,
    WordNet,
    alignment,
    cosine_table,
    encode_texts,
    match_tokens,
    noun_pairs,
    path_similarity,
    sample_pairs,
    similarity_gradient,
    wu_palmer,
)
from ..modulators import (
    LerpModulator,
    RowAlignment,
    align_rows,
    from_relations,
    neighbour_rows,
    permuted_rows,
    random_rows,
    zero_rows,
)
from ..probes import ResidualStats
from ..sitemap import list_sites
from .resampling import resampled_curves
from .tokens import embedding_of

Readings = dict[str, Any]
DRAWS = 200

MODULATED = "modulated"
#: The modulator, and what remains of it without one of its parts.
KINDS = {
    MODULATED: "as published",
    "shrink-only": "(1 - alpha) x, no geometry",
    "permuted": "matched words have each other's rows",
    "random": "matched words have random rows of the same lengths",
    "redrawn": "tokens without geometry have other random rows",
    "additive-only": "x + alpha P G, no shrinking",
    "zero unmatched": "tokens without geometry get nothing, not random rows",
    "zero unmatched, permuted": "that, and matched words have each other's rows",
    "corrected": "zero unmatched, with the fitted projection and every layer's own scale",
}


@dataclass(frozen=True, eq=False, repr=False)
class Modulation:
    """A model with its modulator, and the definitions that are compared, in the sample's order.

    ``similarity`` and ``nouns`` are of the sample's pairs, whose places are definitions here.
    """

    model: HookedModel
    tokenizer: Any
    matches: Matches
    module: LerpModulator
    site: str
    alignment: RowAlignment
    relations: Float[Tensor, "anchor anchor"]
    anchor_rows: Float[Tensor, "anchor width"]
    texts: list[str]
    sample: PairSample
    similarity: Float[Tensor, " pair"]
    nouns: Bool[Tensor, " pair"]
    static: Float[Tensor, "node d_model"]
    original: Float[Tensor, "node d_model"]

    def item(self, kind: str, alpha: float | int, deal: int = 0) -> Lerp:
        """The modulator, or a control, to attach.

        Args:
            deal: of the controls whose rows are drawn or dealt out, which draw.

        Raises:
            ProbekitError: an unknown kind.
        """
        if kind not in KINDS:
            raise ProbekitError(unknown("kind", kind, KINDS))
        if kind in ("shrink-only", "additive-only"):
            return Lerp(self.module, alpha, self.site, kind)
        return Lerp(self._module(kind, deal), alpha, self.site)

    def _module(self, kind: str, deal: int) -> LerpModulator:
        ids = self.matches.tokens
        if kind == "permuted":
            return permuted_rows(self.module, deal, ids)
        if kind == "random":
            return random_rows(self.module, deal, ids)
        if kind == "redrawn":
            rest = torch.ones(len(self.module.geometry), dtype=torch.bool)
            rest[ids] = False
            return random_rows(self.module, 1 + deal, rest.nonzero()[:, 0])
        if kind == "zero unmatched":
            return zero_rows(self.module, ids)
        if kind == "zero unmatched, permuted":
            return zero_rows(permuted_rows(self.module, deal, ids), ids)
        return self._corrected() if kind == "corrected" else self.module

    def _corrected(self) -> LerpModulator:
        """The fitted projection, in the units of each layer's stream; unmatched rows are zero."""
        module = zero_rows(self.module, self.matches.tokens)
        module.projection.data.copy_(self.alignment.corrected)
        module.set_scales(self.stream_norms() / self.alignment.length)
        return module

    def stream_norms(self, texts: int = 32) -> Float[Tensor, " layer"]:
        """Mean length of the residual stream before each block, over the first definitions."""
        with attach(self.model, ResidualStats(self.site)) as run:
            encode_texts(_inner(self.model), self.tokenizer, self.texts[:texts], batch=1)
        return run["residual_stats"].values[..., 0].flatten()  # batches of one have no padding

    def encode(self, kind: str, alpha: float | int, deal: int = 0) -> Float[Tensor, "node d_model"]:
        """The definitions' encodings with the modulator, or a control, attached."""
        with attach(self.model, self.item(kind, alpha, deal)):
            return encode_texts(_inner(self.model), self.tokenizer, self.texts)


def modulation_of(
    model: HookedModel,
    tokenizer: Any,
    wordnet: WordNet,
    *,
    anchors: int = 300,
    width: int = 64,
    nodes: int = 600,
    pairs: int = 50_000,
    seed: int = 42,
) -> Modulation:
    """Match words, make their geometry, align it, and encode the definitions to be compared.

    ``default_rng(seed).choice(words, anchors)`` are the anchors; another generator of that seed
    draws the definitions and pairs, as :func:`probekit.lexicon.sample_pairs` does. The table's
    other rows are ``torch.manual_seed(0); torch.randn(vocab, width)``.

    Args:
        anchors: words whose Wu-Palmer similarities give the geometry (published: 3,000).
        width: of the geometry.
        nodes: definitions that are compared (published: 3,000), all where there are fewer.
        pairs: of them.
        seed: of the draws.
    """
    matches = match_tokens(
        wordnet, lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"], "published"
    )
    table = embedding_of(model).cpu()
    chosen = torch.from_numpy(
        np.random.default_rng(seed).choice(len(matches), anchors, replace=False)
    )
    relations = _relations(wordnet, matches, chosen)
    anchor_rows = from_relations(relations, width)
    static = table[matches.tokens]
    rows = neighbour_rows(static, static[chosen], anchor_rows)
    rows[chosen] = anchor_rows
    states = encode_texts(_inner(model), tokenizer, _texts(matches, chosen))
    found = align_rows(anchor_rows, states)
    site, layers = site_of(model)
    module = LerpModulator(
        d_model=table.shape[1], n_layers=layers, vocab=len(table), d_geometry=width, seed=0
    )
    module.projection.data.copy_(found.projection)
    module.set_geometry(rows, matches.tokens)
    drawn = sample_pairs(len(matches), nodes, pairs, np.random.default_rng(seed))
    synsets, texts = matches.synsets[drawn.chosen], _texts(matches, drawn.chosen)
    return Modulation(
        model,
        tokenizer,
        matches,
        module,
        site,
        found,
        relations,
        anchor_rows,
        texts,
        PairSample(torch.arange(len(texts)), drawn.first, drawn.second),
        drawn.of(path_similarity(wordnet, synsets)),
        noun_pairs(wordnet, synsets, drawn),
        static[drawn.chosen],
        encode_texts(_inner(model), tokenizer, texts),
    )


def curve_readings(
    found: Modulation, kind: str, alphas: Sequence[float | int], draws: int = DRAWS
) -> Readings:
    """The published numbers at each alpha, and the same of resampled definitions.

    Returns:
        ``alphas``, lists of ``pearson``, ``spearman``, ``gradient``, ``preservation`` and
        ``nouns`` (pairs of different nouns), and ``resampled``: draws by alphas of all but
        Spearman's. Draws are the same for every kind, so that differences may be taken of them.
    """
    encodings = [
        found.encode(kind, alpha) if alpha else found.original
        for alpha in tqdm(alphas, desc=kind, delay=3)
    ]
    return {"alphas": list(alphas), **readings_of(found, encodings, draws)}


def dealt_readings(
    found: Modulation, kind: str, alpha: float | int, deals: Sequence[int]
) -> Readings:
    """The published numbers of a control at one alpha, each a list by deal of its rows.

    One deal is one draw of the null: what resampled definitions say of a difference to it is not
    how far other deals are from it.
    """
    encodings = [found.encode(kind, alpha, deal) for deal in tqdm(deals, desc="deals", delay=3)]
    readings = readings_of(found, encodings, draws=1)
    return {"deals": list(deals)} | {k: v for k, v in readings.items() if k != "resampled"}


def readings_of(found: Modulation, encodings: Sequence[Tensor], draws: int = DRAWS) -> Readings:
    """The published numbers of each of several encodings of the same definitions."""
    similarity, nouns = found.similarity, found.nouns
    kept = torch.stack([cosine_similarity(found.original, x) for x in encodings])
    cosines = torch.stack([found.sample.of(cosine_table(x, found.sample)) for x in encodings])
    whole = [alignment(similarity, each) for each in cosines]
    resampled = resampled_curves(similarity, cosines, kept, nouns, found.sample, draws=draws)
    return {
        "pearson": [each.pearson for each in whole],
        "spearman": [each.spearman for each in whole],
        "gradient": [similarity_gradient(similarity, each).gradient for each in cosines],
        "preservation": kept.mean(-1).tolist(),
        "nouns": [alignment(similarity[nouns], each[nouns]).pearson for each in cosines],
        "resampled": {name: values.tolist() for name, values in resampled.items()},
    }


def _relations(wordnet: WordNet, matches: Matches, chosen: Tensor) -> Tensor:
    """Wu-Palmer similarities of anchors: 1 with themselves, 0 where there is none."""
    upper = wu_palmer(wordnet, matches.synsets[chosen]).triu(1).nan_to_num(0)
    return upper + upper.T + torch.eye(len(chosen), dtype=upper.dtype)


def _texts(matches: Matches, places: Tensor) -> list[str]:
    return [PREFIX + matches.glosses[place] for place in places.tolist()]


def site_of(model: HookedModel) -> tuple[str, int]:
    """The residual stream before the encoder's blocks, and their number."""
    sites = set(list_sites(model)["site"])
    prefix = "encoder." if "encoder.0.resid_pre" in sites else ""
    layers = 0
    while f"{prefix}{layers}.resid_pre" in sites:
        layers += 1
    return f"{prefix}resid_pre", layers


def _inner(model: HookedModel) -> Any:
    return model.original_model
