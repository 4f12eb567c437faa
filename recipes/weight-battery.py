"""What do frozen weights say, and what of it is said by untrained ones?

The terrain write-up reads ranks, sparsity, signs of query-key eigenvalues, dead neurons and
similarity across layers off T5, BERT, CLIP and DINOv2, and finds them sparse, balanced, alive and
independent. Many of these numbers are those of the initialisation. Here each stands beside a closed
form and the same model's random twin, and beside a form that a change of units cannot move: the
share of weights below a tenth of their own root mean square, the query-key circuit of each head,
cosines in deviations of chance, and neurons on text.

    probekit run weight-battery --preset quick                      MiniLM, one random twin
    probekit run weight-battery --preset paper                      seven models, as published
    probekit run weight-battery --models bert-large=FOLDER t5-small

Measured, paper (MiniLM): queries have .39 of a Gaussian matrix's stable rank (twin 1.02), and 78 %
of their weights below 0.1, where the twin has 100: the share is a scale. At their own scale they
are no sparser than a Gaussian (.084 below a tenth of the rms, .0797). The published product has 47
% positive eigenvalues (twin 50), neighbouring layers a mean cosine below .003 (twin .003), no dead
neurons by weights (twin none) and .3 % silent on all of 51,200 tokens. What training did shows in
the circuits: 88 % of the heads' scores lie beyond three deviations of chance, in the twin none. A
mean condition number is one matrix's: 6 times its median. Norm scales have a CV of .15.

Time on two cores: quick 1 minute; paper 1 of MiniLM alone, 20 minutes (estimated) of all.

Source: "Geometric Terrain Analysis", sections 4 (T5) and 5 (BERT, CLIP, DINOv2). The published
shares below 0.1 of queries are 93.7 % (T5-small), 99.4 (T5-base), 99.1 (BERT) and 100 (DINOv2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Blocked, Claim
from probekit.terrain.batteries import (
    bands,
    battery_readings,
    mean_positive,
    neurons_on_text,
    pooled,
    scores_beyond,
    spectral,
    table,
)
from probekit.terrain.battery_pictures import battery_figure
from probekit.terrain.presenting import present_models
from probekit.terrain.units import PRETRAINED, TWIN, Results, collect_kinds, known, read_or_missing

NAME = "weight-battery"
WRITE_UP = "Geometric Terrain Analysis, weights"
CORRECTED = "the same, corrected"
TWINS = "random twins"
ATTENTION = ("q", "k", "v", "o")
BATTERIES = 7  # models whose weights the write-up reads; its summary says 8 and 9
CHANCE = 3.0  # deviations beyond which a head's score counts
#: Published: the share of the weights of queries below 0.1, to a tenth of a percent.
SHARES = {"t5-small": 0.937, "t5-base": 0.994, "bert-large": 0.991, "dinov2-large": 1.0}
Unit = tuple[str, str]  # a model, and "pretrained" or "twin SEED"


@dataclass(frozen=True)
class Config:
    """Models by card, or as card=folder, each beside random twins."""

    models: tuple[str, ...] = ("minilm",)
    seeds: tuple[int, ...] = (0,)  # of the random twins
    windows: int = 40  # of 128 tokens, for neurons on text

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        models = ("minilm", "t5-small", "t5-base", "bert-large", "clip-vit-b16", "dinov2-large")
        return cls((*models, "clip-vit-bigg"), seeds=(0, 1, 2), windows=400)

    @property
    def kinds(self) -> tuple[str, ...]:
        return (PRETRAINED, *(f"{TWIN} {seed}" for seed in self.seeds))


def units(config: Config) -> list[Unit]:
    return [(entry, kind) for entry in config.models for kind in config.kinds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Read one model's weights; notes why it is not to be had, if it is not."""

    def readings(model: Any, tokenizer: Any) -> dict[str, Any]:
        found = battery_readings(pk.weights.weight_battery(model))
        return found | {"on text": neurons_on_text(model, tokenizer, config.windows)}

    read_or_missing(*unit, run_dir, readings, text=False)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's readings."""
    return collect_kinds(units(config), run_dir)


