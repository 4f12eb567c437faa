"""Is there a phase boundary at alpha = .29154, or a smooth curve that the controls share?

The terrain write-up sets the modulator's alpha to .29154 in all layers (.29514 in its title), calls
that a phase boundary, and reports that the encoder follows WordNet more closely there and beyond,
by "+152 %". Here alpha runs over (0, 1), finer around both constants; each curve is described by
two segments that meet and by a cubic without a bend, with as many free numbers; and the same is
done for the shrinking alone, for rows at other words, and where tokens without geometry get none;
whether it matters which word has which row is read off 20 deals of the rows at .29154.

    probekit run phase-boundary --preset quick --jobs 2                MiniLM
    probekit run phase-boundary --preset paper --jobs 2 --models t5-small       where it is cached

Measured, quick (MiniLM, 600 definitions): of 16 curves one has a bend that halves a cubic's error,
that of nouns at .44 [.35, .53]; permuted rows have it at .40, nearly as sharp. The best bend of
Pearson is at .54 [.45, .57], of preservation at .26, where a cubic's error is a third;
both constants read alike (.4412, .4403). Pearson peaks near .1 at .462
(.455 unmodulated; .461 by shrinking alone) and falls: .441 at .29154, .390 at .5, where shrinking
has .372 and permuted rows .378. At .29154 the modulator is .004 [-.007, .014] above the shrinking,
.010 [.000, .021] below it on nouns, and .003 [.001, .006] above permuted rows. Other random rows at
tokens without geometry read .459; without any it is .445, .007 above the shrinking, of which .004
with permuted rows, and 19 deals of its rows read .441 on average, .443 at most. So it matters which
word has which row, by .004. Chosen after the first run: "sharp" as half a cubic's error (5 of 16
best bends beat a cubic by something; none of the modulator's lies at the constants, sharp or not),
the kind "zero unmatched, permuted", the deals, and that a difference is one where its interval
leaves 0 out.

Time on two cores: quick 5:25; paper 45 minutes of MiniLM alone (estimated from a third of it).

Source: "Geometric Terrain Analysis", section 10 (T5-small), with the same draws; conventions that
it leaves open are in probekit/terrain/modulation.py.
"""

import functools
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.pretrained import pretrained, tokenizer_of
from probekit.terrain.curve_measures import (
    DEALT,
    MEASURES,
    PRINTED,
    apart,
    as_high,
    at,
    bend,
    bends_of,
    best,
    read,
    spread,
    surely,
)
from probekit.terrain.modulation import (
    KINDS,
    MODULATED,
    Modulation,
    curve_readings,
    dealt_readings,
    modulation_of,
)
from probekit.terrain.modulation_pictures import controls_figure, phase_figure
from probekit.terrain.presenting import present_models
from probekit.terrain.resampling import difference
from probekit.terrain.units import (
    PRETRAINED,
    Results,
    named,
    read_or_missing,
    unit_folder,
)

NAME = "phase-boundary"
WRITE_UP = "Geometric Terrain Analysis, static alpha"
CORRECTED = "the same, corrected"
COARSE = (0.01, PRINTED[0], 0.5)  # alphas of controls without a curve of their own
CURVES = (MODULATED, "shrink-only", "permuted", "zero unmatched")
DEALS = tuple(range(1, 20))  # of "zero unmatched, permuted", which is deal 0
QUICK = (
    *(0.0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.28, *PRINTED, 0.305, 0.33, 0.37, 0.42),
    *(0.5, 0.6, 0.7, 0.85),
)
PAPER = tuple(sorted({*(round(0.02 * i, 2) for i in range(50)), *QUICK}))
Unit = tuple[str, str, int]  # a model, a kind of modulator, and the seed of the draws


@dataclass(frozen=True)
class Config:
    """Models by card, or as card=folder."""

    models: tuple[str, ...] = ("minilm",)
    seeds: tuple[int, ...] = (42,)  # of anchors, definitions and pairs; published: one
    alphas: tuple[float, ...] = QUICK
    anchors: int = 300  # words whose similarities make the geometry; published: 3,000
    width: int = 64
    nodes: int = 600  # definitions that are compared; published: 3,000
    pairs: int = 50_000

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(models=("minilm", "t5-small"), seeds=(42, 0, 1, 2), alphas=PAPER)


