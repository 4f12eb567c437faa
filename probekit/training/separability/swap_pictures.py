"""Figures of swapped weights, and of learning beside a ceiling: means over seeds, every seed shown.

``grouped_bars`` serves any table of conditions by treatments.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..outcome import t_interval
from ..tables import Table, series_of

#: what was published, by label and series of a table
Marks = Mapping[tuple[str, str], float]


def grouped_bars(axis: Axes, table: Table, published: Marks = MappingProxyType({})) -> None:
    """Draw a group of bars a label, a colour a series; lines are 95 % t-intervals of the means.

    Args:
        published: what was published, by label and series: a diamond on that bar.
    """
    series, labels = series_of(table), list(table)
    width = 0.86 / len(series)
    shifts = {name: (at - len(series) / 2 + 0.5) * width for at, name in enumerate(series)}
    for name, shift in shifts.items():
        drawn = [(at + shift, row[name]) for at, row in enumerate(table.values()) if name in row]
        where = [at for at, _ in drawn]
        means = [float(np.mean(values)) for _, values in drawn]
        axis.bar(where, means, width, label=name, alpha=0.75)
        for at, values in drawn:
            low, high = t_interval(values)
            if np.isfinite([low, high]).all():
                axis.plot([at, at], [low, high], color="k", lw=0.9)
            axis.plot([at] * len(values), values, ".", color="k", ms=2.5)
    if published:
        where = [labels.index(label) + shifts[name] for label, name in published]
        heights = list(published.values())
        axis.plot(where, heights, "D", color="k", mfc="w", ms=6, clip_on=False, label="published")
    axis.set_xticks(range(len(labels)), [label.replace(", ", "\n") for label in labels], fontsize=8)
    axis.set_xlim(-0.6, len(labels) - 0.4)


def swap_figure(
    tables: Mapping[str, Table], baselines: Mapping[str, float], chance: float, published: Marks
) -> Figure:
    """Accuracy by what was swapped (groups) and donor (colours), a panel an arm.

    Args:
        tables: by arm.
        baselines: accuracy without a swap, by arm.
        published: drawn into the first panel.
    """
    figure, axes = _panels(tables, width=13.0)
    for axis, (arm, table) in zip(axes, tables.items(), strict=True):
        grouped_bars(axis, table, published if axis is axes[0] else {})
        axis.axhline(baselines[arm], color="0.3", ls="--", lw=1, label="without a swap")
        axis.axhline(chance, color="C3", ls=":", lw=1.2, label="chance")
        axis.set_title(arm, fontsize=10)
        axis.set_ylabel("accuracy")
        axis.set_ylim(0, 1.02)
    return _with_legend(figure, axes[0])


def similarity_figure(tables: Mapping[str, Table], published: Marks) -> Figure:
    """Similarity with one network, by what it is compared with (groups), a panel an arm.

    Args:
        tables: by arm.
        published: drawn into the first panel.
    """
    figure, axes = _panels(tables, width=10.0)
    for axis, (arm, table) in zip(axes, tables.items(), strict=True):
        grouped_bars(axis, table, published if axis is axes[0] else {})
        axis.axhline(0, color="k", lw=0.8)
        axis.set_title(arm, fontsize=10)
        axis.set_ylabel("similarity with A")
        axis.set_ylim(-0.1, 1.05)
    return _with_legend(figure, axes[0])


def _panels(tables: Mapping[str, Table], width: float) -> tuple[Figure, list[Axes]]:
    count, alike = len(tables), len({tuple(table) for table in tables.values()}) == 1
    figure, grid = plt.subplots(
        count, 1, figsize=(width, 3 * count + 0.6), sharex=alike, squeeze=False
    )
    return figure, list(grid[:, 0])


def _with_legend(figure: Figure, axis: Axes) -> Figure:
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure


def learning_figure(
    logs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], runs: Sequence[int], ceiling: float
) -> Figure:
    """Accuracy through training, a panel an arm, beside what a causal predictor can reach.

    Args:
        logs: by arm, the rows of each ``metrics.jsonl``.
        runs: which runs of each to draw.
    """
    figure, axes = plt.subplots(
        1, len(logs), figsize=(4 * len(logs), 3), sharey=True, squeeze=False
    )
    for axis, (arm, files) in zip(axes[0], logs.items(), strict=True):
        for index, rows in enumerate(files):
            for run in runs:
                values = [row["accuracy"][run] for row in rows]
                axis.plot([row["step"] for row in rows], values, color=f"C{index % 10}", lw=1)
        axis.axhline(ceiling, color="k", ls="--", lw=1, label="ceiling of a causal predictor")
        axis.set_title(arm, fontsize=10)
        axis.set_xlabel("step")
        axis.set_ylim(0, 1.02)
    axes[0, 0].set_ylabel("accuracy")
    axes[0, 0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    return figure
