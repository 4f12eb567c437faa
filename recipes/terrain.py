"""What is the static geometry of an embedding, and how do tokens move through the layers?

The terrain write-up reads a participation ratio, a volume CV, an order of digits and a constant in
the cosines off embedding tables, and calls them universal. Here the same numbers of any pretrained
model stand beside those of its random twin, beside what two other readings predict, and beside
sets of equally frequent words.

    probekit run terrain --preset quick --jobs 2                          MiniLM, one random twin
    probekit run terrain --preset paper --jobs 2 --models t5-small        published weights, cached
    probekit run terrain --models minilm t5-small=FOLDER qwen3.5-0.8b=FOLDER

Measured, paper (MiniLM; n is the number of models): a participation ratio of .534 d, in the
published band, where its random twins have .988 d. Volumes vary by .39, not .20 to .23, and
sqrt(.4/PR + 3.2 c^2) predicts .41: the CV restates how centred norms vary (c = .23; at length 1 it
is .087). Digits have r = -.76 (Mantel p 1e-4; random walks -.85 by themselves). Cosines crowd at no
constant: densities over their neighbourhood 1.01, and 1.03 at .25. Categories lie 14 to 38
deviations of random sets of words apart, sets of equal frequency rank 1 to 4. Tokens align through
the layers by .34, in the twins by .04. Special tokens stand out in neither.

Time on two cores: quick 2 minutes; paper 2:30 (MiniLM, ten twins).

Source: "Geometric Terrain Analysis", section 1 (T5-small) and what 13a (Qwen3.5-0.8B) shares with
it. Its numbers are of those two; that they hold of "nine models" is what other models test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import probekit.recipes
from probekit.claims import Blocked, Claim
from probekit.hooked.model import HookedModel
from probekit.terrain.census import census_of, id_ranges_of, used_rows_of
from probekit.terrain.pictures import terrain_figure
from probekit.terrain.presenting import present_models
from probekit.terrain.table import table_readings
from probekit.terrain.tokens import (
    categories_of,
    digits_of,
    embedding_of,
    layers_of,
    specials_of,
    stacks_of,
)
from probekit.terrain.units import (
    PRETRAINED,
    TWIN,
    Results,
    collect_kinds,
    known,
    read_or_missing,
    reading,
)

NAME = "terrain"
WRITE_UP = "Geometric Terrain Analysis, embeddings and layers"
CORRECTED = "the same, corrected"
CONSTANTS = (0.0, 0.1, 0.19471, 0.2, 0.25, 0.29514, 0.3, 0.5, 0.7, 0.9)  # .25 for comparison
CATEGORIES = {
    "animals": "cat dog bird fish horse mouse bear wolf deer fox lion tiger snake whale frog "
    "rabbit monkey elephant",
    "colors": "red blue green yellow black white orange purple brown pink",
    "numbers": "one two three four five six seven eight nine ten",
    "body": "head hand eye foot arm leg face mouth heart brain",
    "food": "bread meat rice milk fish salt sugar cheese fruit water",
    "emotions": "happy sad angry fear love hate joy hope pain calm",
    "actions": "run walk jump fly swim eat sleep talk think write",
    "time": "day night year month week hour morning evening today tomorrow",
}
#: In the roles of the published ones, whose wording is not ours.
SENTENCES = (
    "The old cat slept on the warm kitchen floor.",
    "Light bends when it passes from air into water.",
    "Yesterday she lost her keys and walked home in the rain.",
    "The derivative of the sine is the cosine.",
    "Mixing blue and yellow paint gives a shade of green.",
    "The parliament voted against the new budget on Friday.",
    "Seven plus five equals twelve.",
    "What is built slowly lasts, and what lasts is built slowly.",
    "The function returns a list of sorted numbers.",
    "The highest mountain on earth lies between Nepal and China.",
)
TRANSLATION = (
    "translate English to German: The house is small, and the garden is large.",
    "Das Haus ist klein, und der Garten ist groß.",
)
Unit = tuple[str, str]  # a model, and "pretrained" or "twin SEED"


@dataclass(frozen=True)
class Config:
    """Models by card, or as card=folder, each beside random twins."""

    models: tuple[str, ...] = ("minilm",)
    seeds: tuple[int, ...] = (0,)  # of the random twins
    draw: int = 42  # the published seed of samples
    sets: int = 500  # of words, for each category

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(models=("minilm", "t5-small", "qwen3.5-0.8b"), seeds=tuple(range(10)))

    @property
    def kinds(self) -> tuple[str, ...]:
        return (PRETRAINED, *(f"twin {seed}" for seed in self.seeds))


def units(config: Config) -> list[Unit]:
    return [(entry, kind) for entry in config.models for kind in config.kinds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Read one model; notes why it is not to be had, if it is not."""

    def readings(model: HookedModel, tokenizer: Any) -> dict[str, Any]:
        table = embedding_of(model)
        found = table_readings(table, CONSTANTS, config.draw)
        mean = found["cosines"]["mean"]
        return found | {
            "census": census_of(model),
            "used rows": used_rows_of(table, tokenizer),
            "id ranges": id_ranges_of(table, tokenizer),
            "digits": digits_of(table, tokenizer),
            "categories": categories_of(table, tokenizer, CATEGORIES, mean, config.sets),
            "special tokens": specials_of(table, tokenizer),
            "layers": layers_of(model, tokenizer, SENTENCES),
            "stacks": stacks_of(model, tokenizer, *TRANSLATION),
        }

    read_or_missing(*unit, run_dir, readings)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's readings."""
    return collect_kinds(units(config), run_dir)


