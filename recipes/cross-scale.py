"""Does a large model's table map onto a small one's, or does any table with a mean?

The terrain write-up carries Qwen3.5-4B's embedding onto the 0.8B one's by PCA and a rotation, and
reads the cosines of mapped rows. A predictor that says the mean row for every token has a cosine of
its own, and 10,000 rows leave a rotation in 1,024 dimensions room to fit noise. So centred cosines
of held-out rows stand beside the published ones, and rows paired at random. Where Qwen is not to be
had, a model's own definitions are carried onto its static rows in the same way.

    probekit run cross-scale --preset quick                                  MiniLM's definitions
    probekit run cross-scale --preset paper                                  Qwen3.5, cached
    probekit run cross-scale --pairs "qwen3.5-4b=FOLDER>qwen3.5-0.8b=FOLDER"

Measured, quick (MiniLM, encodings of 14,484 definitions onto the words' static rows): held-out rows
have a cosine of .274, the mean row alone .109; centred .273, paired at random .002. Fitted rows
have .336, of which .166 is the room that 10,000 rows leave. Cosines of pairs agree by r = .21 once
mapped, .11 as they stand. A rotation without a scale leaves the residual eleven times the rows'
variance. Of Qwen3.5, whose tables are not here, the claims are blocked.

Time on two cores: quick 30 seconds to 3 minutes (encoding); paper 2 minutes without Qwen's weights.

Source: "Geometric Terrain Analysis", section 13b.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Blocked, Claim
from probekit.errors import CardError
from probekit.pretrained import pretrained, tokenizer_of
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.terrain.definitions import definitions_of
from probekit.terrain.projection import projection_readings
from probekit.terrain.projection_pictures import projection_figure
from probekit.terrain.tokens import embedding_of, single_token
from probekit.terrain.units import missing, named, number, was_read

NAME = "cross-scale"
WRITE_UP = "Geometric Terrain Analysis, cross-scale projection"
ANALOGUE = "the same of definitions and static rows"
QWEN = "qwen3.5-4b>qwen3.5-0.8b"
Unit = str  # "LARGE>SMALL", or a model whose definitions are carried onto its static rows
Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Config:
    """Pairs "LARGE>SMALL" of models by card, or as card=folder; one model for its definitions."""

    pairs: tuple[str, ...] = ("minilm",)
    seeds: tuple[int, ...] = (42,)  # of the draws; published: one
    anchors: int = 10_000
    tests: int = 4_000  # published: 5,000

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(pairs=("minilm", QWEN))


def label(pair: str) -> str:
    return ">".join(named(model) for model in pair.split(">"))


def units(config: Config) -> list[Unit]:
    return list(config.pairs)


def run_unit(config: Config, pair: Unit, run_dir: Path, position: int) -> None:
    """Carry one table onto another with every seed; notes why one is not to be had."""
    run = RunDir(run_dir / label(pair).replace(">", "-onto-"))
    if was_read(run):
        return
    try:
        large, small, digits = tables_of(pair)
    except CardError as error:
        run.write_json("readings.json", missing(error))
        return
    sizes = {"anchors": config.anchors, "tests": config.tests}
    found = [
        projection_readings(large, small, **sizes, digits=digits, seed=seed)
        for seed in config.seeds
    ]
    run.write_json("readings.json", {"seeds": found})


def tables_of(pair: str) -> tuple[Any, Any, list[int]]:
    """The two tables, and the rows of the ten digits where they are tokens' rows."""
    large, _, small = pair.partition(">")
    model = pretrained(large)
    if not small:
        found = definitions_of(model, tokenizer_of(model), pk.lexicon.load_wordnet())
        return found.encoder, found.static, []
    tokenizer = tokenizer_of(model)
    digits = [single_token(tokenizer, str(digit)) for digit in range(10)]
    known = [digit for digit in digits if digit is not None]
    tables = embedding_of(model), embedding_of(pretrained(small))
    return *tables, known if len(known) == 10 else []


