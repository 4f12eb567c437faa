"""Does a frozen attention geometry leave room for more than one solution ("semantic slack")?

The write-up freezes Q, K and V. Of a mature network four branches by "several losses" (the code
optimises cross-entropy in all) keep a cosine of .95 to it: one solution. Of a young one, frozen
before it generalises, an anchor is trained, then from the same state a probe whose loss has the
cosine of their residuals in it: 100 % and 100 %, cosine 0.000, "a second, orthogonal solution".
But a cosine depends on the basis. Beside the published arms stand

    rotated, permuted    the anchor itself in another basis: the same function
    no penalty           a probe on other batches that nobody asks to differ
    other seed           a network that has nothing to do with the anchor, and no penalty
    CKA penalised        a probe asked to differ in what no change of basis touches
    mature, penalised    the arm that the write-up's mature geometry lacks
    early, long          the row that its table of warm-ups and steps on two layers lacks

    probekit run slack --preset quick --jobs 2      three seeds, (a + b) mod 43, vocabulary 64
    probekit run slack --preset paper --jobs 2      five seeds, published sizes of modular addition

Expected of quick: anchor and probe end at 1.00, their cosine within .013 of 0; but so is that of
the anchor with itself rotated, and the probe's wrong logits correlate with the anchor's by .7 (.8
without penalty; another seed's by .2): it found the anchor's solution in another basis. With CKA
penalised accuracy is as high and wrong logits correlate by .2: there is slack, and the cosine does
not see it. A mature network leaves its own coordinates under weight decay, penalty or none: cosine
.09 and CKA .76 without. On streams cosine is .985 without penalty and .32 with, accuracy unchanged.
Two layers: |cosine| is below .05 in every row, at an accuracy of .01 after 600 steps and of .15 to
.99 after 2,200, with an early warm-up as with a late one.

Time on two cores: quick 5 minutes at a load of 4, paper 7 hours (estimated).

Source: "The Conservation of Separability", experiments 3 and 2.2 of phase 2. Residuals are read
after the final norm; the write-up's mature ones before it.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.hooked.model import HookedModel
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.training import (
    BranchRuns,
    InterleavedTask,
    ModularTask,
    Optimisation,
    gather,
    interval_rows,
    mature_geometry,
    warm_ups_and_steps,
    young_geometry,
)
from probekit.training.separability import slack_pictures as draw
from probekit.training.separability.slack_readings import (
    largest_cosine,
    learned,
    rows_of,
    solves_apart,
)

NAME = "slack"
WRITE_UP = "The Conservation of Separability"
ARMS = ("deep", "young", "mature", "streams")  # the longest first
Unit = tuple[str, int]  # an arm and a seed
Results = dict[str, Any]  # by arm what run_unit wrote, every number a list over the seeds


@dataclass(frozen=True)
class Config:
    """The published protocols, scaled down."""

    seeds: tuple[int, ...] = (0, 1, 2)
    modulus: int = 43  # published: 113
    width: int = 48  # of the residual stream, MLP four times that; published: 128
    batch: int = 128  # pairs a step; published: 512
    lr: float = 2e-3  # of AdamW with weight decay 1; published: 1e-3
    clip: float | None = 1.0  # largest gradient norm, one layer (else dips); published: none
    fraction: float = 0.6  # of all pairs in training, one layer; published: 0.3
    warm_up: int = 300  # steps before Q, K and V are frozen; published: 1,000
    steps: int = 1_600  # of anchor and of probe; published: 10,000
    deep_warm_ups: tuple[int, int] = (200, 500)  # two layers; published: 2,000 and 5,000
    deep_steps: tuple[int, int] = (600, 2_200)  # published: 10,000 and 20,000
    vocab: int = 64  # of interleaved streams; published: 4,096
    length: int = 16  # tokens; published: 128
    stream_width: int = 64  # published: 128
    stream_steps: int = 400  # of Adam, lr 1e-3, batch 32; published: 10,000, batch 64
    log_every: int = 100

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        seeds, sizes, steps = (42, 43, 44, 45, 46), (113, 128, 512), (1_000, 10_000)
        deep = (2_000, 5_000), (10_000, 20_000)
        return cls(seeds, *sizes, 1e-3, None, 0.3, *steps, *deep, length=32, stream_steps=10_000)

    def addition(self, steps: int, clip: float | None = None) -> Optimisation:
        return Optimisation(steps, self.batch, self.lr, 1.0, clip, log_every=self.log_every)

    def load(self, seed: int, layers: int = 1) -> HookedModel:
        sizes = {"d_model": self.width, "d_head": self.width // 4, "d_mlp": 4 * self.width}
        given = {"n_ctx": 2, "d_vocab": self.modulus}
        return pk.load("modular-deep-2", seed=seed, n_layers=layers, **sizes, **given)

    def load_streams(self, seed: int) -> HookedModel:
        width, given = self.stream_width, {"n_ctx": self.length, "d_vocab": self.vocab}
        sizes: dict[str, Any] = {"d_model": width, "d_head": width // 4, "d_mlp": width}
        return pk.load("interleaved", seed=seed, **sizes, **given)


def units(config: Config) -> list[Unit]:
    return [(arm, seed) for arm in ARMS for seed in config.seeds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train the networks of one arm and seed, and compare them."""
    arm, seed = unit
    run = RunDir(run_dir / f"seed{seed}" / arm)
    if (run.path / "found.json").exists():
        return
    fraction = 0.5 if arm == "deep" else config.fraction
    addition = ModularTask(modulus=config.modulus, fraction=fraction)
    task = InterleavedTask(config.vocab, config.length) if arm == "streams" else addition
    runs = BranchRuns(run, task, seed, f"{arm}, seed {seed}", position)
    if arm == "young":
        how = config.addition(config.steps, config.clip)
        found = young_geometry(runs, config.load, config.warm_up, how)
    elif arm == "mature":
        how = config.addition(config.warm_up + config.steps, config.clip)
        found = mature_geometry(runs, config.load, how, config.steps // 2)
    elif arm == "streams":
        how = Optimisation(config.stream_steps, batch=32, log_every=config.log_every)
        found = mature_geometry(runs, config.load_streams, how, config.stream_steps // 2)
    else:
        load, hows = partial(config.load, layers=2), [*map(config.addition, config.deep_steps)]
        found = warm_ups_and_steps(runs, load, config.deep_warm_ups, hows)
    run.write_json("found.json", found)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's folder."""
    return {
        arm: gather(
            [RunDir(run_dir / f"seed{s}" / arm).read_json("found.json") for s in config.seeds]
        )
        for arm in ARMS
    }


def cosine(results: Results, arm: str, network: str) -> list[float]:
    """Of a network with its anchor; a number a seed."""
    return results[arm]["alike"][network]["cosine"]


def row(results: Results, at: int) -> Any:
    """Of the table on two layers: early and late warm-up with short training, then with long."""
    return list(rows_of(results["deep"]).values())[at]


CLAIMS = [
    Claim(
        "002-3m",
        f"{WRITE_UP}, experiment 3",
        "branches of a mature network by four equal losses have cosine .954 to .959 to it",
        published=(0.9, 1.0),
        tolerance=0.0,
        measure=lambda results: cosine(results, "streams", "no penalty"),
        null=lambda results: cosine(results, "streams", "anchor"),
        control="a branch that does not train at all",
    ),
    Claim(
        "002-3m.one",
        f"{WRITE_UP}, experiment 3",
        "a mature geometry admits one solution: none orthogonal to it is found on modular addition "
        "(1 where one is: both accuracies above .95, |cosine| below .5)",
        published=0.0,
        tolerance=0.0,
        measure=lambda results: solves_apart(results["mature"], "cosine penalised"),
        null=lambda results: solves_apart(results["mature"], "no penalty"),
        control="the same branch where nobody asks for one: no penalty, as published",
    ),
    Claim(
        "002-3y",
        f"{WRITE_UP}, experiment 3 (young geometry)",
        "a young geometry admits a second solution: both accuracies above .95, |cosine| below .5 "
        "(1 where so)",
        published=1.0,
        tolerance=0.0,
        measure=lambda results: solves_apart(results["young"], "cosine penalised"),
        null=lambda results: solves_apart(results["young"], "anchor, rotated"),
        control="the anchor itself in another basis, with the same logits",
    ),
    Claim(
        "002-3y.cos",
        f"{WRITE_UP}, experiment 3 (young geometry)",
        "the cosine of anchor and probe is 0.000",
        published=0.0,
        tolerance=0.05,
        measure=lambda results: cosine(results, "young", "cosine penalised"),
        null=lambda results: results["young"]["rotations"],
        control="the anchor in other bases, mean of 20 rotations",
    ),
    Claim(
        "002-3y.other",
        "not published: if orthogonal meant another solution",
        "the probe computes something else: its wrong logits correlate with the anchor's by less "
        "than .5 (1 where so, both accuracies above .95)",
        published=1.0,
        tolerance=0.0,
        measure=lambda results: solves_apart(results["young"], "cosine penalised", "wrong logits"),
        null=lambda results: solves_apart(results["young"], "other seed", "wrong logits"),
        control="a network of another seed",
    ),
    Claim(
        "002-3y.slack",
        "not published: CKA as the penalty, which no change of basis lowers",
        "a young geometry admits a second solution all the same: wrong logits correlate by less "
        "than .5 (1 where so, both accuracies above .95)",
        published=1.0,
        tolerance=0.0,
        measure=lambda results: solves_apart(results["young"], "CKA penalised", "wrong logits"),
        null=lambda results: solves_apart(results["young"], "no penalty", "wrong logits"),
        control="the same start without penalty, other batches",
    ),
    Claim(
        "002-P2.2",
        f"{WRITE_UP}, phase 2, experiment 2.2",
        "two layers: after a late warm-up and long training anchor and probe are right (100 %)",
        published=1.0,
        tolerance=0.05,
        measure=lambda results: learned(row(results, 3)),
        null=lambda results: learned(row(results, 2)),
        control="an early warm-up and as much training, which the write-up does not have",
    ),
    Claim(
        "002-P2.2.short",
        f"{WRITE_UP}, phase 2, experiment 2.2",
        "after the same warm-up and half the training they are not (the probe: 11.7 %)",
        published=(0.0, 0.385),
        tolerance=0.0,
        measure=lambda results: learned(row(results, 1)),
        null=lambda results: learned(row(results, 0)),
        control="an early warm-up, published: 1.9 %",
    ),
    Claim(
        "002-P2.2.cos",
        f"{WRITE_UP}, phase 2, experiment 2.2",
        "|cosine| of anchor and probe is below .2 in every row (.025, .015, .001), whether or not "
        "they have learned the task: the largest",
        published=(0.0, 0.2),
        tolerance=0.0,
        measure=lambda results: largest_cosine(results["deep"]),
        null=lambda results: np.abs(results["deep"]["untrained"]["cosine"]).tolist(),
        control="two untrained networks",
    ),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    one_layer = {arm: results[arm] for arm in ARMS[1:]}
    deep = rows_of(results["deep"])
    tables: dict[str, Any] = {
        f"{arm}: how alike to the anchor": interval_rows(found["alike"], "network")
        for arm, found in one_layer.items()
    }
    probes = {name: found["alike"]["probe"] for name, found in deep.items()}
    probes["untrained pair"] = results["deep"]["untrained"]
    tables["two layers: how alike probe and anchor"] = interval_rows(probes, "row")
    tables["two layers: accuracy, median of the last five logs"] = interval_rows(
        {name: {"lesser of both": learned(found)} for name, found in deep.items()}, "row"
    )
    tables["is the answer among the inputs?"] = [
        {"arm": arm, "seed": seed, "found": words}
        for arm in ("mature", "streams")
        for seed, words in zip(config.seeds, results[arm]["leak"], strict=True)
    ]
    figures = {
        "learning": (draw.branches_figure(one_layer), LEARNING),
        "similarity": (draw.alike_figure(one_layer), SIMILARITY),
        "depth": (draw.rows_figure(deep), DEPTH),
    }
    title = "Slack: other solutions, or other bases?"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


LEARNING = "Young: the cosine is small before anything is learned. Bands are 95 % t-intervals."
SIMILARITY = "With the anchor (A). A change of basis moves the cosine and nothing else."
DEPTH = "Two layers: the cosine gets small in every row, whatever has been learned."


if __name__ == "__main__":
    probekit.recipes.main(__file__)
