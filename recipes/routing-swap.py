"""Does attention learn a routing that only fits its own network? Swaps of weights, with controls.

Two networks are trained on one task from different seeds; weights of B are put into A, and the
hybrid runs without further training. The write-up calls the swapped weights "QK" and concludes,
from an accuracy that falls to chance, that function needs the network's own routing. Its selector
takes leading rows of the packed [Q; K; V] matrix: "1 head" is 3/4 of Q, "2 heads" all of Q and half
of K, "4 heads" Q, K and V. And its next-token model has no causal mask. Here the published rows
stand beside true Q and K and every other part, and B beside these donors:

    fork        A's initial weights, B's batches
    late fork   A's weights halfway through its training, then B's batches
    permuted A  A itself, the features of its residual stream in another order: the same function
    aligned B   B's Q and K behind the best rotation of what they read in A onto what they read in B
    random      fresh weights of the initialisation's law
    zero        zeros: of Q or K, uniform attention

No whole donor can be rotated exactly: the norms' mean and gains leave permutations of the features
as the only change of basis that keeps a function (probekit/training/bases.py).

    probekit run routing-swap --preset quick --jobs 2      three pairs of networks
    probekit run routing-swap --preset paper --jobs 2      five pairs, 10,000 steps, as published
    probekit run routing-swap --preset paper --jobs 2 --vocab 4096 --length 128 --width 128 \\
        --batch 64 --out published                         and the published sizes

Expected, means over pairs: A .99 where the leak detector finds the next token among the inputs,
.40 under a causal mask; published rows .35 to .60, .08 to .20 and within twice chance (.016). True
Q and K of B leave .15, as do random, zero and permuted A's; V alone leaves chance; aligned B about
.7 (its rotation fits no better than one of unrelated embeddings); a fork of A nothing less than A.

Time on two cores: quick 5 minutes at a load of 4, paper 25 (5 a pair), the published sizes two days
(estimated).

Source: "The Conservation of Separability", experiment 1 (routing swap).
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.geometry import procrustes_null
from probekit.hooked.model import HookedModel
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.training import (
    InterleavedTask,
    Optimisation,
    accuracy,
    aligned_attention,
    find_leak,
    gather,
    interval_rows,
    permuted_twin,
    similarities,
    swap_accuracies,
    train_pair,
    weight_swaps,
)
from probekit.training.separability.swap_pictures import (
    learning_figure,
    similarity_figure,
    swap_figure,
)

NAME = "routing-swap"
WRITE_UP = "The Conservation of Separability, experiment 1"
HEADS = 4
ARMS = ("bidirectional", "causal")  # as published, and without the answer among the inputs
PUBLISHED = {1: 0.471, 2: 0.117, 4: 0.0002}  # accuracy left, by number of "heads"
ALIGNABLE = ("QK", "Q", "K")  # what one rotation serves
Unit = tuple[str, int]  # an arm and a pair
Results = dict[str, Any]  # by arm what run_unit wrote, every number a list over the pairs


@dataclass(frozen=True)
class Config:
    """The published task and optimisation, scaled down."""

    seeds: tuple[int, ...] = (0, 1, 2)  # of pairs: pair i is the networks of seeds 2i and 2i + 1
    vocab: int = 64  # published: 4,096
    length: int = 32  # tokens; published: 128
    width: int = 64  # of the residual stream and of the MLP, four heads; published: 128
    steps: int = 1_500  # of Adam; published: 10,000
    batch: int = 32  # fresh sequences a step; published: 64
    lr: float = 1e-3
    log_every: int = 50  # steps; steps is a multiple of twice that

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(seeds=(0, 1, 2, 3, 4), steps=10_000)

    @property
    def task(self) -> InterleavedTask:
        return InterleavedTask(self.vocab, self.length)

    def load(self, arm: str, seed: int) -> HookedModel:
        sizes = {"d_model": self.width, "d_head": self.width // HEADS, "d_mlp": self.width}
        return pk.load("interleaved", seed=seed, attention_dir=arm, **sizes, **self.task.config)


def units(config: Config) -> list[Unit]:
    return [(arm, seed) for seed in config.seeds for arm in ARMS]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train a pair and its forks, then swap and compare."""
    arm, seed = unit
    run = RunDir(run_dir / f"seed{seed}" / arm)
    if (run.path / "swaps.json").exists():
        return
    load, title = partial(config.load, arm), f"{arm}, pair {seed}"
    adam = Optimisation(config.steps, config.batch, config.lr, log_every=config.log_every)
    pair = train_pair(run, load, config.task, adam, seed, title=title, position=position)
    a, networks = pair.a, {"B": pair.b, "fork": pair.fork, "late fork": pair.late_fork}
    networks["permuted A"] = permuted_twin(a, seed)
    tokens, labels = config.task.validation()
    fresh, _ = config.task.batch(np.random.default_rng([seed, 1]), config.task.held_out)
    aligned, rotation = aligned_attention(a, pair.b, fresh)
    every: dict[str, Any] = {**networks, "random": "random", "zero": "zero"}
    donors = {
        name: {**every, "aligned B": aligned} if name in ALIGNABLE else every
        for name in weight_swaps(a, seed)
    }
    hybrid = weight_swaps(a, seed)["published, 4 of 4"](pair.b)
    unrelated = procrustes_null(config.vocab + config.length, config.width)
    leak = find_leak(a, tokens, labels, ceiling=config.task.ceiling)
    run.write_json(
        "swaps.json",
        {
            "accuracy": {n: accuracy(m, tokens, labels) for n, m in {"A": a, **networks}.items()},
            "chance": 1 / config.vocab,
            "copying": 1 - 1 / config.length,
            "swaps": swap_accuracies(a, tokens, labels, donors, seed),
            "similarity": similarities(a, networks, tokens, hybrid, seed),
            "rotation": {"cosine": rotation.cosine, "unrelated embeddings": unrelated},
            "leak": {**asdict(leak), "found": leak.found, "words": str(leak)},
        },
    )


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's folder."""
    runs = {arm: [RunDir(run_dir / f"seed{s}" / arm) for s in config.seeds] for arm in ARMS}
    return {
        arm: gather([{**run.read_json("swaps.json"), "log": run.rows()} for run in own])
        for arm, own in runs.items()
    }


