"""The weight battery of T5-v1.1-XXL, a matrix at a time, beside random weights of its kind.

The terrain write-up reads all 24 + 24 layers in half precision: queries 100 % below 0.1, signs of
cross-attention's query-key eigenvalues .500 in every layer, no mixed heads, no dead neurons. The
shards are streamed, so that memory holds one matrix. Without them the claims are blocked, and the
random checkpoint of the same kind, saved and read in the same way, says what no training reads.

    probekit run weight-battery-xxl --preset quick             a random one, a quarter as wide
    probekit run weight-battery-xxl --models t5-v1_1-xxl=FOLDER       the published shards
    probekit run weight-battery-xxl --preset paper                    the same from the hub's cache

Measured, quick: the claims are blocked here. Random weights have 50.0 % positive eigenvalues in
cross-attention (deviation .06 %), all queries below 0.1 at T5's own initialisation, no dead neuron,
and cosines across layers of chance.

Time on two cores: quick 1 minute; the published shards 5 hours (estimated).

Source: "Geometric Terrain Analysis", section 6 (T5-v1.1-XXL).
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.errors import CardError
from probekit.pretrained import checkpoint_folder
from probekit.recipe_report import present_results
from probekit.terrain.batteries import battery_readings, pooled, positive_fractions, table
from probekit.terrain.battery_pictures import battery_figure
from probekit.terrain.units import (
    PRETRAINED,
    TWIN,
    Results,
    collect_kinds,
    known,
    unit_folder,
    was_read,
)

NAME = "weight-battery-xxl"
WRITE_UP = "Geometric Terrain Analysis, T5-v1.1-XXL"
XXL = "t5-v1_1-xxl"
RANDOM = "random weights of the same kind"
Unit = tuple[str, str]  # a model, and "pretrained" or "twin SEED"


@dataclass(frozen=True)
class Config:
    """The published shards, and random ones of a width and depth of their own."""

    models: tuple[str, ...] = (XXL,)
    seeds: tuple[int, ...] = (0,)  # of the random checkpoints
    d_model: int = 1024  # of the random ones; published: 4096
    layers: int = 2  # of each stack; published: 24

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(d_model=4096)

    def random_config(self) -> transformers.T5Config:
        """T5 v1.1: gated GELU, heads of 64, an untied head."""
        config = transformers.T5Config(
            vocab_size=1_000, d_model=self.d_model, d_kv=64, num_heads=self.d_model // 64,
            d_ff=5 * self.d_model // 2, num_layers=self.layers, num_decoder_layers=self.layers,
            feed_forward_proj="gated-gelu",
        )  # fmt: skip
        config.tie_word_embeddings = False
        return config


def units(config: Config) -> list[Unit]:
    kinds = (PRETRAINED, *(f"{TWIN} {seed}" for seed in config.seeds))
    return [(entry, kind) for entry in config.models for kind in kinds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Stream one folder of shards; notes why it is not to be had, if it is not."""
    entry, kind = unit
    run = unit_folder(run_dir, entry, kind)
    if was_read(run):
        return
    if kind == PRETRAINED:
        try:
            shards = checkpoint_folder(entry)
        except CardError as error:
            run.write_json("readings.json", {"missing": str(error)})
            return
        run.write_json("readings.json", battery_readings(pk.weights.weight_battery(shards)))
        return
    torch.manual_seed(int(kind.removeprefix(f"{TWIN} ")))
    model = transformers.T5ForConditionalGeneration(config.random_config()).half()
    shards = run.path / "shards"
    model.save_pretrained(shards, max_shard_size="50MB")
    run.write_json("readings.json", battery_readings(pk.weights.weight_battery(shards)))
    shutil.rmtree(shards)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's readings."""
    return collect_kinds(units(config), run_dir)


def measures(statistic: Callable[[dict[str, Any]], list[float]]) -> tuple[Any, Any]:
    """Numbers of the published shards, and of the random ones."""

    def own(results: Results) -> list[float]:
        runs = [kinds[PRETRAINED][0] for kinds in known(results).values()]
        return [value for run in runs for value in statistic(run)]

    def random(results: Results) -> list[float]:
        runs = [run for kinds in results.values() for run in kinds[TWIN]]
        return [value for run in runs for value in statistic(run)]

    return own, random


def mixed(readings: dict[str, Any]) -> list[float]:
    heads = table(readings, "position_bias", stack="decoder")
    return [float((heads["published_kind"] == "mixed").sum())]


def claim(id: str, statement: str, published: Any, tolerance: float, statistic: Any) -> Claim:
    return Claim(
        f"003-{id}.xxl", WRITE_UP, statement, published, tolerance, *measures(statistic), RANDOM
    )


CLAIMS = [
    claim("10", "no decoder head of 64 is mixed", (0.0, 0.0), 0.0, mixed),
    claim("18", "100 % of the weights of queries lie below 0.1", 1.0, 0.0005,
          lambda r: [pooled(r, "sparsity_pooled", "q", "below_0.1")]),
    claim("20", "cross-attention is locked: .500 positive eigenvalues in every layer", 0.5, 0.0015,
          lambda r: positive_fractions(r, "cross")),
    claim("21", "no neuron is dead by its weights", (0.0, 0.0), 0.0,
          lambda r: [float(table(r, "neurons_pooled")["dead"].sum())]),
    claim("22", "queries of neighbouring layers are unrelated: mean cosine of a stack",
          (-0.005, 0.005), 0.0,
          lambda r: table(r, "layers_pooled", type="q")["adjacent_mean"].tolist()),
]  # fmt: skip


def rows_of(results: Results) -> dict[str, list[dict[str, str]]]:
    """What random shards read, beside its closed forms."""
    rows = [
        {"model": name, "type": row["type"], "statistic": row["statistic"]}
        | {key: f"{row[key]:.4g}" for key in ("mean", "median", "null")}
        for name, kinds in results.items()
        for row in kinds[TWIN][0]["spectra_pooled"]
    ]
    products = [
        {"attention": row["attention"], "stack": row["stack"], "layer": row["layer"]}
        | {
            "positive share": f"{row['positive_fraction']:.4f}",
            "chance": f"{row['positive_fraction_null_sd']:.4f}",
        }
        for kinds in results.values()
        for row in kinds[TWIN][0]["published_qk"]
    ]
    return {"random weights: spectra": rows, "random weights: published products": products}


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw what is there, write ``report.html``."""
    figures = {}
    for name, kinds in results.items():
        own, twin = kinds[PRETRAINED][0], kinds[TWIN][0]
        shown = twin if "missing" in own else own
        figures[f"battery-{name}"] = (battery_figure(shown, twin), f"{name}. {CAPTION}")
    title = "T5-v1.1-XXL, streamed"
    tables = rows_of(results)
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


CAPTION = (
    "Grey: random weights; alone where the published ones are not to be had. Dashed: closed forms."
)

if __name__ == "__main__":
    probekit.recipes.main(__file__)