def units(config: Config) -> list[Unit]:
    kinds = (DEALT, *KINDS)  # the longest first
    return [
        (entry, kind, seed) for entry in config.models for seed in config.seeds for kind in kinds
    ]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Read one kind along alpha; notes why the model is not to be had, if it is not."""
    entry, kind, seed = unit
    sizes = (config.anchors, config.width, config.nodes, config.pairs)

    def readings(model: Any, tokenizer: Any) -> dict[str, Any]:
        found = modulation(entry, seed, *sizes)
        if kind == DEALT:
            return dealt_readings(found, "zero unmatched, permuted", PRINTED[0], DEALS)
        if kind not in CURVES:
            return curve_readings(found, kind, COARSE)
        return curve_readings(found, kind, sorted({0.0, *config.alphas, *COARSE, *PRINTED}))

    read_or_missing(entry, f"{kind} {seed}", run_dir, readings)


@functools.cache  # what all kinds share; a worker reads several
def modulation(
    entry: str, seed: int, anchors: int, width: int, nodes: int, pairs: int
) -> Modulation:
    """The model with its modulator, and its definitions."""
    model, wordnet = pretrained(entry), pk.lexicon.load_wordnet()
    sizes = {"anchors": anchors, "width": width, "nodes": nodes, "pairs": pairs}
    return modulation_of(model, tokenizer_of(model), wordnet, **sizes, seed=seed)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's curve: by model and kind, a curve a seed; the modulator is "pretrained"."""
    found: dict[str, dict[str, list[Any]]] = {}
    for entry, kind, seed in units(config):
        label = PRETRAINED if kind == MODULATED else kind
        runs = found.setdefault(named(entry), {}).setdefault(label, [])
        runs.append(unit_folder(run_dir, entry, f"{kind} {seed}").read_json("readings.json"))
        if kind in CURVES and "missing" not in runs[-1]:
            runs[-1]["bends"] = bends_of(runs[-1])
    return found


SHRINKING, PERMUTED = "shrinking alone", "matched words have each other's rows"
UNMODULATED = "no modulator"
T5 = "t5-small"
RANDOM = "matched words have random rows"
CLAIMS = [
    Claim("003-12.t5", WRITE_UP, "of T5-small with the modulator at .01 Pearson is .099", 0.099,
          0.02, at("pearson", 0.01, model=T5), at("pearson", 0.0, model=T5), UNMODULATED),
    Claim("003-13.t5", WRITE_UP, "of T5-small with the modulator at .01 the gradient is .022",
          0.022, 0.01, at("gradient", 0.01, model=T5), at("gradient", 0.0, model=T5), UNMODULATED),
    Claim("003-29", WRITE_UP, "a phase boundary at alpha = .29154 (or .29514): where the curve of "
          "Pearson bends", PRINTED, 0.01, bend("pearson"), bend("pearson", "shrink-only"),
          SHRINKING),
    Claim("003-29.permuted", WRITE_UP, "the same, beside another control", PRINTED, 0.01,
          bend("pearson"), bend("pearson", "permuted"), PERMUTED),
    Claim("003-29.preservation", WRITE_UP, "where the curve of preservation bends", PRINTED, 0.01,
          bend("preservation"), bend("preservation", "shrink-only"), SHRINKING),
    Claim("003-29.gradient", WRITE_UP, "where the curve of the gradient bends", PRINTED, 0.01,
          bend("gradient"), bend("gradient", "shrink-only"), SHRINKING),
    Claim("003-29.nouns", CORRECTED, "where the curve of nouns bends", PRINTED, 0.01,
          bend("nouns"), bend("nouns", "shrink-only"), SHRINKING),
    Claim("003-29.sure", CORRECTED, "where Pearson bends is known to .05: width of its interval",
          (0.0, 0.05), 0.0, spread("pearson"), spread("pearson", "shrink-only"), SHRINKING),
    Claim("003-29.constants", CORRECTED, "the two printed constants read differently: Pearson, by "
          ".005 or more", (0.005, 1.0), 0.0, apart("pearson"),
          apart("pearson", "shrink-only"), SHRINKING),
    Claim("003-30", WRITE_UP, "more alpha, more WordNet: Pearson at .5 less that at .01 (.185 and "
          ".099 of T5-small)", (0.02, 1.0), 0.0, at("pearson", 0.5, less=0.01),
          at("pearson", 0.5, "permuted", less=0.01), PERMUTED),
    Claim("003-30.t5", WRITE_UP, "of T5-small Pearson at .5 is .185", 0.185, 0.02,
          at("pearson", 0.5, model=T5), at("pearson", 0.5, "permuted", model=T5), PERMUTED),
    Claim("003-30.t5-gradient", WRITE_UP, "of T5-small the gradient at .5 is .076", 0.076, 0.01,
          at("gradient", 0.5, model=T5), at("gradient", 0.5, "permuted", model=T5), PERMUTED),
    Claim("003-30.t5-preservation", WRITE_UP, "of T5-small the mean cosine with the original at .5 "
          "is .176", 0.176, 0.02, at("preservation", 0.5, model=T5),
          at("preservation", 0.5, "shrink-only", model=T5), SHRINKING),
    Claim("003-30.best", WRITE_UP, "of T5-small the best alpha raises Pearson by 152 %, to 2.52 "
          "times that without a modulator (the printed .185 over .099 is 1.87)", 2.52, 0.1,
          best("pearson", model=T5), best("pearson", "permuted", model=T5), PERMUTED),
    Claim("003-30.gradient", WRITE_UP, "and a larger gradient (.076 and .022 of T5-small)",
          (0.02, 2.0), 0.0, at("gradient", 0.5, less=0.01),
          at("gradient", 0.5, "permuted", less=0.01), PERMUTED),
    Claim("003-30.nouns", CORRECTED, "of nouns", (0.02, 1.0), 0.0, at("nouns", 0.5, less=0.01),
          at("nouns", 0.5, "permuted", less=0.01), PERMUTED),
    Claim("003-30.words", CORRECTED, "at .29154 it matters which word has which row: low end of the"
          " interval of Pearson less that of permuted rows", (0.0, 1.0), 0.0,
          surely("pearson", MODULATED, "permuted"), surely("pearson", "random", "permuted"),
          RANDOM),
    Claim("003-30.shrinking", CORRECTED, "and it adds to the shrinking: low end of the interval of "
          "Pearson less that of shrinking alone", (0.0, 1.0), 0.0,
          surely("pearson", MODULATED, "shrink-only"), surely("pearson", "random", "shrink-only"),
          RANDOM),
    Claim("003-30.matched", CORRECTED, "also where tokens without geometry get none", (0.0, 1.0),
          0.0, surely("pearson", "zero unmatched", "shrink-only"),
          surely("pearson", "zero unmatched, permuted", "shrink-only"), PERMUTED),
    Claim("003-30.matched.words", CORRECTED, "there it matters which word has which row: share of "
          "20 deals that read as high", (0.0, 0.05), 0.0, as_high("pearson", "zero unmatched"),
          as_high("pearson", "zero unmatched, permuted"), "one of the deals"),
    Claim("003-30.preservation", WRITE_UP, "at .5 little of the encoding is left: mean cosine with "
          "the original (.176 of T5-small)", (0.0, 0.5), 0.0, at("preservation", 0.5),
          at("preservation", 0.5, "shrink-only"), SHRINKING),
]  # fmt: skip


