"""Does an encoder of definitions follow WordNet, or parts of speech and shared words?

The terrain write-up encodes the gloss of every word that is one token, correlates cosines with
NLTK's path similarity, and finds the encoder ahead of the static embedding. But NLTK joins parts of
speech at a simulated root, so that the pair of parts of speech is most of the similarity; a word
gets its first sense in file order; and the static embedding is of the word, which never saw the
gloss. Beside the published numbers stand pairs of nouns, the correlation given parts of speech,
words dealt out anew, and two readers of the same glosses: the mean embedding of their tokens, and
the tokens that two glosses share.

    pretrained     as published
    first sense    each word with its common sense
    twin SEED      the same architecture with random weights

    probekit run lexical --preset quick --jobs 2                       MiniLM, one random twin
    probekit run lexical --preset paper --jobs 2 --models minilm       five random twins
    probekit run lexical --preset paper --jobs 2 --models t5-small     where its weights are cached

Measured, paper (MiniLM, 14,484 words, 44 % of them with their first sense): Pearson .43 for the
encoder, .11 static, .13 for the mean embedding of the gloss's tokens, 0 untrained and dealt out
anew (deviations .01). But parts of speech are 91 % of the similarity's variance, and of the pairs
at .25 and above 2 % are of nouns. Of nouns alone the encoder has .29, the tokens' mean .23, shared
tokens .18; given parts of speech .23, .16 and .12: there much of it needs no encoder, which adds
.07. With common senses it is .25 and .18. Cosines fall up the hypernyms, .47 to .31 by matched
ancestors, and not where words are dealt out anew. Chosen after a review of the first run: the
controls of .beyond, 13 and 14.edges.

Time on two cores: quick 4 to 6 minutes; paper 11 of MiniLM alone, beside other work.

Source: "Geometric Terrain Analysis", section 2 (T5-small, 9,362 words), with the same draws.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.terrain.definition_pictures import alignment_figure, decay_figure
from probekit.terrain.definitions import alignment_readings, definitions_of
from probekit.terrain.presenting import present_models
from probekit.terrain.units import (
    PRETRAINED,
    TWIN,
    Results,
    collect_kinds,
    known,
    read_or_missing,
    reading,
)

NAME = "lexical"
WRITE_UP = "Geometric Terrain Analysis, definitions and WordNet"
CORRECTED = "the same, corrected"
FIRST_SENSE = "first sense"
SHOWN = ("static", "encoder", "bag", "jaccard")
Unit = tuple[str, str]  # a model, and "pretrained", "first sense" or "twin SEED"


@dataclass(frozen=True)
class Config:
    """Models by card, or as card=folder, each beside random twins."""

    models: tuple[str, ...] = ("minilm",)
    seeds: tuple[int, ...] = (0,)  # of the random twins
    draw: int = 42  # the published seed of pairs

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(models=("minilm", "t5-small"), seeds=(0, 1, 2, 3, 4))

    @property
    def kinds(self) -> tuple[str, ...]:
        return (PRETRAINED, FIRST_SENSE, *(f"twin {seed}" for seed in self.seeds))


def units(config: Config) -> list[Unit]:
    return [(entry, kind) for entry in config.models for kind in config.kinds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Encode one model's definitions and read them; notes why it is not to be had, if it is not."""
    rule = "first-sense" if unit[1] == FIRST_SENSE else "published"

    def readings(model: Any, tokenizer: Any) -> dict[str, Any]:
        wordnet = pk.lexicon.load_wordnet()
        return alignment_readings(definitions_of(model, tokenizer, wordnet, rule), config.draw)

    read_or_missing(*unit, run_dir, readings)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's readings."""
    return collect_kinds(units(config), run_dir)


def lift(name: str) -> Callable[[Results], list[float]]:
    """Pearson of a kind of vector less that of the static embedding, a value a model."""

    def measure(results: Results) -> list[float]:
        own, static = (reading(each, "pearson")(results) for each in (name, "static"))
        return [a - b for a, b in zip(own, static, strict=True)]

    return measure


def beyond(name: str, kind: str = PRETRAINED) -> Callable[[Results], list[float]]:
    """A reading of the encoder less the same of its own tokens' mean embedding, a value a run."""

    def measure(results: Results) -> list[float]:
        own, bag = (reading(each, name, kind=kind)(results) for each in ("encoder", "bag"))
        return [a - b for a, b in zip(own, bag, strict=True)]

    return measure


def decay(kind: str, form: str = "published", first: int = 1, last: int = 5) -> Any:
    """Mean cosine at the first depth less that at the last, a value a model."""

    def measure(results: Results) -> list[float]:
        falls = []
        for kinds in known(results).values():
            chain = kinds[PRETRAINED][0]["chains"][form][kind]
            means = dict(zip(chain["depths"], chain["means"], strict=True))
            falls.append(means.get(first, math.nan) - means.get(last, math.nan))
        return falls

    return measure


