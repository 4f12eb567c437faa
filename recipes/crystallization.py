"""Does attention entropy "crystallize" at 0.611992? Natural crystallization, with its nulls.

Five seeds of a small transformer trained on modular addition end at the same VDI (normalised
attention entropy), 0.611992. A conserved quantity of learning, or uniform attention?

    probekit run crystallization --preset quick --jobs 2      two seeds, 5,000 steps;
                                                              controls one seed, 3,500
    probekit run crystallization --preset paper --jobs 2      five seeds, 10,000 steps, three
                                                              seeds of every control

Expected: VDI within 1e-5 of ln(6!)/(6 ln 6) = 0.6119917, which is what uniform causal attention
over six positions reads; the crystallization window ends between steps 3,000 and 4,600; accuracy
is 1 by step 300, since the answer is an input token; the kill test scores 0.08 to 0.23 against
its stale baseline and exactly 0 against a fresh one. Without the leak VDI stays below 0.605 and
accuracy below 0.5.

Time on two cores: quick about 5 minutes, paper about 30.

Source: "Homeostatic Crystallization in Transformers", phase 1, run as its code ran it: one layer,
two heads, d_model 64, tokens [a, a, b, b, 0, c] read at position 5, AdamW lr 1e-3 with weight
decay 1.0, batch 512. Controls: decay without gradients, weight decay 0, an input without the
answer, two layers, and uniform attention in closed form as a function of length.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

import probekit as pk
import probekit.recipes
from probekit.claims import Claim, decide
from probekit.entropy import one_hot_last_row_vdi, uniform_causal_vdi
from probekit.report import Report
from probekit.runs import RunDir
from probekit.training import (
    developmental_trajectory,
    gaussian_entropy,
    head_spread,
    kill_test,
    largest_acceleration,
    modular_split,
    modular_tokens,
    readout_logits,
    train,
)

NAME = "crystallization"
LENGTH = 6
WRITE_UP = "Homeostatic Crystallization, phase 1"


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
        shortest = min(self.steps, self.control_steps)
        if self.monitor_every % self.log_every or shortest < self.monitor_every:
            raise pk.RunError(
                "monitor_every must be a multiple of log_every, and at most steps; given "
                f"{self.monitor_every}, {self.log_every} and {shortest}"
            )

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(
            seeds=(0, 1, 2, 3, 4), control_seeds=(0, 1, 2), steps=10_000, control_steps=10_000
        )


@dataclass(frozen=True)
class Arm:
    """How an arm departs from the published one."""

    title: str
    n_layers: int = 1
    layout: Literal["published", "leak-free"] = "published"
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
Unit = tuple[str, int]


def units(config: Config) -> list[Unit]:
    """Arm by arm, the longest first, so that workers end together."""
    return [
        (arm, seed)
        for arm in ARMS
        for seed in (config.seeds if arm in PAIRED else config.control_seeds)
    ]


def folder_of(run_dir: Path, unit: Unit) -> Path:
    """The published arm has its seed's folder, a control a folder inside it."""
    arm, seed = unit
    folder = run_dir / f"seed{seed}"
    return folder if arm == "published" else folder / arm


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train one arm of one seed; goes on from its last checkpoint."""
    name, seed = unit
    run, arm = RunDir(folder_of(run_dir, unit)), ARMS[name]
    fields = {k: v for k, v in asdict(config).items() if k not in ("seeds", "control_seeds")}
    run.start({**fields, "arm": name}, seed)
    if run.done:
        return
    train_pairs, test_pairs = modular_split()
    tokens, labels = modular_tokens(train_pairs, arm.layout)
    test = modular_tokens(test_pairs[:1000], arm.layout)
    chosen = np.random.default_rng([seed, 1]).choice(len(test_pairs), 128, replace=False)
    monitored = modular_tokens(test_pairs[torch.from_numpy(chosen)], arm.layout)[0]
    model = pk.load("grokking", seed=seed, n_layers=arm.n_layers)
    decay = config.weight_decay if arm.decays else 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=decay)

    def update(step: int) -> None:
        if not arm.learns:
            shrink(model, 1 - config.lr * decay)
            return
        # A generator a step, so that a resumed run draws what an uninterrupted one would.
        draw = np.random.default_rng([seed, 0, step]).integers(0, len(tokens), config.batch)
        logits = readout_logits(model, tokens[draw])
        loss = torch.nn.functional.cross_entropy(logits, labels[draw])
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
        log=lambda step: log_row(config, model, test, monitored, step),
        log_every=config.log_every,
        checkpoint_every=config.monitor_every,
        title=f"{arm.title}, seed {seed}",
        position=position,
    )
    rows = run.rows()
    run.write_json("developmental_trajectory.json", developmental_trajectory(rows, width=64))
    run.write_json("summary.json", {key: rows[-1][key] for key in SUMMARY})


SUMMARY = ("step", "vdi", "vdi_mean", "vdi_spread", "test_accuracy", "norms")


@torch.no_grad()
def shrink(model: torch.nn.Module, factor: float) -> None:
    """What AdamW does to every parameter when all gradients are zero."""
    for parameter in model.parameters():
        parameter.mul_(factor)


def log_row(
    config: Config,
    model: Any,
    test: tuple[torch.Tensor, torch.Tensor],
    monitored: torch.Tensor,
    step: int,
) -> dict[str, Any]:
    """One log row; monitor checkpoints and kill tests add their own columns."""
    logits = model(test[0])[:, -1]
    probes = [pk.VDI(), pk.VDI(order="pattern-first", name="loss_vdi"), pk.Record("0.pattern")]
    with pk.attach(model, *probes, pk.Record("0.resid_post", name="resid")) as run:
        model(monitored)
    vdi, attn = run["vdi"], model.blocks[0].attn
    row: dict[str, Any] = {
        "step": step,
        "test_loss": torch.nn.functional.cross_entropy(logits, test[1]),
        "test_accuracy": (logits.argmax(-1) == test[1]).double().mean(),
        "copy_accuracy": (test[0][:, -1] == test[1]).double().mean(),
        "vdi": vdi.values,
        "loss_vdi": run["loss_vdi"].values,
        "vdi_mean": vdi.values[0].mean(),
        "vdi_spread": head_spread(vdi.values[0]),
        "norms": {name: float(getattr(attn, name).norm()) for name in ("W_Q", "W_K", "W_V", "W_O")},
    }
    if step % config.monitor_every == 0:
        row["vdi_by_query"] = vdi.rows.values[0]
        row["gaussian_entropy"] = gaussian_entropy(run["resid"].values.flatten(0, 1))
        row["pattern"] = run["record"].values[0]
    if step % (2 * config.monitor_every) == config.monitor_every:
        row["kill_test"] = kill_test(model, monitored)
    return row


@dataclass(frozen=True)
class UnitResult:
    """What one arm of one seed left in its folder."""

    rows: list[dict[str, Any]]
    trajectory: dict[str, Any]

    def series(self, key: str) -> tuple[list[int], np.ndarray]:
        """The steps at which ``key`` was logged, and its values."""
        rows = [row for row in self.rows if key in row]
        return [row["step"] for row in rows], np.array([row[key] for row in rows])


Results = dict[Unit, UnitResult]


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's folder."""
    runs = {unit: RunDir(folder_of(run_dir, unit)) for unit in units(config)}
    return {
        unit: UnitResult(run.rows(), run.read_json("developmental_trajectory.json"))
        for unit, run in runs.items()
    }


