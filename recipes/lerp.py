"""Does a geometric modulator at alpha = .01 do anything that shrinking does not?

The terrain write-up makes a table of 64-dimensional rows from Wu-Palmer similarities of WordNet's
words, rotates them onto the encoder's states, and pulls the residual stream towards them by a
hundredth before every block. It reports that the rows give the similarity back, that they align
with the encoder, and that encodings barely move. Beside those stand a similarity dealt out anew,
held-out rows, and the modulator without its parts: the shrinking alone, rows at other words, rows
of no geometry, no shrinking, and nothing at tokens that have no geometry.

    pretrained     as published
    twin SEED      the same architecture with random weights

    probekit run lerp --preset quick --jobs 2                          MiniLM, one random twin
    probekit run lerp --preset paper --jobs 2 --models minilm          three, of the published sizes
    probekit run lerp --preset paper --jobs 2 --models t5-small        where its weights are cached

Measured, paper (MiniLM, 14,484 words, 3,000 anchors, 3,000 definitions): encodings keep a cosine of
.99989 with the original, and with the shrinking alone .99993. Pearson with path similarity rises
from .4310 to .4326, as it does by shrinking (.4320) and with rows at other words (.4324); of nouns
from .2934 to .2940, with rows at other words the same. Which word has which row is worth .0001
[.0001, .0002]; other random rows at the tokens without geometry are worth .0004. Fitted rows have a
cosine of .37 with the encoder, rows dealt out anew .08, unrelated ones .12 by the closed form
(quick, of 300 anchors, cannot tell them apart: .47, .29 and .39); held-out rows .33, dealt out anew
-.02, and with an untrained encoder .23. The similarity is given back with r = .93, its values dealt
out anew with .25. The projection is scaled by the pooled encodings' length, 4.6; the stream at the
hooks is 9.6 to 12.5 long. Scaled there and fitted, it gains .0022, nouns .0019.

Time on two cores: quick 1:29; paper 21 minutes of MiniLM alone, beside other work.

Source: "Geometric Terrain Analysis", sections 7 and 8 (T5-small, 3,000 anchors), with the same
draws; conventions that it leaves open are in probekit/terrain/modulation.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.terrain.curve_measures import MEASURES
from probekit.terrain.modulation import (
    KINDS,
    MODULATED,
    curve_readings,
    modulation_of,
    readings_of,
)
from probekit.terrain.modulation_pictures import controls_figure, geometry_figure
from probekit.terrain.modulation_readings import (
    band_readings,
    geometry_readings,
    impact_readings,
)
from probekit.terrain.presenting import present_models
from probekit.terrain.resampling import difference
from probekit.terrain.units import (
    PRETRAINED,
    TWIN,
    Results,
    collect_kinds,
    known,
    read_or_missing,
    reading,
)

NAME = "lerp"
WRITE_UP = "Geometric Terrain Analysis, residual modulator"
CORRECTED = "the same, corrected"
PROMPTS = (
    "summarize: The kitten chased a ball of wool under the kitchen table.",
    "summarize: A force that acts on a body changes its momentum.",
    "summarize: The derivative of a product has two terms, one for each factor.",
    "summarize: What is planted in haste is seldom harvested in peace.",
    "summarize: Lisbon lies where the Tagus meets the Atlantic.",
)
Unit = tuple[str, str]  # a model, and "pretrained" or "twin SEED"


@dataclass(frozen=True)
class Config:
    """Models by card, or as card=folder, each beside random twins."""

    models: tuple[str, ...] = ("minilm",)
    seeds: tuple[int, ...] = (0,)  # of the random twins
    draw: int = 42  # the published seed of anchors, definitions and pairs
    alpha: float = 0.01
    anchors: int = 300  # words whose similarities make the geometry; published: 3,000
    width: int = 64
    nodes: int = 600  # definitions that are compared; published: 3,000
    pairs: int = 50_000

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        seeds = (0, 1, 2)
        return cls(models=("minilm", "t5-small"), seeds=seeds, anchors=3_000, nodes=3_000)


def units(config: Config) -> list[Unit]:
    kinds = (PRETRAINED, *(f"{TWIN} {seed}" for seed in config.seeds))
    return [(entry, kind) for entry in config.models for kind in kinds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Read one model with its modulator; notes why it is not to be had, if it is not."""

    def readings(model: Any, tokenizer: Any) -> dict[str, Any]:
        sizes = {name: getattr(config, name) for name in ("anchors", "width", "nodes", "pairs")}
        wordnet = pk.lexicon.load_wordnet()
        found = modulation_of(model, tokenizer, wordnet, **sizes, seed=config.draw)
        alphas = (0.0, config.alpha)
        modulated = found.encode(MODULATED, config.alpha)
        vectors = {"static": found.static, "original": found.original, MODULATED: modulated}
        return {
            "geometry": geometry_readings(found),
            "static": readings_of(found, [found.static], draws=2),
            "curves": {kind: curve_readings(found, kind, alphas) for kind in KINDS},
            "bands": band_readings(found, vectors),
            "impact": {
                kind: impact_readings(found, found.item(kind, config.alpha), PROMPTS)
                for kind in (MODULATED, "shrink-only", "zero unmatched")
            },
        }

    read_or_missing(*unit, run_dir, readings)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's readings."""
    return collect_kinds(units(config), run_dir)