def each(
    statistic: Callable[[dict[str, Any]], float], kind: str = PRETRAINED, model: str | None = None
) -> Any:
    """A statistic of readings: a value a run of every model that is here, or of one."""
    return lambda results: [statistic(run) for kinds in known(results, model).values()
                            for run in kinds[kind]]  # fmt: skip


def beside(
    statistic: Callable[[dict[str, Any]], float], model: str | None = None
) -> tuple[Any, Any]:
    """The statistic of the models, or of one, and of their random twins."""
    return each(statistic, model=model), each(statistic, TWIN, model)


def sparsity(readings: dict[str, Any]) -> float:
    """Share of the weights of queries below 0.1."""
    return pooled(readings, "sparsity_pooled", "q", "below_0.1")


def on_text(kind: str = PRETRAINED) -> Callable[[Results], list[float]]:
    """The share of neurons that are silent on all text, a value a model that reads text."""

    def measure(results: Results) -> list[float]:
        runs = [run["on text"] for kinds in known(results).values() for run in kinds[kind]]
        shares = [run["dead"] / run["neurons"] for run in runs if run]
        if not shares:
            raise Blocked("no model here reads text", options="--models minilm")
        return shares

    return measure


def mixed(results: Results) -> list[float]:
    """The number of mixed heads of a decoder's position bias, a value a model that has one."""
    found = [
        float((heads["published_kind"] == "mixed").sum())
        for kinds in known(results).values()
        if len(heads := table(kinds[PRETRAINED][0], "position_bias", stack="decoder"))
    ]
    if not found:
        raise Blocked("no T5 among the models here", options="--models t5-small")
    return found


def all_models(results: Results) -> list[float]:
    """How many models' attention was compared across layers, if the published ones were."""
    here = known(results)
    if len(here) < BATTERIES:
        why = f"needs the weights of {BATTERIES} models, not only {', '.join(here)}"
        raise Blocked(why, options=f"--models {' '.join(Config.paper().models)}")
    return [float(len(here))]


def claim(
    id: str, source: str, statement: str, published: Any, measures: tuple[Any, Any],
    control: str = TWINS, tolerance: float = 0.0,
) -> Claim:  # fmt: skip
    return Claim(f"003-{id}", source, statement, published, tolerance, *measures, control)


