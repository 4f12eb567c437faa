"""Figures of training runs of equilibrium models; every function returns a Figure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .pictures import stability_region
from .training import ONSET

Runs = Sequence[Mapping[str, Sequence[float]]]  # one a seed: the log's columns


def training_figure(arms: Mapping[str, Runs], ceiling: float) -> Figure:
    """Validation loss and the worst sequence's residual by step: a column an arm, a line a seed."""
    figure, axes = plt.subplots(
        2, len(arms), figsize=(1.75 * len(arms) + 0.6, 4.2), sharex="col", sharey="row",
        squeeze=False,
    )  # fmt: skip
    for column, (arm, runs) in enumerate(arms.items()):
        for seed, run in enumerate(runs):
            axes[0, column].plot(run["step"], run["loss"], color=f"C{seed}", lw=1)
            left = np.maximum(run["worst_residual"], 1e-9)
            axes[1, column].semilogy(run["step"], left, color=f"C{seed}", lw=1)
        axes[0, column].set_title(arm, fontsize=8)
        axes[1, column].axhline(ONSET, color="k", ls=":", lw=0.8)
        axes[1, column].set_xlabel("step", fontsize=8)
        for row in (0, 1):
            axes[row, column].tick_params(labelsize=7)
    lowest = min(value for runs in arms.values() for run in runs for value in run["loss"])
    axes[0, 0].set_ylim(lowest - 0.1, ceiling)
    axes[0, 0].set_ylabel("validation loss (nats)", fontsize=8)
    axes[1, 0].set_ylabel("residual r, worst sequence", fontsize=8)
    axes[1, 0].set_ylim(1e-9, None)
    figure.tight_layout()
    return figure


def onset_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """At the onset of divergence: eigenvalues at z*, and the last force residual by step size."""
    shown = [row for row in rows if "mu" in row][:4]
    figure, axes = plt.subplots(1, len(shown) + 1, figsize=(3 * (len(shown) + 1), 3.2))
    axes = np.atleast_1d(axes)
    for axis, row in zip(axes, shown, strict=False):
        x, y = np.array(row["mu"]).T
        stability_region(axis, max(each["step_size"] for each in row["evidence"]))
        axis.plot(x, y, ".", ms=3)
        axis.set_xlim(min(-21, x.min() - 1), max(2, x.max() + 1))
        axis.set_ylim(-15, 15)
        axis.set_title(f"step {row['onset step']}: {row['regime']}", fontsize=8)
    for row in shown:
        finite = [each for each in row["evidence"] if each["g"] is not None]
        axes[-1].loglog(
            [each["step_size"] for each in finite],
            [max(each["g"], 1e-16) for each in finite],
            "o-",
            lw=1,
        )
    sizes = sorted({each["step_size"] for row in shown for each in row["evidence"]})
    axes[-1].set_xticks(sizes, labels=[f"{size:g}" for size in sizes])
    axes[-1].minorticks_off()
    axes[-1].set_xlabel("step size, over one physical time", fontsize=8)
    axes[-1].set_ylabel("force residual at the end", fontsize=8)
    figure.tight_layout()
    return figure


def scan_figure(
    points: Sequence[Mapping[str, float]], free: Sequence[Mapping[str, float]]
) -> Figure:
    """Validation loss by asymmetry at each gain, and against the distance from instability."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
    gains = sorted({point["gain"] for point in points})
    for index, gain in enumerate(gains):
        here = [point for point in points if point["gain"] == gain]
        levels = sorted({point["asymmetry"] for point in here})
        losses = [[p["loss"] for p in here if p["asymmetry"] == level] for level in levels]
        color = plt.get_cmap("viridis")(index / max(len(gains) - 1, 1) * 0.85)
        axes[0].plot(levels, [np.mean(each) for each in losses], "-", color=color, lw=1)
        for level, each in zip(levels, losses, strict=True):
            axes[0].plot([level] * len(each), each, ".", color=color, ms=5)
        axes[0].plot([], [], ".-", color=color, label=f"gain {gain:g}")
        axes[1].plot(
            [-point["lead"] for point in here], [p["loss"] for p in here], ".", color=color, ms=6
        )
    for run in free:
        axes[0].plot(run["r_str of V O"], run["loss"], "kx", ms=6)
        axes[1].plot(-run["lead"], run["loss"], "kx", ms=6)
    axes[0].plot([], [], "kx", label="free")
    axes[0].axvline(math.sqrt(0.5), color="k", ls=":", lw=0.8)
    axes[0].set_xlabel("asymmetry r of the value-output map (dotted: independent entries)")
    axes[1].set_xlabel("−Re μ of the rightmost eigenvalue at z*")
    for axis in axes:
        axis.set_ylabel("validation loss (nats)")
        axis.xaxis.label.set_size(8)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    return figure
