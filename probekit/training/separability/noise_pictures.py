"""Figures of models under noise: means over seeds with intervals, what was published, nulls."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..outcome import t_interval

#: x -> values, one a seed
Curve = Mapping[float, Sequence[float]]
#: label -> its curve
Curves = Mapping[str, Curve]
_MARKERS = "osv^DPX<>*"


def curves_figure(
    panels: Mapping[str, Curves],
    xlabel: str,
    ylabels: Sequence[str],
    *,
    published: Mapping[str, Mapping[str, Mapping[float, float]]] | None = None,
    levels: Mapping[str, float] | None = None,
    dashed: Collection[str] = (),
    ylim: tuple[float, float] | None = None,
) -> Figure:
    """A panel a title, a line a label: the mean over seeds, shaded its 95 % t-interval.

    Args:
        ylabels: one for all panels, which then share their axis, or one each.
        published: points by title, label and x, drawn as open diamonds of that label's colour.
        levels: drawn into every panel, dotted.
        dashed: labels of nulls, drawn without markers.
        ylim: of every panel.
    """
    shared = len(ylabels) == 1
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(3.7 * columns, 3.1 * rows),
        sharex=shared,
        sharey=shared,
        squeeze=False,
    )
    for axis in grid.flat[len(panels) :]:
        axis.axis("off")
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    for index, (axis, (title, curves)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        for label, curve in curves.items():
            number = labels.index(label)
            style = {"ls": "--"} if label in dashed else {"marker": _MARKERS[number % 10]}
            _band(axis, curve, f"C{number}", label, style)
        for label, points in (published or {}).get(title, {}).items():
            if label not in curves:
                continue
            axis.plot(
                list(points),
                list(points.values()),
                "D",
                color=f"C{labels.index(label)}",
                mfc="w",
                ms=6,
                label=f"{label}, published",
            )
        for number, (label, level) in enumerate((levels or {}).items()):
            axis.axhline(level, color="k", ls=(":", "--")[number % 2], lw=1, label=label)
        if ylim is not None:
            axis.set_ylim(*ylim)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(xlabel, fontsize=9)
        axis.tick_params(labelbottom=True)
        if not shared or axis in grid[:, 0]:
            axis.set_ylabel(ylabels[0 if shared else index], fontsize=9)
    _legend(grid.flat[: len(panels)], grid[0, -1])
    figure.tight_layout()
    return figure


def collapse_figure(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    xlabel: str,
    ylabel: str,
    published: Sequence[tuple[float, float]],
) -> Figure:
    """Points against a ratio: one curve, if they depend on it alone.

    Args:
        panels: points by title and label; one label has one marker.
        published: further points, drawn into the first panel.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.6), sharey=True, squeeze=False
    )
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for label, points in curves.items():
            number = labels.index(label)
            axis.plot(
                *zip(*points, strict=True),
                _MARKERS[number % 10],
                color=f"C{number}",
                mfc="none",
                ms=5 + number,
                label=label,
            )
        if axis is axes[0, 0]:
            axis.plot(*zip(*published, strict=True), "+", color="k", ms=8, label="published")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(xlabel, fontsize=9)
    axes[0, 0].set_ylabel(ylabel, fontsize=9)
    _legend(axes[0], axes[0, -1])
    figure.tight_layout()
    return figure


def _legend(axes: Iterable[Axes], beside: Axes) -> None:
    """One for all of them, each label once, to the right of one."""
    handles: dict[str, Any] = {}
    for axis in axes:
        found = axis.get_legend_handles_labels()
        handles |= {name: handle for handle, name in zip(*found, strict=True)}
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    beside.legend(handles.values(), handles.keys(), fontsize=8, **where)


def _band(axis: Axes, curve: Curve, color: str, label: str, style: Mapping[str, Any]) -> None:
    where = sorted(curve)
    means = [float(np.mean(curve[x])) for x in where]
    axis.plot(where, means, color=color, ms=3.5, lw=1.2, label=label, **style)
    intervals = np.array([t_interval(curve[x]) for x in where])
    if np.isfinite(intervals).all():
        axis.fill_between(where, *intervals.T, color=color, alpha=0.2, lw=0)