CLAIMS = [
    claim("10", WRITE_UP, "no head of a T5 decoder is mixed: its bias is largest near or far",
          (0.0, 0.0), (mixed, lambda _: [0.0]), "any bias that is monotone in distance"),
    claim("16", WRITE_UP, "queries have low rank: stable rank / d below .2 (.25 of a Gaussian's)",
           (0.0, 0.2), beside(lambda r: spectral(r, "q", "stable_rank", "mean")
                              / table(r, "spectra", type="q")["cols"].mean())),
    claim("16.gaussian", CORRECTED, "and over a Gaussian matrix's of that shape, below .7",
          (0.0, 0.7), beside(lambda r: spectral(r, "q", "stable_rank", "mean")
                             / spectral(r, "q", "stable_rank", "null"))),
    claim("17", CORRECTED, "a mean condition number means something: mean over median of outputs' "
          "below 2", (0.0, 2.0), beside(lambda r: spectral(r, "o", "condition", "mean")
                                        / spectral(r, "o", "condition", "median"))),
    claim("18", WRITE_UP, "queries are sparse: 93 to 100 % of their weights lie below 0.1",
          (0.93, 1.0), beside(sparsity)),
    *(claim(f"18.{model}", WRITE_UP, f"of the weights of {model}'s queries {100 * share:.1f} % lie "
            "below 0.1", share, beside(sparsity, model), tolerance=0.0005)
      for model, share in SHARES.items()),
    claim("18.scale", CORRECTED, "they are at their own scale: share below a tenth of the rms, "
          "above .1 (.0797 of a Gaussian)", (0.1, 1.0),
          beside(lambda r: pooled(r, "sparsity_pooled", "q", "below_rms"))),
    claim("19", WRITE_UP, "eigenvalues of the query-key product are balanced: positive share of "
          "all layers .45 to .55", (0.45, 0.55),
          beside(mean_positive)),
    claim("19.score", CORRECTED, "circuits of heads are not chance: share of heads whose score is "
          "beyond 3 deviations, above .5", (0.5, 1.0), beside(lambda r: scores_beyond(r, CHANCE))),
    claim("21", WRITE_UP, "no neuron is dead by its weights", (0.0, 0.0),
          beside(lambda r: float(table(r, "neurons_pooled")["dead"].sum()))),
    claim("21.text", CORRECTED, "nor on text: share of neurons silent on every token, below .01",
          (0.0, 0.01), (on_text(), on_text(TWIN))),
    claim("22", WRITE_UP, "attention's matrices of neighbouring layers are unrelated: largest mean "
          "cosine below .005", (0.0, 0.005),
          beside(lambda r: bands(r, "layers_pooled", ATTENTION, "adjacent_mean"))),
    claim("22.z", CORRECTED, "but for chance: largest of all pairs, in deviations, above 5",
          (5.0, 1e4), beside(lambda r: bands(r, "layers", ATTENTION, "z"))),
    claim("23", WRITE_UP, "norm scales mark dimensions: mean CV of gamma above .05", (0.05, 10.0),
          beside(lambda r: float(table(r, "norms")["cv"].mean()))),
    claim("38", WRITE_UP, "attention's cosines across layers are those of 8 models", (8.0, 8.0),
          (all_models, lambda _: None), "none: a count; its batteries are of 7"),
]  # fmt: skip


def rows_of(results: Results) -> dict[str, list[dict[str, str]]]:
    """Comparison tables of all models: spectra, sparsity and circuits by type."""
    spectra, sparsity, circuits = [], [], []
    for name, kinds in known(results).items():
        own, twin = kinds[PRETRAINED][0], kinds[TWIN][0]
        for row in own["spectra_pooled"]:
            twins = spectral(twin, row["type"], row["statistic"], "mean")
            spectra.append({"model": name, "type": row["type"], "statistic": row["statistic"]}
                           | texts({key: row[key] for key in ("mean", "median", "null")}
                                   | {"twin": twins}))  # fmt: skip
        for row in own["sparsity_pooled"]:
            keys = (
                "below_0.1",
                "below_0.1_null",
                "below_rms",
                "below_rms_null",
                "gini",
                "kurtosis",
            )
            where = {"model": name, "type": row["type"], "stack": row["stack"]}
            sparsity.append(where | texts({key: row[key] for key in keys}))
        for layer, heads in table(own, "qk").groupby(["stack", "attention", "layer"]):
            scores = heads["score"]
            circuits.append({"model": name, "layer": " ".join(map(str, layer)).strip()}
                            | texts({"mean score": scores.mean(), "least": scores.min(),
                                     "largest": scores.max(),
                                     "chance": heads["score_null_sd"].iloc[0]}))  # fmt: skip
    return {"spectra": spectra, "sparsity": sparsity, "query-key circuits": circuits}


def texts(values: dict[str, float | None]) -> dict[str, str]:
    return {key: "" if value is None else f"{value:.4g}" for key, value in values.items()}


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw a figure a model, write ``report.html``."""
    title = "Frozen weights beside untrained ones"
    present_models(
        title, __doc__ or "", CLAIMS, results, run_dir, tables=rows_of,
        figures=lambda kinds: {
            "battery": (battery_figure(kinds[PRETRAINED][0], kinds[TWIN][0]), CAPTION)
        },
    )  # fmt: skip


CAPTION = (
    "Grey: its random twin. Dashed: closed forms. Circuits: a dot a head, with three deviations of "
    "chance. Cosines across layers are in deviations of chance."
)

if __name__ == "__main__":
    probekit.recipes.main(__file__)