def swapped(results: Results, part: str, donor: str) -> list[float]:
    """Accuracy in the published arm, a number a pair."""
    return results["bidirectional"]["swaps"][part][donor]


def in_chances(results: Results, part: str, donor: str) -> list[float]:
    chances = results["bidirectional"]["chance"]
    return [a / c for a, c in zip(swapped(results, part, donor), chances, strict=True)]


def alike(results: Results, other: str, what: str) -> list[float]:
    return mean(results["bidirectional"]["similarity"][other][what])


def mean(values: list[float]) -> list[float]:
    """One number, where the write-up has a mean of five pairs."""
    return [float(np.mean(values))]


def rows_claim(heads: int, words: str, accepted: tuple[float, float]) -> Claim:
    """A claim on the published rows, beside random weights in the same rows."""
    part = f"published, {heads} of 4"
    return Claim(
        f"002-1.{heads}",
        WRITE_UP,
        f'"{heads} of 4 heads" of QK from B ({words}): {PUBLISHED[heads]:.1%} left (mean of pairs)',
        published=accepted,
        tolerance=0.0,
        measure=lambda results: mean(swapped(results, part, "B")),
        null=lambda results: mean(swapped(results, part, "random")),
        control="fresh random weights in the same rows",
    )


CLAIMS = [
    Claim(
        "002-1.task",
        WRITE_UP,
        "99.99 % of next tokens are predicted",
        published=0.9999,
        tolerance=0.04,
        measure=lambda results: results["bidirectional"]["accuracy"]["A"],
        null=lambda results: results["bidirectional"]["copying"],
        control="no model: the input token to the right as the answer (the last has none)",
    ),
    rows_claim(1, "3/4 of Q", (0.35, 0.60)),
    rows_claim(2, "Q and half of K", (0.08, 0.20)),
    Claim(
        "002-1.4",
        WRITE_UP,
        '"4 of 4 heads" of QK from B (Q, K and V): chance is left, 0.02 % (in units of chance)',
        published=(0.0, 2.0),
        tolerance=0.0,
        measure=lambda results: in_chances(results, "published, 4 of 4", "B"),
        null=lambda results: in_chances(results, "V", "B"),
        control="V alone from B, A's own routing",
    ),
    Claim(
        "002-1.qk",
        WRITE_UP,
        "the same of true Q and K, as the name says: chance is left (in units of chance)",
        published=(0.0, 2.0),
        tolerance=0.0,
        measure=lambda results: in_chances(results, "QK", "B"),
        null=lambda results: in_chances(results, "QK", "random"),
        control="fresh random Q and K",
    ),
    Claim(
        "002-1b.attention",
        WRITE_UP,
        "A and B attend alike: cosine of patterns averaged over heads 0.786 (mean of pairs)",
        published=(0.7, 1.0),
        tolerance=0.0,
        measure=lambda results: alike(results, "B", "attention"),
        null=lambda results: alike(results, "untrained", "attention"),
        control="A and an untrained network",
    ),
    Claim(
        "002-1b.residual",
        WRITE_UP,
        "their residual streams are orthogonal: cosine -0.002 (mean of pairs)",
        published=-0.002,
        tolerance=0.03,
        measure=lambda results: alike(results, "B", "residual"),
        null=lambda results: alike(results, "permuted A", "residual"),
        control="A and itself with features permuted: the same function",
    ),
]


