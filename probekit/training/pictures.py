"""Figures of homeostatic-training experiments: every reading beside its null."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..entropy import one_hot_last_row_vdi, uniform_causal_vdi
from .condition_runs import ConditionRun
from .outcome import t_interval

#: condition name -> its runs, one a seed
Runs = Mapping[str, Sequence[ConditionRun]]
_LENGTH = 6


def trajectory_figure(runs: Runs, key: str = "vdi") -> Figure:
    """VDI per head over training, a panel a condition, seeds by colour, with both nulls.

    ``key="vdi"`` is normalised by ln T, ``"vdi_visible"`` by the keys that a row may see.
    """
    columns = min(3, len(runs))
    n_rows = -(-len(runs) // columns)
    figure, grid = plt.subplots(
        n_rows, columns, figsize=(3.4 * columns, 2.6 * n_rows), sharey=True, squeeze=False
    )
    for axis in grid.flat[len(runs) :]:
        axis.axis("off")
    for axis, (name, group) in zip(grid.flat, runs.items(), strict=False):
        for color, run in enumerate(group):
            steps, values = run.series(key)
            lines = axis.plot(steps, values.reshape(len(steps), -1), color=f"C{color}", lw=1)
            lines[0].set_label(f"seed {run.config['seed']}")
        uniform = uniform_causal_vdi(_LENGTH) if key == "vdi" else 1.0
        axis.axhline(uniform, color="k", ls="--", lw=1, label="uniform attention")
        if key == "vdi":
            last = one_hot_last_row_vdi(_LENGTH)
            axis.axhline(last, color="k", ls=":", lw=1, label="last row one-hot")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
    for axis in grid[:, 0]:
        axis.set_ylabel("VDI / ln T" if key == "vdi" else "VDI / ln(visible)", fontsize=8)
    grid[0, 0].legend(fontsize=7)
    figure.tight_layout()
    return figure


def target_figure(
    values: Sequence[float],
    panels: Mapping[str, tuple[np.ndarray, float]],
    xlabel: str,
    aims: Sequence[float],
    seeds: Sequence[int],
) -> Figure:
    """Final VDI against a swept number, with what it aims at; a panel an arm.

    Args:
        values: the swept numbers.
        panels: for each title the final values ``[seed, value]`` and what uniform attention reads.
        aims: the target at each value: the identity where targets are swept.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), 3.6), squeeze=False, sharex=True
    )
    for axis, (title, (finals, uniform)) in zip(axes.flat, panels.items(), strict=True):
        for color, (seed, row) in enumerate(zip(seeds, finals, strict=True)):
            axis.plot(values, row, "o", color=f"C{color}", ms=4, label=f"seed {seed}")
        intervals = np.array([t_interval(column) for column in finals.T])
        mean = finals.mean(0)
        if np.isfinite(intervals).all():
            axis.fill_between(values, *intervals.T, color="0.85", label="95 % interval")
        axis.plot(values, mean, "k-", lw=1, label="mean")
        axis.plot(values, aims, "k--", lw=1, label="target")
        axis.axhline(uniform, color="C3", ls=":", lw=1, label="uniform attention")
        axis.set(xlabel=xlabel, ylabel="final VDI")
        axis.set_title(title, fontsize=10)
    axes.flat[-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure


def gradient_figure(runs: Runs) -> Figure:
    """Largest gradient norm of each loss term: in the loss as it ran, and if it were attached."""
    terms = ("task", "convergence", "set_point")
    bars = [(term, "gradient_norms") for term in terms]
    bars += [(term, "attached_gradient_norms") for term in terms[1:]]
    figure, axis = plt.subplots(figsize=(1.2 + 1.5 * len(runs), 3.6))
    width = 0.8 / len(bars)
    for index, (term, kind) in enumerate(bars):
        heights = [
            float(np.mean([run.largest_gradient(term, kind) for run in group]))
            for group in runs.values()
        ]
        label = term if kind == "gradient_norms" else f"{term}, if attached"
        where = np.arange(len(runs)) + (index - len(bars) / 2 + 0.5) * width
        hatch = None if kind == "gradient_norms" else "//"
        drawn = axis.bar(where, heights, width, label=label, hatch=hatch, alpha=0.85)
        labels = ["0" if height == 0 else "" for height in heights]
        axis.bar_label(drawn, labels=labels, fontsize=8)
    axis.set_xticks(range(len(runs)), list(runs), fontsize=8, rotation=15)
    axis.set_yscale("symlog", linthresh=1e-3)
    axis.set_ylabel("largest gradient norm")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure


def window_figure(runs: Runs, below: float) -> Figure:
    """Spread over heads through training, and where each run dips below the window's threshold."""
    figure, axes = plt.subplots(
        len(runs), 1, figsize=(7, 1.5 * len(runs) + 0.6), sharex=True, sharey=True, squeeze=False
    )
    for axis, (name, group) in zip(axes.flat, runs.items(), strict=True):
        for color, run in enumerate(group):
            steps, spread = run.series("vdi_spread")
            shown = np.clip(spread, 1e-6, None)
            axis.semilogy(steps, shown, color=f"C{color}", lw=0.8)
            dips = spread < below
            axis.semilogy(np.array(steps)[dips], shown[dips], "v", color=f"C{color}", ms=6)
            window = run.trajectory["windows"]["persistent"]
            if window:
                axis.axvspan(window["start"], window["end"], color=f"C{color}", alpha=0.2)
        axis.axhline(below, color="k", ls="--", lw=1)
        axis.set_ylabel("spread", fontsize=8)
        axis.set_title(name, fontsize=9)
    axes[-1, 0].set_xlabel("step; triangles: below the threshold, shaded: a window that persists")
    figure.tight_layout()
    return figure