def of(results: Results, arm: str) -> list[UnitResult]:
    return [result for (name, _), result in results.items() if name == arm]


def final_vdi(results: Results, arm: str = "published") -> list[float]:
    return [result.rows[-1]["vdi_mean"] for result in of(results, arm)]


def window_end(results: Results, arm: str = "published") -> list[float]:
    windows = [result.trajectory["windows"]["persistent"] for result in of(results, arm)]
    return [window["end"] if window else math.nan for window in windows]


def early(results: Results, key: str, step: int = 300) -> list[float]:
    """``key`` at the last log row up to ``step``."""
    rows = [[r for r in result.rows if r["step"] <= step] for result in of(results, "published")]
    return [kept[-1][key] for kept in rows]


def last_kill_test(results: Results, baseline: str) -> list[float]:
    return [result.trajectory["kill_tests"][-1][baseline] for result in of(results, "published")]


def detections(results: Results) -> list[float]:
    """Snaps and saturated checkpoints that the published detectors report."""
    found = [result.trajectory for result in of(results, "published")]
    return [float(bool(t["snap"])) + len(t["saturated"]) for t in found]


CLAIMS = [
    Claim(
        "000-1",
        WRITE_UP,
        "VDI ends at one value, identical in every seed",
        published=0.611992,
        tolerance=1e-5,
        measure=final_vdi,
        null=lambda results: [uniform_causal_vdi(LENGTH)],
        control="uniform causal attention over six positions, ln(6!)/(6 ln 6)",
    ),
    Claim(
        "000-2",
        WRITE_UP,
        "the heads' VDIs become equal, and stay so, at step 3,300 to 4,200",
        published=(3_300.0, 4_200.0),
        tolerance=400.0,
        measure=window_end,
        null=lambda results: window_end(results, "decay-only"),
        control="the same detector with weight decay alone, no gradient, from the same weights",
    ),
    Claim(
        "000-3",
        WRITE_UP,
        "test accuracy is 100 % by step 300",
        published=1.0,
        tolerance=0.001,
        measure=lambda results: early(results, "test_accuracy"),
        null=lambda results: early(results, "copy_accuracy"),
        control="no model: the input token at the read-out position as the answer",
    ),
    Claim(
        "000-4",
        WRITE_UP,
        "other heads compensate for a scaled head (last kill test's score)",
        published=(0.131, 0.177),
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
    report = Report("Natural crystallization, and what uniform attention reads")
    report.text(__doc__ or "")
    report.table([{key: decide(claim, results)[key] for key in COLUMNS} for claim in CLAIMS])
    report.table([arm_row(unit, result) for unit, result in results.items()])
    figures = {
        "vdi": (vdi_figure(results), "VDI per head over training; the null line is the null."),
        "rows": (
            rows_figure(results),
            "VDI resolved by query (solid) against uniform attention's ln(t+1)/ln 6 (dashed). "
            "Query 0 sees one key and reads 0, which the mean hides.",
        ),
        "norms": (
            norms_figure(config, results),
            "Norms of W_Q and W_K against exp(-lr wd t): once the loss is solved, decay is all.",
        ),
        "kill-tests": (
            kill_figure(results),
            "Kill-test score: against the stale baseline, with no head scaled, and fresh.",
        ),
        "null-by-length": (length_figure(), "What uniform causal attention reads, by length."),
    }
    report.figures(figures, run_dir)
    for when, index in (("before", 0), ("after", -1)):
        for seed in config.seeds:
            patterns = results["published", seed].series("pattern")[1][index]
            caption = f"Seed {seed}, layer 0, one example, {when} training"
            report.attention(
                torch.tensor(patterns), ["a", "a", "b", "b", "0", "c"], caption=caption
            )
    report.save(run_dir / "report.html")


COLUMNS = ("id", "statement", "published", "measured", "null", "control", "verdict")


def arm_row(unit: Unit, result: UnitResult) -> dict[str, Any]:
    arm, seed = unit
    last = result.rows[-1]
    window = result.trajectory["windows"]["persistent"]
    return {
        "arm": ARMS[arm].title,
        "seed": seed,
        "VDI per head": ", ".join(f"{vdi:.6f}" for layer in last["vdi"] for vdi in layer),
        "VDI of layer 0": last["vdi_mean"],
        "accuracy": last["test_accuracy"],
        "window": f"{window['start']} to {window['end']}" if window else "none that persists",
        "|W_Q|": last["norms"]["W_Q"],
    }


def vdi_figure(results: Results) -> Figure:
    figure, grid = plt.subplots(2, 3, figsize=(9, 5.5), sharey=True)
    *axes, corner = grid.flat
    for axis, (name, arm) in zip(axes, ARMS.items(), strict=True):
        for seed, result in enumerate(of(results, name)):
            steps, vdi = result.series("vdi")
            lines = vdi.reshape(len(steps), -1)
            axis.plot(steps, lines, color=f"C{seed}", lw=1)
        axis.axhline(uniform_causal_vdi(LENGTH), color="k", ls="--", lw=1, label="uniform")
        axis.axhline(
            one_hot_last_row_vdi(LENGTH), color="k", ls=":", lw=1, label="last row one-hot"
        )
        axis.set_title(arm.title, fontsize=10)
        axis.set_xlabel("step")
    for axis in grid[:, 0]:
        axis.set_ylabel("VDI [fraction of ln T]")
    corner.axis("off")
    corner.legend(*axes[0].get_legend_handles_labels(), loc="center")
    figure.tight_layout()
    return figure


def rows_figure(results: Results) -> Figure:
    figure, axis = plt.subplots(figsize=(6, 4))
    steps, by_query = results["published", seed_of(results)].series("vdi_by_query")
    for query in range(LENGTH):
        axis.plot(steps, by_query[:, :, query].mean(1), color=f"C{query}", label=f"query {query}")
        axis.axhline(math.log(query + 1) / math.log(LENGTH), color=f"C{query}", ls="--", lw=1)
    axis.set(xlabel="step", ylabel="row entropy / ln 6")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure


def norms_figure(config: Config, results: Results) -> Figure:
    figure, axis = plt.subplots(figsize=(6, 4))
    for color, (arm, seed) in enumerate([("published", s) for s in config.seeds]):
        steps, norms = results[arm, seed].series("norms")
        for name, style in (("W_Q", "-"), ("W_K", ":")):
            values = [norm[name] for norm in norms]
            axis.semilogy(steps, values, style, color=f"C{color}", label=f"{name}, seed {seed}")
    start = norms[0]["W_Q"]
    rate = config.lr * config.weight_decay
    for begin in (0, steps[-1] // 2):
        level = start if begin == 0 else norms[len(norms) // 2]["W_Q"]
        later = np.array([step for step in steps if step >= begin])
        label = "exp(-lr wd t)" if begin == 0 else None
        axis.semilogy(later, level * np.exp(-rate * (later - begin)), "k--", lw=1, label=label)
    axis.set(xlabel="step", ylabel="Frobenius norm")
    axis.legend(fontsize=8)
    return figure


def kill_figure(results: Results) -> Figure:
    figure, axis = plt.subplots(figsize=(6, 4))
    for color, result in enumerate(of(results, "published")):
        tests = result.trajectory["kill_tests"]
        steps = [test["step"] for test in tests]
        for key, style, label in (
            ("stale", "o-", "as published, stale baseline"),
            ("fresh", "s--", "fresh baseline"),
        ):
            axis.plot(steps, [test[key] for test in tests], style, color=f"C{color}", label=label)
        undisturbed = [test["undisturbed"] for test in tests]
        axis.plot(steps, undisturbed, "kx", ms=10, label="stale baseline, no head scaled")
    axis.axhspan(0.131, 0.177, color="0.85", label="published range")
    axis.set(xlabel="step", ylabel="compensation score")
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), fontsize=8)
    return figure


def length_figure() -> Figure:
    figure, axis = plt.subplots(figsize=(6, 4))
    lengths = list(range(2, 65))
    axis.plot(lengths, [uniform_causal_vdi(n) for n in lengths], label="ln(T!) / (T ln T)")
    axis.plot(lengths, [one_hot_last_row_vdi(n) for n in lengths], ":", label="last row one-hot")
    axis.plot([6, 32], [0.611992, 0.735], "o", label="published equilibria (two tasks)")
    axis.set(xlabel="length T", ylabel="VDI of uniform causal attention")
    axis.legend(fontsize=8)
    return figure


def seed_of(results: Results) -> int:
    """The first seed of the published arm."""
    return next(seed for arm, seed in results if arm == "published")


if __name__ == "__main__":
    probekit.recipes.main(__file__)
