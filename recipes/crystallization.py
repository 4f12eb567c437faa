"""Does attention entropy "crystallize" at 0.611992? Natural crystallization, with its nulls.

Five seeds of a small transformer trained on modular addition end at the same VDI (normalised
attention entropy), 0.611992. A conserved quantity of learning, or uniform attention?

    probekit run crystallization --preset quick --jobs 2      two seeds, 5,000 steps;
                                                              controls one seed, 3,500
    probekit run crystallization --preset paper --jobs 2      five seeds, 10,000 steps, three
                                                              seeds of every control

Expected: VDI within 1e-5 of ln(6!)/(6 ln 6) = 0.6119917, which is what uniform causal attention
over six positions reads; the crystallization window ends between steps 3,000 and 5,000, in one of
five seeds after the published range; accuracy is 1 by step 300, since the answer is an input token;
the kill test scores 0.08 to 0.23 against its stale baseline and exactly 0 against a fresh one.
Without the leak two seeds of three end at a VDI of 0.54 and an accuracy of 0.27; the third learns
nothing and ends at uniform attention like the rest.

Time on two cores: quick about 5 minutes, paper 20.

Source: "Homeostatic Crystallization in Transformers", phase 1, run as its code ran it: one layer,
two heads, d_model 64, tokens [a, a, b, b, 0, c] read at position 5, AdamW lr 1e-3 with weight
decay 1.0, batch 512. Controls: decay without gradients, weight decay 0, an input without the
answer, two layers, and uniform attention in closed form as a function of length.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import probekit as pk
import probekit.recipes
from probekit.claims import Claim, decide_all, shown
from probekit.entropy import uniform_causal_vdi
from probekit.report import Report
from probekit.runs import RunDir
from probekit.training import (
    ConditionRun,
    ModularData,
    decay_alone,
    developmental_trajectory,
    largest_acceleration,
    log_row,
    readout_logits,
    train,
)
from probekit.training.conditions import check_intervals
from probekit.training.modular import Layout
from probekit.training.monitor_pictures import kill_figure, length_figure, norms_figure, rows_figure
from probekit.training.pictures import trajectory_figure

NAME = "crystallization"
LENGTH = 6
WRITE_UP = "Homeostatic Crystallization, phase 1"
EQUILIBRIUM = 0.611992  # as published
KILL_SCORES = (0.131, 0.177)  # least and greatest, as published


@dataclass(frozen=True)
class Config:
    """The published run, and how many seeds each arm gets."""

    seeds: tuple[int, ...] = (0, 1)  # of the published arm and of decay alone
    control_seeds: tuple[int, ...] = (0,)  # of the other controls
    steps: int = 5_000  # optimizer steps
    control_steps: int = 3_500  # the same for the other controls
    batch: int = 512  # examples a step, drawn with replacement
    lr: float = 1e-3  # AdamW, constant
    weight_decay: float = 1.0  # on all parameters
    log_every: int = 100  # steps between log rows
    monitor_every: int = 500  # steps between monitor checkpoints; kill tests at every second one

    def __post_init__(self) -> None:
        check_intervals(min(self.steps, self.control_steps), self.log_every, self.monitor_every)

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls((0, 1, 2, 3, 4), (0, 1, 2), steps=10_000, control_steps=10_000)


@dataclass(frozen=True)
class Arm:
    """How an arm departs from the published one."""

    title: str
    n_layers: int = 1
    layout: Layout = "published"
    decays: bool = True
    learns: bool = True


ARMS = {
    "published": Arm("as published"),
    "two-layers": Arm("two layers", n_layers=2),
    "leak-free": Arm("answer not in the input", layout="leak-free"),
    "no-decay": Arm("no weight decay", decays=False),
    "decay-only": Arm("weight decay, no gradient", learns=False),
}
PAIRED = ("published", "decay-only")  # these run for every seed, and for all steps
Unit = tuple[str, int]  # an arm and a seed
Results = dict[str, dict[int, ConditionRun]]  # by arm and seed


def seeds_of(config: Config, arm: str) -> tuple[int, ...]:
    return config.seeds if arm in PAIRED else config.control_seeds


def units(config: Config) -> list[Unit]:
    """Arm by arm, the longest first, so that workers end together."""
    return [(arm, seed) for arm in ARMS for seed in seeds_of(config, arm)]


def folder_of(run_dir: Path, arm: str, seed: int) -> Path:
    """The published arm has its seed's folder, a control a folder inside it."""
    return run_dir / f"seed{seed}" / ("" if arm == "published" else arm)


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train one arm of one seed; goes on from its last checkpoint."""
    name, seed = unit
    run, arm = RunDir(folder_of(run_dir, name, seed)), ARMS[name]
    fields = {k: v for k, v in asdict(config).items() if k not in ("seeds", "control_seeds")}
    run.start({**fields, "arm": name}, seed)
    if run.done:
        return
    data = ModularData.of(seed, arm.layout)
    model = pk.load("grokking", seed=seed, n_layers=arm.n_layers)
    decay = config.weight_decay if arm.decays else 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=decay)

    def update(step: int) -> None:
        if not arm.learns:
            decay_alone(optimizer)
            return
        tokens, labels = data.batch(step, config.batch)
        loss = torch.nn.functional.cross_entropy(readout_logits(model, tokens), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    train(
        run,
        model,
        optimizer,
        steps=config.steps if name in PAIRED else config.control_steps,
        update=update,
        log=lambda step: log_row(model, data, step, config.monitor_every),
        log_every=config.log_every,
        checkpoint_every=config.monitor_every,
        title=f"{arm.title}, seed {seed}",
        position=position,
    )
    rows = run.rows()
    run.write_json("developmental_trajectory.json", developmental_trajectory(rows, width=64))
    summary = ("step", "vdi", "vdi_mean", "vdi_spread", "test_accuracy", "norms")
    run.write_json("summary.json", {key: rows[-1][key] for key in summary})


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's folder."""
    results: Results = {arm: {} for arm in ARMS}
    for arm, seed in units(config):
        results[arm][seed] = ConditionRun.read(folder_of(run_dir, arm, seed))
    return results