def curves_of(kinds: Any, run: int = 0) -> dict[str, Any]:
    """The curves of one seed by kind, the modulator's under its own name."""
    return {
        MODULATED if label == PRETRAINED else label: runs[run]
        for label, runs in kinds.items()
        if label != DEALT
    }


def rows_of(results: Results) -> dict[str, list[dict[str, Any]]]:
    """A table a model: readings of every kind, differences with intervals, and bends."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for model, kinds in results.items():
        curves = curves_of(kinds)
        tables[f"{model}"] = [
            {
                "kind": kind,
                "alpha": alpha,
                **{
                    name: read(curve, name, alpha)
                    for name in ("pearson", "spearman", *MEASURES[1:])
                },
            }
            for alpha in COARSE
            for kind, curve in curves.items()
        ]
        tables[f"{model}: modulated less control, 95 % intervals"] = [
            {
                "alpha": alpha,
                "less": kind,
                **{
                    name: "{:+.2g} [{:+.2g}, {:+.2g}]".format(
                        *difference(curves[MODULATED], curve, name, alpha)
                    )
                    for name in MEASURES
                },
            }
            for alpha in COARSE
            for kind, curve in curves.items()
            if kind != MODULATED
        ]
        tables[f"{model}: zero unmatched, its rows dealt out {len(DEALS)} times, at .29154"] = [
            _dealt(name, curves["zero unmatched"], kinds[DEALT][0][name]) for name in MEASURES
        ]
        tables[f"{model}: best bends, 95 % intervals, and errors beside a cubic's"] = [
            {
                "kind": kind,
                "curve": name,
                "at": found["at"],
                "interval": f"{found['low']:.3f} to {found['high']:.3f}",
                "slopes": f"{found['before']:.3f}, {found['after']:.3f}",
                "error": found["error"],
                "cubic's error": found["smooth_error"],
            }
            for kind in CURVES
            for name, found in curves[kind]["bends"].items()
        ]
    return tables  # fmt: skip


def _dealt(name: str, curve: Any, dealt: list[float]) -> dict[str, Any]:
    """A reading beside the same of every deal."""
    return {
        "reading": name,
        "rows at their words": read(curve, name, PRINTED[0]),
        "deals": statistics.fmean(dealt),
        "deviation of deals": statistics.stdev(dealt),
        "greatest of deals": max(dealt),
    }


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw two figures a model, write ``report.html``."""

    def figures(kinds: Any) -> dict[str, Any]:
        curves = curves_of(kinds)
        return {
            "phase": (phase_figure(curves, PRINTED), PHASE),
            "controls": (controls_figure(curves, PRINTED[0]), CONTROLS),
        }

    title = "A phase boundary in alpha?"
    present_models(
        title, __doc__ or "", CLAIMS, results, run_dir, tables=rows_of, figures=figures
    )  # fmt: skip


PHASE = (
    "Readings along alpha, with a band of resampled definitions for the modulator; dotted: both "
    "printed constants. Below, each curve's best bend with its 95 % interval: filled where two "
    "segments have half a cubic's error or less, hollow where the curve is smooth."
)
CONTROLS = (
    "At alpha = .29154 the modulator less each control, with 95 % intervals of resampled "
    "definitions: right of the line the modulator reads more."
)

if __name__ == "__main__":
    probekit.recipes.main(__file__)