def category(key: str, least: Callable[[Any], float] = min) -> Callable[..., Any]:
    """The least of a reading over categories, a value a model."""

    def measure(results: Results) -> list[float]:
        return [
            least(each[key] for each in model[PRETRAINED][0]["categories"].values())
            for model in known(results).values()
        ]

    return measure


def stacks(results: Results) -> list[float]:
    """Cosine of encoder and decoder at the last layer, identical ids, a value a model."""
    found = [m[PRETRAINED][0]["stacks"] for m in known(results).values()]
    cosines = [each["identical ids"][-1] for each in found if each]
    if not cosines:
        raise Blocked("no encoder-decoder among the models here", options="--models t5-small")
    return cosines


def random_pairs(results: Results) -> list[float]:
    found = [m[PRETRAINED][0]["stacks"] for m in known(results).values()]
    return [each["random pairs"][-1] for each in found if each]


OTHERS = "the same, of the models here"
QWEN = "qwen3.5-0.8b"
CLAIMS = [
    Claim("003-01", WRITE_UP,
          "an embedding uses about half its dimensions: participation ratio / d", (0.53, 0.56), 0.0,
          reading("spectrum", "participation / dim"),
          reading("spectrum", "participation / dim", kind=TWIN), "random twins"),
    Claim("003-01.used", CORRECTED, "without rows that no text uses, debiased", (0.53, 0.56), 0.0,
          reading("used rows", "debiased"), reading("used rows", "debiased", kind=TWIN),
          "random twins"),
    Claim("003-01.qwen", WRITE_UP, "it is .535 of Qwen3.5-0.8B", 0.535, 0.01,
          reading("spectrum", "participation / dim", model=QWEN),
          reading("spectrum", "participation / dim", kind=TWIN, model=QWEN), "random twins"),
    Claim("003-02", WRITE_UP, "the CV of pentachoron volumes is .20 to .23 of every model",
          (0.20, 0.23), 0.0, reading("volumes", "cv"),
          reading("volumes", "null", "cv by PR and norms"),
          "sqrt(.4/PR + 3.2 c^2), c the CV of centred norms"),
    Claim("003-02.unit", CORRECTED, "the same of centred rows of length 1", (0.20, 0.23), 0.0,
          reading("volumes", "unit-centred cv"), reading("volumes", "unit-centred cv", kind=TWIN),
          "random twins"),
    Claim("003-03", WRITE_UP,
          "volumes are a Gaussian's: mean over that of Gaussian points (Qwen3.5-0.8B)",
          0.984, 0.05, reading("volumes", "ratio", model=QWEN),
          reading("volumes", "null", "same-covariance ratio", model=QWEN),
          "Gaussian points of that covariance"),
    Claim("003-03.models", OTHERS, "the same of the models here",
          0.984, 0.05, reading("volumes", "ratio"),
          reading("volumes", "null", "same-covariance ratio"),
          "Gaussian points of that covariance"),
    Claim("003-04", WRITE_UP,
          "digits lie in order: Pearson r of cosine with |i - j| (Qwen3.5-0.8B)", -0.862,
          0.1, reading("digits", "pearson", model=QWEN),
          reading("digits", "null", "walk", model=QWEN),
          "Gaussian random walks: any drift is in order"),
    Claim("003-04.models", OTHERS, "the same of the models here", -0.862,
          0.1, reading("digits", "pearson"), reading("digits", "null", "walk"),
          "Gaussian random walks: any drift is in order"),
    Claim("003-04.mantel", CORRECTED, "and chance does not have it: Mantel p", (0.0, 0.05), 0.0,
          reading("digits", "p"), reading("digits", "p", kind=TWIN), "random twins"),
    Claim("003-05", WRITE_UP, "the mean cosine of pairs is .195 (Qwen3.5-0.8B)", 0.195, 0.02,
          reading("cosines", "mean", model=QWEN), reading("cosines", "null", "mean", model=QWEN),
          "|mean row|^2 / mean |row|^2"),
    Claim("003-05.models", OTHERS, "the same of the models here", 0.195, 0.02,
          reading("cosines", "mean"), reading("cosines", "null", "mean"),
          "|mean row|^2 / mean |row|^2"),
    Claim("003-05.constant", WRITE_UP,
          "cosines crowd at .29514: density there over its neighbourhood, above 1.1", (1.1, 1e3),
          0.0, reading("cosines", "constants", "0.29514", "density ratio"),
          reading("cosines", "constants", "0.25", "density ratio"), "at .25, which nobody named"),
    Claim("003-06", WRITE_UP, "words of a category lie together: the least lift of 8", (0.0, 1.0),
          0.0, category("lift"), category("matched lift"),
          "sets of whole words of equal frequency rank, uncentred"),
    Claim("003-06.centred", CORRECTED, "the same, centred, in deviations of random sets: above 3",
          (3.0, 1e3), 0.0, category("z"), category("matched z"),
          "sets of equal frequency rank among random ones"),
    Claim("003-07", WRITE_UP,
          "layers align tokens: mean cosine after the last less that of the embedding, without "
          "special tokens", (0.1, 1.0), 0.0, reading("layers", "rise"),
          reading("layers", "rise", kind=TWIN), "random twins"),
    Claim("003-08", WRITE_UP,
          "encoder and decoder diverge: cosine of the same ids at the last layer, below .5",
          (-1.0, 0.5), 0.0, stacks, random_pairs, "pairs of other ids"),
    Claim("003-09", WRITE_UP,
          "special tokens have a structure: mean cosine of their pairs in deviations of random "
          "rows', beyond 3", (3.0, 1e3), 0.0, reading("special tokens", "z"),
          reading("special tokens", "z", kind=TWIN), "random twins"),
]  # fmt: skip


