"""Figures of runs that collapse: every run's accuracy, and the share of runs that have settled."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .metastability import GOOD, Arms

#: arm -> a run each: ``steps`` and ``accuracy``
Logs = Mapping[str, Sequence[Mapping[str, Sequence[Any]]]]


def trajectory_figure(logs: Logs) -> Figure:
    """Validation accuracy over steps, a panel an arm, a colour a seed."""
    columns = min(4, len(logs))
    rows = -(-len(logs) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.3 * rows), sharey=True, squeeze=False
    )
    for axis in grid.flat[len(logs) :]:
        axis.axis("off")
    for axis, (name, runs) in zip(grid.flat, logs.items(), strict=False):
        for run in runs:
            axis.plot(run["steps"], run["accuracy"], lw=0.8)
        axis.axhline(GOOD, color="k", ls=":", lw=0.8)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in grid[:, 0]:
        axis.set_ylabel("validation accuracy", fontsize=8)
    for axis in grid[-1]:
        axis.set_xlabel("step", fontsize=8)
    figure.tight_layout()
    return figure


def survival_figure(arms: Arms) -> Figure:
    """Runs not settled yet over time, and the share called stable beside the share of good logs.

    A run whose good logs come and go without memory is called stable as often as a log is good.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6))
    for color, (name, runs) in enumerate(arms.runs.items()):
        times = sorted(run.settled for run in runs if run.settled is not None)
        shares = [1 - count / len(runs) for count in range(len(times) + 1)]
        style: dict[str, Any] = {"color": f"C{color}", "label": name}
        left.step([0, *times, 1], [*shares, shares[-1]], where="post", **style)
        right.plot(arms.good(name), arms.stable(name), "o", **style)
    left.set_xlabel("fraction of the run")
    left.set_ylabel("not settled yet (share of runs)")
    right.plot([0, 1], [0, 1], ":", color="k", lw=0.8, label="the last log is one of them")
    right.set_xlabel(f"share of logs from {GOOD:.2f} on, once it has generalised")
    right.set_ylabel("share of runs called stable")
    for axis in (left, right):
        axis.set_xlim(-0.03, 1.03)
        axis.set_ylim(-0.03, 1.05)
    right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    return figure