def differences(results: Results) -> list[dict[str, str]]:
    """Does it matter whose Q and K they are? Differences of accuracy within each pair."""
    left = {arm: results[arm]["swaps"]["QK"] for arm in ARMS}
    compared = [("B", other) for other in ("random", "zero", "permuted A")]
    compared += [(other, "B") for other in ("aligned B", "fork", "late fork")]
    table = {
        f"{one}, less {other}": {
            arm: np.subtract(qk[one], qk[other]).tolist() for arm, qk in left.items()
        }
        for one, other in compared
    }
    return interval_rows(table, "true Q and K of")


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    swaps, alikes, rotations, logs, leaks, alone = (
        {arm: results[arm][key] for arm in ARMS}
        for key in ("swaps", "similarity", "rotation", "log", "leak", "accuracy")
    )
    left = {(f"published, {k} of 4", "B"): value for k, value in PUBLISHED.items()}
    cosines = {("B", "attention"): 0.786, ("B", "residual"): -0.002}
    cosines |= {("hybrid", "attention"): 0.077, ("hybrid", "residual"): 0.023}
    tables: dict[str, list[Any]] = {"accuracy of the networks": interval_rows(alone, "arm")}
    for arm in ARMS:
        tables[f"accuracy of A after a swap, {arm}"] = interval_rows(swaps[arm], "swapped")
    tables["whose Q and K?"] = differences(results)
    tables["how well the rotation fits"] = interval_rows(rotations, "arm")
    for arm in ARMS:
        tables[f"similarity with A, {arm}"] = interval_rows(alikes[arm], "with")
    tables["is the answer among the inputs?"] = [
        {"arm": arm, "pair": seed, "A": words}
        for arm in ARMS
        for seed, words in zip(config.seeds, leaks[arm]["words"], strict=True)
    ]
    baselines = {arm: float(np.mean(alone[arm]["A"])) for arm in ARMS}
    figures = {
        "swaps": (
            swap_figure(swaps, baselines, 1 / config.vocab, left),
            "Accuracy of A with a donor's weights in one place; lines are 95 % t-intervals.",
        ),
        "similarity": (similarity_figure(alikes, cosines), "Hybrid: A with B's Q, K and V."),
        "learning": (learning_figure(logs, (0, 1), config.task.ceiling), "A and B of each pair."),
    }
    title = "Swapping routing, and what else the swap moves"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


if __name__ == "__main__":
    probekit.recipes.main(__file__)
