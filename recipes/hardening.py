"""Is robustness to noise a geometry that can be moved, and does attention reroute around noise?

Two controls of the write-up's phase 3. In experiment 5 a network trained under noise on its
attention outputs ("hardened") answers under noise where a baseline does not; the hardened "QK" is
put into the baseline, accuracy falls to chance, and robustness is called not transferable. As in
the routing swap, the rows moved are Q, K and V. Here true Q and K, V, O and the MLP stand beside
them, and donors that know nothing (random, zero), no noise (another baseline, the baseline with its
features permuted), or that began as their host did. A hybrid at chance without noise says nothing.

In experiment 4 a network trained on repeated sequences gets noise at layer 0's attention output,
here after training. Nothing was to change by |d| >= 0.2 (Cohen's d over examples), entropy and
amplitude did by more than 2, and similar patterns (.85 and more, averaged over heads and queries)
are read as "no rerouting" instead. Beside them stand patterns that were not averaged, other inputs,
an untrained network and the noise's own length. Layer 0's pattern comes before the noise.

    probekit run hardening --preset quick --jobs 2      three seeds, p = 59, 2,500 steps
    probekit run hardening --preset paper --jobs 2      five seeds, p = 113, 20,000 steps

Expected of quick: under noise a baseline is at chance (.017), the hardened network at .79 to .98.
The hybrid is at chance without noise, too, as with V of any donor, and with the baseline's own rows
in another basis; true Q and K leave .18, zeros .17. No swap recovers anything, from the same start
neither. Under the noise of experiment 4 |d| of the length is 7 to 13 (9 to 15 the noise alone), of
entropy .2 to 1.7; averaged patterns have a cosine of .82 to .90, other inputs .94; by head and
query .57 and .72: noise moves attention more than another input does.

Time on two cores: quick 4:14, paper 4 hours (estimated).

Source: "The Conservation of Separability", phase 3, experiments 4 and 5: two pre-LN layers; AdamW
lr 1e-3, wd 1.0, p = 113, half of the pairs, to 99.9 % or 20,000 steps; 4,096 tokens, length 64.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.hooked.model import HookedModel
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.training import (
    ModularTask,
    Optimisation,
    RepeatedTask,
    Stack,
    fit,
    gather,
    interval_rows,
    recoveries,
    rerouted,
    robustness,
    train_hardened,
)
from probekit.training.separability import hardening_pictures as draw

NAME = "hardening"
WRITE_UP = "The Conservation of Separability, experiment "
SITES, SIGMA = ("0.attn_out", "1.attn_out"), 2.0
ROWS = "published, 4 of 4"
PARTS = ("published, 1 of 4", "published, 2 of 4", ROWS, "QK", "V", "O", "MLP")
TITLES = {"0": "no noise", "2": "noise of 2"}
QUIET, NOISY = TITLES  # keys of accuracies by sigma
LEAST, HYBRID = {("as published", "with noise"): 0.85}, {(ROWS, "hardened"): 0.011}  # published
CRITERION, ENTROPY = 0.2, "entropy, layer 1"  # of |d|, stated beforehand; behind the noise
Unit = tuple[str, int]  # an experiment and a seed
Results = dict[str, Any]  # by experiment what run_unit wrote, every number a list over the seeds


@dataclass(frozen=True)
class Config:
    """The published networks and tasks, scaled down."""

    seeds: tuple[int, ...] = (0, 1, 2)
    modulus: int = 59  # published: 113
    width: int = 64  # of the residual stream, four heads; published: 128
    mlp: int = 128  # published: 512
    batch: int = 256  # published: 512
    fraction: float = 0.7  # of all pairs, in training; published: 0.5
    steps: int = 2_500  # of AdamW, weight decay 1; published: to 99.9 %, at most 20,000
    lr: float = 2e-3  # published: 1e-3
    vocab: int = 64  # of the repeated sequences; published: 4,096
    length: int = 32  # of those; published: 64
    repeated_steps: int = 600  # of AdamW, lr 1e-3, batch 64; published: 3,000
    draws: int = 3  # of the noise in the test
    examples: int = 500  # held out; published: 1,000 sequences

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        sizes: Any = {"modulus": 113, "width": 128, "mlp": 512, "batch": 512, "length": 64}
        sizes |= {"steps": 20_000, "vocab": 4_096, "repeated_steps": 3_000, "draws": 5}
        return cls((0, 1, 2, 3, 4), fraction=0.5, lr=1e-3, examples=1_000, **sizes)

    def load(self, task: Any, seed: int) -> HookedModel:
        sizes = {"d_model": self.width, "d_head": self.width // 4, "d_mlp": self.mlp}
        return pk.load("modular-deep-2", seed=seed, **sizes, **task.config)


def units(config: Config) -> list[Unit]:
    """The longest first."""
    return [(name, seed) for name in ("transfer", "rerouting") for seed in config.seeds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train the networks of one experiment, then swap or disturb."""
    name, seed = unit
    run = RunDir(run_dir / f"seed{seed}" / name)
    if not (run.path / "readings.json").exists():
        experiment = {"transfer": transfer, "rerouting": rerouting}[name]
        more = {"title": f"{name}, seed {seed}", "position": position}
        run.write_json("readings.json", experiment(config, run, seed, more))