def geometry(*path: str, kind: str = PRETRAINED) -> Callable[[Results], list[float]]:
    """A reading of the table by its path, a value a run."""
    return reading("geometry", *path, kind=kind)


def modulated(name: str, control: str = MODULATED) -> Callable[[Results], list[float]]:
    """A reading at alpha of the modulator, or of a control, a value a model."""

    def measure(results: Results) -> list[float]:
        runs = [run for kinds in known(results).values() for run in kinds[PRETRAINED]]
        return [run["curves"][control][name][-1] for run in runs]

    return measure


def gain(name: str, control: str = MODULATED) -> Callable[[Results], list[float]]:
    """A reading at alpha less that at 0, a value a model."""

    def measure(results: Results) -> list[float]:
        runs = [run for kinds in known(results).values() for run in kinds[PRETRAINED]]
        curves = [run["curves"][control][name] for run in runs]
        return [curve[-1] - curve[0] for curve in curves]

    return measure


def impact(name: str, control: str) -> Callable[[Results], list[float]]:
    """How a modulator or control moves tokens, a value a model."""
    return reading("impact", control, name)


CLAIMS = [
    Claim("003-24", WRITE_UP, "at alpha = .01 encodings barely move: mean cosine with the original "
          "(.9998 of T5-small)", (0.999, 1.0), 0.0, modulated("preservation"),
          modulated("preservation", "shrink-only"), "shrinking alone"),
    Claim("003-24.tokens", WRITE_UP, "nor do tokens of five prompts: mean cosine, above .99",
          (0.99, 1.0), 0.0, impact("cosine", MODULATED), impact("cosine", "shrink-only"),
          "shrinking alone"),
    Claim("003-25", WRITE_UP, "the geometry aligns with the encoder: cosine of the rows that were "
          "fitted, above .25", (0.25, 1.0), 0.0, geometry("alignment", "cosine"),
          geometry("alignment", "shuffled"), "fitted to rows dealt out anew"),
    Claim("003-25.closed-form", CORRECTED, "the same without the scores' mean", (0.25, 1.0), 0.0,
          geometry("alignment", "centred"), geometry("alignment", "null"),
          "8 / (3 pi) sqrt(width / anchors) of unrelated rows"),
    Claim("003-25.held-out", CORRECTED, "rows that were not fitted align too: centred cosine, above"
          " .1", (0.1, 1.0), 0.0, geometry("alignment", "held_out"),
          geometry("alignment", "held_out_shuffled"), "rows dealt out anew"),
    Claim("003-25.trained", CORRECTED, "because the encoder is trained: the same, above .1",
          (0.1, 1.0), 0.0, geometry("alignment", "held_out"),
          geometry("alignment", "held_out", kind=TWIN), "random twins"),
    Claim("003-26", WRITE_UP, "64 dimensions give Wu-Palmer similarity back: r above .5",
          (0.5, 1.0), 0.0, geometry("reconstruction", "r"), geometry("reconstruction", "null"),
          "the pairs' similarities dealt out anew, and fitted again"),
    Claim("003-26.above", CORRECTED, "better than such noise: r above .8", (0.8, 1.0), 0.0,
          geometry("reconstruction", "r"), geometry("reconstruction", "null"),
          "the pairs' similarities dealt out anew, and fitted again"),
    Claim("003-30.at-.01", WRITE_UP, "at .01 the modulator already raises Pearson with path "
          "similarity, by .001 or more", (0.001, 1.0), 0.0, gain("pearson"),
          gain("pearson", "permuted"), "matched words have each other's rows"),
    Claim("003-30.at-.01.nouns", CORRECTED, "and of nouns, by .001 or more", (0.001, 1.0), 0.0,
          gain("nouns"), gain("nouns", "permuted"), "matched words have each other's rows"),
]  # fmt: skip