def rows_of(results: Results) -> dict[str, list[dict[str, str]]]:
    """A table a group of readings: what is measured, its own null, and the twins' mean."""
    tables: dict[str, list[dict[str, str]]] = {}
    for name, model in known(results).items():
        own, twins = model[PRETRAINED][0], model[TWIN]
        for group in ("norms", "cosines", "spectrum", "volumes", "distances", "digits"):
            rows = [
                {
                    "reading": reading,
                    "measured": text(value),
                    "null": text(own[group]["null"].get(reading)),
                    "random twins": text(mean([twin[group][reading] for twin in twins])),
                }
                for reading, value in own[group].items()
                if isinstance(value, int | float)
            ]
            rows += [
                {"reading": f"null: {reading}", "measured": text(value)}
                for reading, value in own[group]["null"].items()
                if reading not in own[group]
            ]
            tables[f"{name}: {group}"] = rows
        census = own["census"]
        tables[f"{name}: parameters"] = [
            {"part": part, "parameters": f"{number:,}"}
            for part, number in {**census["parameters"], "total": census["total"]}.items()
        ] + [
            {"part": f"{table} tied", "parameters": str(tied)}
            for table, tied in census["tied"].items()
        ]
        tables[f"{name}: rows that texts use"] = [
            {"reading": key, "measured": text(value)} for key, value in own["used rows"].items()
        ]
        tables[f"{name}: ranges of ids"] = [
            {"range": each, **{key: text(value) for key, value in found.items()}}
            for each, found in own["id ranges"].items()
        ]
        tables[f"{name}: categories"] = [
            {"category": each, **{key: text(value) for key, value in found.items()}}
            for each, found in own["categories"].items()
        ]
    return tables


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def text(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw a figure a model, write ``report.html``."""
    title = "Terrain: embeddings and layers beside their nulls"
    present_models(
        title, __doc__ or "", CLAIMS, results, run_dir, tables=rows_of,
        figures=lambda kinds: {
            "terrain": (terrain_figure(kinds[PRETRAINED][0], kinds[TWIN][0]), SHOWN)
        },
    )  # fmt: skip


SHOWN = (
    "Grey or dashed: its random twin. Categories: lift in deviations of random sets of words, and "
    "of sets matched by frequency rank."
)

if __name__ == "__main__":
    probekit.recipes.main(__file__)
