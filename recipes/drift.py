"""Does attention's geometry (W_Q and W_K) freeze after grokking, or does weight decay remove it?

A one-layer transformer learns (a + b) mod 113 from 30 % of the pairs. The write-up logs how far
parts of it move between two logs ("velocity"), sees that of W_Q and W_K go to 0, and reads that
geometry freezes while semantics go on. A part that nothing trains shrinks by lr * wd a step under
AdamW, and its velocity goes to 0 too, as its norm does. So norms stand beside velocities here, an
arm without weight decay beside the published one, and attention, head by head, beside uniform
attention.

    probekit run drift --preset quick --jobs 2      two seeds, 6,000 steps
    probekit run drift --preset paper --jobs 2      five seeds, 25,000 steps, as published

Measured, paper: with decay, validation accuracy .90 at 3,400 to 3,800 steps. Over the steps whose
slope was published, 8,000 to 14,000, |QK| falls at .86 to 1.00 of lr * wd in three seeds of five;
the other two use heads. Head by head the four seeds show it that have uniform attention (.92 to
1.00, mean over these heads). Without decay |QK| grows by .001 of that rate. The published plot ends
at 15,000. At 15,500, 20,300 and 23,900 the loss of those three seeds jumps, and QK, by then 1e-4 to
1e-7 of its first norm, is back within two logs and ends above it: neither frozen nor gone, but
unused. At step 4,000 QK has not slowed: its velocity is .29 to .32, above OV's. The published rule
calls the packed QKV stable at step 1,000, the first step at which it can answer, with decay or
without. (At step 6,000, where quick ends, one seed of two has uniform heads, at .92.)

Time on two cores: quick 4:44 (20 ms a step), paper 67 minutes (beside tests).

Source: "The Conservation of Separability", experiments 2 (grokking) and 2B (drift tracking):
pre-LN, d_model 128, 4 heads without offsets, d_ff 512, AdamW lr 1e-3 with weight decay 1.0, batch
512, logs every 100 steps (the write-up's "QK is stable" reads every 500).
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.training import (
    DriftRun,
    Head,
    ModularTask,
    Optimisation,
    fit_with_drift,
    interval_rows,
    published_stable_step,
)
from probekit.training.separability import drift_pictures as draw
from probekit.training.separability import drift_tables as tables

NAME = "drift"
WRITE_UP = "Conservation of Separability, experiment 2"
PREDICTION = "not published: if it is decay that removes QK"
ARMS = ("decay", "no-decay")
SLOPE = (8_000.0, 14_000.0)  # steps on whose plot the published slope is read
PLOTTED = 15_000.0  # where the published plot ends
RULE_EVERY = 5  # logs, 500 steps as published
PARTS = ("QKV", "QK", "Q", "K", "V", "O", "MLP", "EMBED", "UNEMBED", "LN")


@dataclass(frozen=True)
class Config:
    """The published run, and the same without weight decay."""

    seeds: tuple[int, ...] = (42, 43)  # of weights and batches; the split is the published one
    modulus: int = 113
    d_model: int = 128
    steps: int = 6_000  # optimizer steps
    batch: int = 512  # examples a step, drawn with replacement
    lr: float = 1e-3  # AdamW, constant
    weight_decay: float = 1.0  # on all parameters, in the arm with decay
    log_every: int = 100  # steps between logs

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(seeds=(42, 43, 44, 45, 46), steps=25_000)


def units(config: Config) -> list[tuple[str, int]]:
    return [(arm, seed) for seed in config.seeds for arm in ARMS]


def run_unit(config: Config, unit: tuple[str, int], run_dir: Path, position: int) -> None:
    """Train one arm of one seed; goes on from its last checkpoint."""
    arm, seed = unit
    task = ModularTask(modulus=config.modulus)
    model = pk.load(
        "modular-deep-2",
        seed=seed,
        n_layers=1,
        d_model=config.d_model,
        d_head=config.d_model // 4,
        d_mlp=4 * config.d_model,
        attention_dir="causal",
        attention_bias=False,
        attention_init="linear",
        **task.config,
    )
    decay = config.weight_decay if arm == "decay" else 0.0
    optimisation = Optimisation(
        config.steps, config.batch, config.lr, weight_decay=decay, log_every=config.log_every
    )
    run, title = RunDir(run_dir / f"seed{seed}" / arm), f"{arm}, seed {seed}"
    fit_with_drift(run, model, task, optimisation, seed, title=title, position=position)


@dataclass(frozen=True)
class Results:
    """The runs of each arm, in the order of the seeds."""

    config: Config
    runs: dict[str, list[DriftRun]]

    @property
    def decay(self) -> float:
        """lr * wd of the arm with decay: how much of a part without gradient goes at a step."""
        return self.config.lr * self.config.weight_decay


def collect(config: Config, run_dir: Path) -> Results:
    folders = {arm: [run_dir / f"seed{seed}" / arm for seed in config.seeds] for arm in ARMS}
    return Results(config, {arm: [*map(DriftRun.read, own)] for arm, own in folders.items()})


def windows(results: Results) -> list[tuple[float, float]]:
    """A seed each: the published steps, or the last third of a shorter run's after grokking.

    Right after grokking QK still has a gradient.
    """
    if results.config.steps >= SLOPE[1]:
        return [SLOPE] * len(results.config.seeds)
    return [(run.last_third, math.inf) for run in results.runs["decay"]]


def rates(results: Results, arm: str, part: str = "QK") -> list[float]:
    """A seed each: minus the slope of ln |part|, over lr * wd of the arm with decay."""
    pairs = zip(results.runs[arm], windows(results), strict=True)
    return [run.decay_rate(part, *window) / results.decay for run, window in pairs]


def stable_steps(results: Results, arm: str) -> list[float]:
    """What the published rule answers about the packed matrix, a seed each."""
    return [run.answer(published_stable_step, "QKV", RULE_EVERY) for run in results.runs[arm]]


def velocity_ratios(results: Results, arm: str) -> list[float]:
    """A seed each: velocity of QK over that of OV, mean over logs, late in what was plotted.

    From step 7,000, as published, or over the last tenth of a shorter run.
    """
    begin = min(7_000.0, 0.9 * results.config.steps)
    return [run.velocity_ratio("QK", "OV", begin, PLOTTED) for run in results.runs[arm]]


def displacements(results: Results) -> list[float]:
    """A seed each: of QK, at the end of the window."""
    pairs = zip(results.runs["decay"], windows(results), strict=True)
    last = [(run, max(step for step in run.steps if step <= end)) for run, (_, end) in pairs]
    return [run.at(step, "QK", "displacement") for run, step in last]


def returns(results: Results, arm: str) -> list[float]:
    """A seed each: |QK| at the last log over its least."""
    found = [run.part("QK", "norm") for run in results.runs[arm]]
    return [float(norms[-1] / norms.min()) for norms in found]


def heads(results: Results, arm: str) -> list[list[Head]]:
    """A seed each, by head: how far attention is from uniform, and the rate of its Q and K."""
    pairs = zip(results.runs[arm], windows(results), strict=True)
    return [run.heads(*window, scale=results.decay) for run, window in pairs]


def uniform_rates(results: Results) -> list[float]:
    """A seed each that has heads which attend uniformly: their mean rate; NaN if none has."""
    found = [[h.rate for h in own if h.uniform] for own in heads(results, "decay")]
    return [float(np.mean(rates)) for rates in found if rates] or [math.nan]


def rate_of_decay(results: Results) -> list[float]:
    return [-math.log1p(-results.decay) / results.decay]


CLAIMS = [
    Claim(
        "002-2",
        WRITE_UP,
        "validation accuracy passes .90 (grokking) at about 3,500 to 4,000 steps",
        published=(3_500.0, 4_000.0),
        tolerance=500.0,
        measure=lambda results: [run.grokked for run in results.runs["decay"]],
        null=lambda results: [run.grokked for run in results.runs["no-decay"]],
        control="the same seeds without weight decay",
    ),
    Claim(
        "002-2-stable",
        WRITE_UP,
        'the "QK circuit" (the packed Q, K and V) is stable at step 1,000, before grokking',
        published=1_000.0,
        tolerance=0.0,
        measure=lambda results: stable_steps(results, "decay"),
        null=lambda results: stable_steps(results, "no-decay"),
        control="the same seeds without weight decay; the rule cannot answer before step 1,000",
    ),
    Claim(
        "002-2B-frozen",
        WRITE_UP + "B",
        "from step 4,000 on the velocity of QK is about 0, that of OV about .05 (QK at 4,000)",
        published=0.0,
        tolerance=0.05,
        measure=lambda results: [run.at(4_000, "QK", "velocity") for run in results.runs["decay"]],
        null=lambda results: [run.at(4_000, "OV", "velocity") for run in results.runs["decay"]],
        control="the velocity of OV at the same step",
    ),
    Claim(
        "002-2B-order",
        WRITE_UP + "B",
        "from step 7,000 to 15,000 (quick: from 5,400) QK moves less than OV (ratio of velocities, "
        "mean over logs)",
        published=(0.0, 1.0),
        tolerance=0.0,
        measure=lambda results: velocity_ratios(results, "decay"),
        null=lambda results: velocity_ratios(results, "no-decay"),
        control="the same seeds without weight decay, where nothing is removed",
    ),
    Claim(
        "002-2B",
        WRITE_UP + "B",
        "velocity of QK falls on a line, 9.6e-4 a step (rate of |QK|, all heads, over lr * wd, "
        "from 8,000 to 14,000; quick: the last third after grokking)",
        published=0.96,
        tolerance=0.11,
        measure=lambda results: rates(results, "decay"),
        null=rate_of_decay,
        control="decay alone, -ln(1 - lr wd) / (lr wd)",
    ),
    Claim(
        "002-2B-heads",
        PREDICTION,
        "Q and K of the heads that attend uniformly decay (rate over lr * wd, mean over them; a "
        "value a seed that has such heads)",
        published=1.0,
        tolerance=0.15,
        measure=uniform_rates,
        null=rate_of_decay,
        control="decay alone, -ln(1 - lr wd) / (lr wd)",
    ),
    Claim(
        "002-2B-flat",
        PREDICTION,
        "without weight decay |QK| is flat over the same steps (rate over the other arm's lr * wd)",
        published=0.0,
        tolerance=0.15,
        measure=lambda results: rates(results, "no-decay"),
        null=uniform_rates,
        control="heads that attend uniformly, in the arm with decay",
    ),
    Claim(
        "002-2B-displacement",
        WRITE_UP + "B",
        "the displacement of QK saturates at 1.00 (at step 14,000, quick: at the end)",
        published=1.0,
        tolerance=0.02,
        measure=displacements,
        null=lambda results: [1 - (1 - results.decay) ** min(results.config.steps, SLOPE[1])],
        control="decay alone from the start, 1 - (1 - lr wd)^steps",
    ),
    Claim(
        "002-2B-stays",
        "not published: what follows the plot, which ends at step 15,000",
        "QK ends where it is least (|QK| at the last log over its least)",
        published=(1.0, 2.0),
        tolerance=0.0,
        measure=lambda results: returns(results, "decay"),
        null=lambda results: returns(results, "no-decay"),
        control="the same seeds without weight decay",
    ),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    arms = results.runs
    decay = {"decay": results.decay, "no-decay": 0.0}
    begins = [begin for begin, _ in windows(results) if not math.isnan(begin)]
    begin = int(np.median(begins)) if begins else 0
    present_results(
        "Does attention's geometry freeze, or decay?",
        __doc__ or "",
        CLAIMS,
        results,
        run_dir,
        tables={
            "accuracy and attention": [
                {"arm": arm} | tables.attention_row(runs) for arm, runs in arms.items()
            ],
            "rate of ln |part| over lr * wd": interval_rows(
                {part: {arm: rates(results, arm, part) for arm in ARMS} for part in PARTS},
                "part",
            ),
            "heads: rate of ln |QK| over lr * wd, over the same steps": tables.head_rows(
                {arm: dict(zip(config.seeds, heads(results, arm), strict=True)) for arm in ARMS}
            ),
            "at the last log, means over seeds": tables.part_rows(arms, PARTS, tables.last_row),
            "published rules on drift, a step a seed": tables.part_rows(
                arms, PARTS, partial(tables.rule_row, every=RULE_EVERY)
            ),
        },
        figures={
            "velocity": (draw.velocity_figure(arms, decay, begin), VELOCITY.format(begin)),
            "norm": (draw.norm_figure(arms, decay, begin), NORM),
            "displacement": (draw.displacement_figure(arms), DISPLACEMENT),
            "attention": (draw.attention_figure(arms, config.seeds), ATTENTION),
            "heads": (draw.heads_figure({arm: heads(results, arm) for arm in ARMS}), HEADS),
            "rule": (draw.rule_figure(arms, ("QKV", "QK", "V"), RULE_EVERY), RULE),
        },
    )


VELOCITY = (
    "As published, up to step 15,000. Dashed: decay alone from step {}; dotted: what gradients did "
    "to QK."
)
NORM = "The same parts' norms: a part that only decays is soon gone, until a jump of the loss."
DISPLACEMENT = "1 is a part that is gone, or one that turned as it grew: the norm tells which."
ATTENTION = "Attention entropy of the last position, the only one that sees two tokens."
HEADS = "Q and K of the heads that attend uniformly decay; the others keep theirs (same steps)."
RULE = 'Distance from the start; circles: "stable" by the published rule (third log or later).'


if __name__ == "__main__":
    probekit.recipes.main(__file__)