def transfer(config: Config, run: RunDir, seed: int, more: Any) -> dict[str, Any]:
    """Experiment 5: two baselines, and a hardened network that starts as the second of them."""
    task = ModularTask("two-token", config.modulus, config.fraction, seed, config.examples)
    optimisation = Optimisation(config.steps, config.batch, config.lr, 1.0, log_every=250)
    how: Any = (task, optimisation, seed, SITES, SIGMA)
    networks = train_hardened(run, partial(config.load, task), *how, **more)
    return robustness(networks, task, PARTS, SITES, (0.0, SIGMA), config.draws, seed)


def rerouting(config: Config, run: RunDir, seed: int, more: Any) -> dict[str, Any]:
    """Experiment 4: a trained and an untrained network, with noise and without."""
    task = RepeatedTask(config.vocab, config.length, config.examples)
    optimisation = Optimisation(config.repeated_steps, 64, log_every=100)
    model = config.load(task, seed)
    stack = Stack([model])
    fit(RunDir(run.path / "trained"), stack, task, optimisation, [seed], **more)
    stack.copy_to(0, model)
    return rerouted(model, task, SITES[0], SIGMA, config.draws, seed)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's folder."""
    return {
        name: gather(
            [RunDir(run_dir / f"seed{s}" / name).read_json("readings.json") for s in config.seeds]
        )
        for name in ("transfer", "rerouting")
    }


def alone(results: Results, network: str, sigma: str) -> list[float]:
    return results["transfer"]["alone"][network][sigma]


def effect(results: Results, what: str, network: str = "trained") -> list[float]:
    return [abs(d) for d in results["rerouting"][network]["d"][what]]


def largest(results: Results, network: str) -> list[float]:
    both = (effect(results, what, network) for what in (ENTROPY, "amplitude"))
    return [*map(max, *both)]


def swap_claim(name: str, part: str, words: str, null: tuple[str, str], control: str) -> Claim:
    def in_chances(results: Results, part: str, donor: str) -> list[float]:
        found = results["transfer"]
        pairs = zip(found["swaps"][QUIET][part][donor], found["chance"], strict=True)
        return [accuracy / chance for accuracy, chance in pairs]

    return Claim(
        f"002-E5.{name}",
        WRITE_UP + "5",
        f"a baseline with the hardened {words} is at chance, 1.1 % (in units of chance)",
        published=(0.0, 2.0),
        tolerance=0.0,
        measure=lambda results: in_chances(results, part, "hardened"),
        null=lambda results: in_chances(results, *null),
        control=control,
    )


def ratio_claim(
    name: str, part: str, words: str, null: str, control: str, donor: str = "hardened"
) -> Claim:
    return Claim(
        f"002-E5.{name}",
        WRITE_UP + "5",
        f"of {words} none of the advantage under noise comes along (recovery ratio 0.00)",
        published=0.0,
        tolerance=0.05,
        measure=lambda results: recoveries(results["transfer"], part, donor, NOISY),
        null=lambda results: recoveries(results["transfer"], part, null, NOISY),
        control=control,
    )