CLAIMS = [
    Claim("003-11", WRITE_UP, "9,362 of the vocabulary's tokens are words of WordNet (T5-small)",
          9_362.0, 0.0, reading("pairs", "matched", model="t5-small"), lambda _: None,
          "none: a count"),
    Claim("003-11.sense", CORRECTED,
          "of these words most have another sense than their common one: share with that one",
          (0.0, 0.5), 0.0, reading("pairs", "first sense"),
          reading("pairs", "first sense", kind=FIRST_SENSE), "words matched by their first sense"),
    Claim("003-12", WRITE_UP,
          "the encoder follows WordNet: Pearson of cosine and path similarity (.099 of T5-small"
          " with the modulator at .01)", (0.05, 1.0), 0.0, reading("encoder", "pearson"),
          reading("encoder", "permuted mean"), "words dealt out anew"),
    Claim("003-12.lift", WRITE_UP, "better than the static embedding: its Pearson less that one's",
          (0.02, 1.0), 0.0, lift("encoder"), lift("bag"),
          "the mean embedding of the gloss's tokens"),
    Claim("003-12.pos", CORRECTED,
          "parts of speech are most of path similarity (share of variance; .83 in the critique)",
          (0.5, 1.0), 0.0, reading("pairs", "part-of-speech share"), lambda _: None,
          "none: a property of NLTK's root and of the words"),
    Claim("003-12.nouns", CORRECTED, "of nouns alone it follows WordNet too", (0.05, 1.0), 0.0,
          reading("encoder", "nouns"), reading("bag", "nouns"),
          "the mean embedding of the gloss's tokens"),
    Claim("003-12.partial", CORRECTED, "and given parts of speech", (0.05, 1.0), 0.0,
          reading("encoder", "partial"), reading("jaccard", "partial"),
          "shared tokens of two glosses"),
    Claim("003-12.beyond", CORRECTED,
          "the encoder adds to its tokens: its Pearson of nouns less that of their mean embedding",
          (0.02, 1.0), 0.0, beyond("nouns"), beyond("nouns", TWIN), "random twins less theirs"),
    Claim("003-12.sense", CORRECTED, "with common senses, of nouns", (0.05, 1.0), 0.0,
          reading("encoder", "nouns", kind=FIRST_SENSE), reading("bag", "nouns", kind=FIRST_SENSE),
          "the mean embedding of the gloss's tokens"),
    Claim("003-13", WRITE_UP,
          "similar words have similar encodings: mean cosine at path similarity .25 and above "
          "less below .10 (.022 of T5-small)", (0.01, 2.0), 0.0, reading("encoder", "gradient"),
          reading("encoder", "gradient", kind=TWIN), "random twins"),
    Claim("003-13.beyond", CORRECTED,
          "in deviations of the cosines, and less the same of the gloss's tokens: above .2",
          (0.2, 10.0), 0.0, beyond("standardised gradient"), beyond("standardised gradient", TWIN),
          "random twins less theirs"),
    Claim("003-13.nouns", CORRECTED,
          "among the pairs at .25 and above, nouns are rare: their share", (0.0, 0.1), 0.0,
          reading("pairs", "nouns among high"), reading("pairs", "nouns"),
          "their share of all pairs"),
    Claim("003-14", WRITE_UP, "cosine falls up the hypernyms: matched ancestor 1 less 5",
          (0.01, 2.0), 0.0, decay("encoder"), decay("shuffled"), "words dealt out anew"),
    Claim("003-14.edges", CORRECTED, "and by edges: 1 less 5", (0.01, 2.0), 0.0,
          decay("encoder", "by edges"), decay("shuffled", "by edges"), "words dealt out anew"),
]  # fmt: skip


def rows_of(results: Results) -> dict[str, list[dict[str, Any]]]:
    """A table a model and kind: the readings of each kind of vector."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for name, kinds in results.items():
        for kind, runs in kinds.items():
            for index, readings in enumerate(runs):
                number = f" {index}" if len(runs) > 1 else ""
                tables[f"{name}, {kind}{number}"] = [
                    {
                        "vectors": each,
                        **{key: f"{value:.4f}" for key, value in readings[each].items()},
                    }
                    for each in SHOWN
                ]
                tables[f"{name}, {kind}{number}: pairs and volumes"] = [
                    {"reading": key, "value": f"{value:.4g}"}
                    for key, value in {**readings["pairs"], **readings["volumes"]}.items()
                ]
    return tables


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw two figures a model, write ``report.html``."""

    def figures(kinds: Any) -> dict[str, Any]:
        own, twin = kinds[PRETRAINED][0], kinds[TWIN][0]
        return {
            "alignment": (alignment_figure(own, twin), ALIGNMENT),
            "decay": (decay_figure(own), DECAY),
        }

    title = "Definitions and WordNet"
    present_models(
        title, __doc__ or "", CLAIMS, results, run_dir, tables=rows_of, figures=figures
    )  # fmt: skip


ALIGNMENT = (
    "Left: mean cosine of encodings by path similarity, with deviations, of all pairs and of nouns "
    "alone. Middle: correlations of each reader, bars of the deviation of resampled words. Right: "
    "mean cosines of the fifteen largest of the lexicographers' files."
)
DECAY = "Up the hypernyms: as published, by the rank of matched ancestors, and by edges."

if __name__ == "__main__":
    probekit.recipes.main(__file__)