def collect(config: Config, run_dir: Path) -> Results:
    """Read every pair's readings."""
    return {
        label(pair): RunDir(run_dir / label(pair).replace(">", "-onto-")).read_json("readings.json")
        for pair in config.pairs
    }


def reading(*path: str, qwen: bool = False) -> Callable[[Results], list[float]]:
    """A number by its path: a value a seed of the Qwen pair, or of every analogue."""

    def measure(results: Results) -> list[float]:
        chosen = {name: found for name, found in results.items() if (">" in name) is qwen}
        here = [found for found in chosen.values() if "missing" not in found]
        if not here:
            why = "; ".join(found["missing"] for found in chosen.values()) or "not among --pairs"
            wanted = f'"{QWEN}"' if qwen else "minilm"  # quoted: > is the shell's too
            raise Blocked(why, options=f"--pairs {wanted}")
        return [number(run, path) for found in here for run in found["seeds"]]

    return measure


CLAIMS = [
    Claim("003-36", WRITE_UP, "cosines of pairs agree between Qwen3.5-4B and 0.8B as they stand: r "
          "of 500 tokens", 0.92, 0.02, reading("relations", "raw r", qwen=True),
          reading("relations", "null", "raw r", qwen=True), "tokens paired at random"),
    Claim("003-36.centred", "the same, corrected", "mapped rows point where they should: centred "
          "cosine of held-out rows", (0.3, 1.0), 0.0,
          reading("alignment", "centred cosine, held out", qwen=True),
          reading("alignment", "null", "centred cosine, held out", qwen=True),
          "tokens paired at random"),
    Claim("003-37", WRITE_UP, "PCA from 2,560 to 1,024 dimensions keeps variance: its share above "
          "half", (0.5, 1.0), 0.0, reading("pca", "variance retained", qwen=True),
          reading("pca", "null", "variance retained", qwen=True), "isotropic rows"),
    Claim("003-36.analogue", ANALOGUE, "the published cosine of held-out rows, above .1",
          (0.1, 1.0), 0.0, reading("alignment", "cosine"), reading("alignment", "null", "cosine"),
          "the mean row for every token"),
    Claim("003-36.analogue.centred", ANALOGUE, "and centred, above .1", (0.1, 1.0), 0.0,
          reading("alignment", "centred cosine, held out"),
          reading("alignment", "null", "centred cosine, held out"), "words paired at random"),
    Claim("003-36.analogue.fitted", ANALOGUE, "that of the fitted rows says more: above .25",
          (0.25, 1.0), 0.0, reading("alignment", "centred cosine, fitted"),
          reading("alignment", "null", "centred cosine, fitted"),
          "8 / (3 pi) sqrt(d / n) of unrelated rows"),
]  # fmt: skip


def rows_of(results: Results) -> dict[str, list[dict[str, str]]]:
    """A table a pair: readings of the first seed beside their nulls."""
    tables: dict[str, list[dict[str, str]]] = {}
    for name, found in results.items():
        if "missing" in found:
            tables[name] = [{"missing": found["missing"]}]
            continue
        tables[name] = [
            {
                "group": group,
                "reading": reading_name,
                "measured": f"{value:.4g}",
                "null": f"{null:.4g}" if (null := readings.get("null", {}).get(reading_name))
                is not None else "",
            }
            for group, readings in found["seeds"][0].items()
            for reading_name, value in readings.items()
            if isinstance(value, int | float)
        ]  # fmt: skip
    return tables


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw a figure a pair, write ``report.html``."""
    figures = {
        f"projection-{name.replace('>', '-onto-')}": (
            projection_figure(found["seeds"][0]), f"{name}. {CAPTION}"
        )
        for name, found in results.items()
        if "missing" not in found
    }  # fmt: skip
    title = "One table onto another"
    tables = rows_of(results)
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


CAPTION = "Dashed: the nulls. Left as published, then centred; right the residual's spectrum."

if __name__ == "__main__":
    probekit.recipes.main(__file__)