def logged(results: Results, key: str, until: float = math.inf) -> list[float]:
    """``key`` at the last log row up to a step, as published; a value a seed."""
    runs = results["published"].values()
    return [[row[key] for row in run.rows if row["step"] <= until][-1] for run in runs]


def window_end(results: Results, arm: str) -> list[float]:
    windows = [run.trajectory["windows"]["persistent"] for run in results[arm].values()]
    return [window["end"] if window else math.nan for window in windows]


def last_kill_test(results: Results, baseline: str) -> list[float]:
    runs = results["published"].values()
    return [run.trajectory["kill_tests"][-1][baseline] for run in runs]


def detections(results: Results) -> list[float]:
    """Snaps and saturated checkpoints that the published detectors report."""
    found = [run.trajectory for run in results["published"].values()]
    return [float(bool(t["snap"])) + len(t["saturated"]) for t in found]


CLAIMS = [
    Claim(
        "000-1",
        WRITE_UP,
        "VDI ends at one value, identical in every seed",
        published=EQUILIBRIUM,
        tolerance=1e-5,
        measure=lambda results: logged(results, "vdi_mean"),
        null=lambda results: [uniform_causal_vdi(LENGTH)],
        control="uniform causal attention over six positions, ln(6!)/(6 ln 6)",
    ),
    Claim(
        "000-2",
        WRITE_UP,
        "the heads' VDIs become equal, and stay so, at step 3,300 to 4,200",
        published=(3_300.0, 4_200.0),
        tolerance=400.0,
        measure=lambda results: window_end(results, "published"),
        null=lambda results: window_end(results, "decay-only"),
        control="the same detector with weight decay alone, no gradient, from the same weights",
    ),
    Claim(
        "000-3",
        WRITE_UP,
        "test accuracy is 100 % by step 300",
        published=1.0,
        tolerance=0.001,
        measure=lambda results: logged(results, "test_accuracy", until=300),
        null=lambda results: logged(results, "copy_accuracy", until=300),
        control="no model: the input token at the read-out position as the answer",
    ),
    Claim(
        "000-4",
        WRITE_UP,
        "other heads compensate for a scaled head (last kill test's score)",
        published=KILL_SCORES,
        tolerance=0.05,
        measure=lambda results: last_kill_test(results, "stale"),
        null=lambda results: last_kill_test(results, "undisturbed"),
        control="the same score with no head scaled: drift of VDI since step 500",
    ),
    Claim(
        "000-8",
        WRITE_UP,
        "snaps and saturation are found by the published detectors: none was reported",
        published=0.0,
        tolerance=0.0,
        measure=detections,
        null=lambda results: [float(largest_acceleration(500) >= 1e-3)],
        control="the sharpest step that samples 500 steps apart can show: 8e-6, threshold 1e-3",
    ),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Draw the figures and write ``report.html``."""
    published = results["published"]
    by_title = {ARMS[arm].title: list(runs.values()) for arm, runs in results.items()}
    report = Report("Natural crystallization, and what uniform attention reads").text(__doc__ or "")
    report.table([shown(row) for row in decide_all(CLAIMS, results, run_dir)])
    report.table([arm_row(arm, seed, results[arm][seed]) for arm, seed in units(config)])
    figures = {
        "vdi": (trajectory_figure(by_title), "VDI per head, seeds by colour, with its nulls."),
        "rows": (
            rows_figure(published[config.seeds[0]]),
            "VDI resolved by query (solid) against uniform attention's ln(t+1)/ln 6 (dashed). "
            "Query 0 sees one key and reads 0, which the mean hides.",
        ),
        "norms": (
            norms_figure(published, config.lr * config.weight_decay),
            "Norms of W_Q and W_K against exp(-lr wd t): once the loss is solved, decay is all.",
        ),
        "kill-tests": (
            kill_figure(published.values(), KILL_SCORES),
            "Kill-test score: against the stale baseline, with no head scaled, and fresh.",
        ),
        "null-by-length": (
            length_figure({LENGTH: EQUILIBRIUM, 32: 0.735}),
            "What uniform causal attention reads, by length; as points what two tasks ended at.",
        ),
    }
    report.figures(figures, run_dir)
    for when, index in (("before", 0), ("after", -1)):
        for seed, run in published.items():
            pattern = torch.tensor(run.series("pattern")[1][index])
            caption = f"Seed {seed}, layer 0, one example, {when} training"
            report.attention(pattern, ["a", "a", "b", "b", "0", "c"], caption=caption)
    report.save(run_dir / "report.html")


def arm_row(arm: str, seed: int, run: ConditionRun) -> dict[str, Any]:
    last, window = run.rows[-1], run.trajectory["windows"]["persistent"]
    return {
        "arm": ARMS[arm].title,
        "seed": seed,
        "VDI per head": ", ".join(f"{vdi:.6f}" for layer in last["vdi"] for vdi in layer),
        "VDI of layer 0": last["vdi_mean"],
        "accuracy": last["test_accuracy"],
        "window": f"{window['start']} to {window['end']}" if window else "none that persists",
        "|W_Q|": last["norms"]["W_Q"],
    }


if __name__ == "__main__":
    probekit.recipes.main(__file__)