def rows_of(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Tables a model and kind: correlations of each kind of vector, and what the table is."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for name, kinds in results.items():
        for kind, runs in kinds.items():
            title = f"{name}, {kind}"
            tables[title] = _correlations(runs[0])
            tables[f"{title}: differences from the modulated"] = _differences(runs[0])
            tables[f"{title}: geometry"] = _geometry(runs[0]["geometry"])
            tables[f"{title}: mean cosines by path similarity"] = runs[0]["bands"]
            tables[f"{title}: tokens of five prompts"] = [
                {"kind": each, **values} for each, values in runs[0]["impact"].items()
            ]
    return tables


def _correlations(run: Any) -> list[dict[str, Any]]:
    names = ("pearson", "spearman", "gradient", "preservation", "nouns")
    curves, static = run["curves"], run["static"]
    rows = [{"vectors": "static", **{name: static[name][0] for name in names}}]
    rows += [{"vectors": "original", **{name: curves[MODULATED][name][0] for name in names}}]
    return rows + [
        {"vectors": kind, **{name: curves[kind][name][-1] for name in names}} for kind in curves
    ]


def _differences(run: Any) -> list[dict[str, Any]]:
    curves = run["curves"]
    alpha = curves[MODULATED]["alphas"][-1]
    rows = []
    for kind in curves:
        if kind != MODULATED:
            cells = {
                name: "{:+.2g} [{:+.2g}, {:+.2g}]".format(
                    *difference(curves[MODULATED], curves[kind], name, alpha)
                )
                for name in MEASURES
            }
            rows.append({"modulated less": kind, **cells})
    return rows


def _geometry(readings: Any) -> list[dict[str, Any]]:
    flat = {
        "words": readings["matched"],
        "parameters": readings["parameters"],
        "parameters, as published": readings["published parameters"],
        **{f"alignment: {name}": value for name, value in readings["alignment"].items()},
        **{f"reconstruction: {name}": value for name, value in readings["reconstruction"].items()},
        "encodings' length": readings["length"],
        "stream's length by layer": ", ".join(f"{x:.2f}" for x in readings["stream norms"]),
    }
    for state, health in readings["health"].items():
        flat |= {f"{state}: {name}": x for name, x in health.items() if name != "alpha"}
    return [{"reading": name, "value": value} for name, value in flat.items()]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw two figures a model, write ``report.html``."""

    def figures(kinds: Any) -> dict[str, Any]:
        own = kinds[PRETRAINED][0]
        return {
            "controls": (controls_figure(own["curves"], config.alpha), CONTROLS),
            "geometry": (geometry_figure(own), GEOMETRY),
        }

    title = "A geometric modulator and its controls"
    present_models(
        title, __doc__ or "", CLAIMS, results, run_dir, tables=rows_of, figures=figures
    )  # fmt: skip


CONTROLS = (
    "The modulator less each control, with 95 % intervals of resampled definitions: right of the "
    "line the modulator reads more."
)
GEOMETRY = (
    "Left: the fit of rows to encodings and the similarity given back, beside what chance reads. "
    "Middle: mean cosines by path similarity. Right: the stream's length before each block, and "
    "that of the pooled encodings, by which the published projection is scaled."
)

if __name__ == "__main__":
    probekit.recipes.main(__file__)