def effect_claim(words: str, what: str, null: tuple[str, str], control: str) -> Claim:
    return Claim(
        f"002-E4.{what.split(',')[0]}",
        WRITE_UP + "4",
        f"under noise the {words} changes: |d| above 2",
        published=(2.0, 1e3),
        tolerance=0.0,
        measure=lambda results: effect(results, what),
        null=lambda results: effect(results, *null),
        control=control,
    )


def pattern_claim(name: str, words: str, average: str) -> Claim:
    def cosine(results: Results, kind: str) -> list[float]:
        return results["rerouting"]["trained"][kind]["layer 1"][average]

    return Claim(
        f"002-E4.{name}",
        WRITE_UP + "4",
        f"under noise attention does not reroute: cosine {words} above 0.85",
        published=(0.85, 1.0),
        tolerance=0.0,
        measure=lambda results: cosine(results, "similarity"),
        null=lambda results: cosine(results, "other inputs"),
        control="other inputs, without noise",
    )


CLAIMS = [
    Claim(
        "002-E5.baseline",
        WRITE_UP + "5",
        "noise of 2 on its attention outputs leaves a baseline about 1 %",
        published=0.01,
        tolerance=0.04,
        measure=lambda results: alone(results, "baseline", NOISY),
        null=lambda results: results["transfer"]["chance"],
        control="chance",
    ),
    Claim(
        "002-E5.hardened",
        WRITE_UP + "5",
        "a network trained under that noise has 90.3 % in it",
        published=0.903,
        tolerance=0.1,
        measure=lambda results: alone(results, "hardened", NOISY),
        null=lambda results: alone(results, "baseline", NOISY),
        control="a baseline in that noise",
    ),
    swap_claim(
        "hybrid", ROWS, '"QK" (Q, K and V)', (ROWS, "permuted"), "itself with features permuted"
    ),
    swap_claim("qk", "QK", "Q and K alone", ("QK", "zero"), "zeros for them: uniform attention"),
    ratio_claim("ratio", ROWS, '"QK" (Q, K and V)', "random", "random weights in these rows"),
    ratio_claim("ratio-qk", "QK", "true Q and K", "zero", "zeros: uniform attention"),
    ratio_claim(
        "start",
        ROWS,
        "(not published) Q, K and V of a hardened network that began as the host did",
        "hardened",
        "of one with another start",
        donor="hardened, same start",
    ),
    Claim(
        "002-E4",
        WRITE_UP + "4",
        "(its own criterion) under noise no metric changes: every |d| below 0.2 (the largest)",
        published=(0.0, CRITERION),
        tolerance=0.0,
        measure=lambda results: largest(results, "trained"),
        null=lambda results: largest(results, "untrained"),
        control="an untrained network",
    ),
    effect_claim("entropy of attention", ENTROPY, (ENTROPY, "untrained"), "an untrained network"),
    effect_claim(
        "residual stream's length",
        "amplitude",
        ("amplitude, noise alone", "trained"),
        "the noise's own length: the clean stream plus noise, and nothing answers",
    ),
    pattern_claim("pattern", "of patterns averaged over heads and queries", "as published"),
    pattern_claim("by-head", "(not published) of patterns by head and query", "by head and query"),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    found = draw.rerouting_tables(results["rerouting"])
    tables = draw.transfer_tables(results, TITLES, config.seeds)
    tables |= {heading: interval_rows(table, "of") for heading, table in found.items()}
    figures = {
        "transfer": (draw.transfer_figure(results["transfer"], TITLES, HYBRID), TRANSFER),
        "rerouting": (draw.rerouting_figure(found, CRITERION, LEAST), REROUTING),
    }
    title = "Hardening: robustness that cannot be moved, and attention that does not reroute"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


TRANSFER = "Accuracy of a baseline with a donor's weights in one place; dashed: without a swap."
REROUTING = "What is averaged first decides how alike patterns are; diamond: the least published."

if __name__ == "__main__":
    probekit.recipes.main(__file__)
