"""Are fifty seeds fifty answers? Stability of the alignment with WordNet, and the exact number.

The terrain write-up repeats its correlations with 50 seeds and calls what hardly moves stable. Each
seed draws 2,000 words of one fixed list: their spread is that of subsampling, which the number of
draws sets. Beside it stand the correlation over all pairs of all words, which no seed touches, and
its deviation when the words themselves are drawn anew.

    probekit run lexical-stability --preset quick       MiniLM, 50 seeds
    probekit run lexical-stability --preset paper --models minilm       the same
    probekit run lexical-stability --preset paper --models t5-small     its weights cached

Measured, paper (MiniLM, 14,484 words): the encoder's Pearson is .427 over 50 seeds, with a
deviation of .0127 (3 %); over all pairs it is .4253, and the deviation of resampled words .0052.
Drawing 2,000 of the words predicts .0129: the seeds' spread is that of the draw. Their mean is what
all pairs say at once. Volumes' CV varies by 4 %, as any 500 simplices do. Of nouns all pairs have
.280, the mean embedding of the gloss's tokens .212.

Time on two cores: quick 5 minutes (8 beside other work), one process; 6 GB of memory.

Source: "Geometric Terrain Analysis", section 3, which prints no results.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.terrain.definition_pictures import stability_figure
from probekit.terrain.definitions import definitions_of
from probekit.terrain.presenting import present_models
from probekit.terrain.stability import NODES, exact_readings, seed_readings
from probekit.terrain.units import (
    PRETRAINED,
    Results,
    collect_kinds,
    known,
    read_or_missing,
    reading,
)

NAME = "lexical-stability"
WRITE_UP = "Geometric Terrain Analysis, stability over seeds"
Unit = tuple[str, str]  # a model and "pretrained"


@dataclass(frozen=True)
class Config:
    """Models by card, or as card=folder; the seeds are those of the draws."""

    models: tuple[str, ...] = ("minilm",)
    seeds: tuple[int, ...] = tuple(range(50))

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(models=("minilm", "t5-small"))


def units(config: Config) -> list[Unit]:
    return [(entry, PRETRAINED) for entry in config.models]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Encode one model's definitions, and read them with every seed and without one."""

    def readings(model: Any, tokenizer: Any) -> dict[str, Any]:
        found = definitions_of(model, tokenizer, pk.lexicon.load_wordnet())
        return {
            "words": len(found.matches),
            "seeds": seed_readings(found, config.seeds, position),
            "exact": exact_readings(found),
        }

    read_or_missing(*unit, run_dir, readings)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's readings."""
    return collect_kinds(units(config), run_dir)


def over_seeds(name: str, statistic: Callable[[Any], float]) -> Callable[[Results], list[float]]:
    """A statistic of a reading over seeds, a value a model."""

    def measure(results: Results) -> list[float]:
        return [
            statistic(np.array(kinds[PRETRAINED][0]["seeds"][name], dtype=float))
            for kinds in known(results).values()
        ]

    return measure


def relative(values: Any) -> float:
    return float(values.std() / abs(values.mean()))


def subsampled(results: Results) -> list[float]:
    """What drawing some words of a list predicts for the deviation over the mean, a value a model.

    The deviation of resampled words is that of a list of N; of n drawn without replacement it is
    ``sqrt(N / n - 1)`` times as large, and 0 where all are drawn.
    """
    exact = [kinds[PRETRAINED][0] for kinds in known(results).values()]
    return [
        each["exact"]["encoder"]["deviation"] * math.sqrt(max(each["words"] / NODES - 1, 0.0))
        / abs(each["exact"]["encoder"]["pearson"])
        for each in exact
    ]  # fmt: skip


def apart(results: Results) -> list[float]:
    """The mean over seeds less the exact correlation, a value a model."""
    means = over_seeds("encoder pearson", np.mean)(results)
    return [
        m - r for m, r in zip(means, reading("exact", "encoder", "pearson")(results), strict=True)
    ]


def alone(results: Results) -> list[float]:
    """The first seed's correlation less the exact one, a value a model."""
    firsts = over_seeds("encoder pearson", lambda values: float(values[0]))(results)
    exact = reading("exact", "encoder", "pearson")(results)
    return [one - r for one, r in zip(firsts, exact, strict=True)]


CLAIMS = [
    Claim("003-15", WRITE_UP,
          "the encoder's correlation is stable: deviation over 50 seeds below 5 % of the mean",
          (0.0, 0.05), 0.0, over_seeds("encoder pearson", relative), subsampled,
          "drawing 2,000 of the words, from the deviation of resampled ones"),
    Claim("003-15.exact", WRITE_UP,
          "50 seeds estimate what all pairs say exactly: their mean less that, within .005",
          0.0, 0.005, apart,
          alone, "the first seed alone"),
    Claim("003-15.cv", WRITE_UP,
          "volumes' CV is stable: its deviation over seeds below 5 % of the mean", (0.0, 0.05), 0.0,
          over_seeds("encoder volume cv", relative), over_seeds("static volume cv", relative),
          "static embeddings: 500 simplices have that deviation whatever they are"),
    Claim("003-15.nouns", "the same, corrected", "over all pairs of nouns it holds as well",
          (0.05, 1.0), 0.0, reading("exact", "encoder", "nouns"), reading("exact", "bag", "nouns"),
          "the mean embedding of the gloss's tokens"),
]  # fmt: skip


def rows_of(results: Results) -> dict[str, list[dict[str, str]]]:
    tables: dict[str, list[dict[str, str]]] = {}
    for name, kinds in known(results).items():
        own = kinds[PRETRAINED][0]
        tables[f"{name}: over {len(own['seeds']['encoder pearson'])} seeds"] = [
            {
                "reading": reading_name,
                "mean": f"{np.mean(values):.4g}",
                "std": f"{np.std(values):.2g}",
                "least": f"{min(values):.4g}",
                "largest": f"{max(values):.4g}",
                "std / mean": f"{relative(values):.1%}",
            }
            for reading_name, column in own["seeds"].items()
            for values in [np.array(column, dtype=float)]
        ]
        tables[f"{name}: all pairs of {own['words']} words"] = [
            {"vectors": kind} | {key: f"{value:.4f}" for key, value in found.items()}
            for kind, found in own["exact"].items()
        ]
    return tables


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw a figure a model, write ``report.html``."""
    title = "Fifty seeds, and all pairs"
    present_models(
        title, __doc__ or "", CLAIMS, results, run_dir, tables=rows_of,
        figures=lambda kinds: {"stability": (stability_figure(kinds[PRETRAINED][0]), CAPTION)},
    )  # fmt: skip


CAPTION = (
    "Dots: seeds. Line and band: all pairs, with 1.96 deviations of resampled words. Grey: words "
    "dealt out anew."
)

if __name__ == "__main__":
    probekit.recipes.main(__file__)
