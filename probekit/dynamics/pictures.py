"""Figures of relaxed models; every function returns a Figure, and one writes an animation."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..runs import write_atomic

Table = Mapping[str, Mapping[str, Sequence[float]]]


def cosine_figure(depth: Table, ceiling: Table) -> Figure:
    """Cosine to the exact adjoint by depth, beside the law, and by nudge at one depth."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
    _lines(axes[0], depth, "measured", "o-", "measured")
    _lines(axes[0], depth, "law", "k--", "truncation law")
    axes[0].set_xscale("log")
    axes[0].set_xlabel("steps of the nudged phase")
    _lines(axes[1], ceiling, "cosine", "o-", "20 steps")
    axes[1].set_xscale("log")
    axes[1].set_xticks([float(name) for name in ceiling], labels=list(ceiling))
    axes[1].minorticks_off()
    axes[1].set_xlabel("nudge per token")
    for axis in axes:
        axis.set_ylim(None, 1.02)
        axis.set_ylabel("cosine to the exact adjoint")
        axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _lines(axis: Axes, table: Table, key: str, style: str, label: str) -> None:
    x = [float(name) for name in table]
    for seed, values in enumerate(zip(*(row[key] for row in table.values()), strict=True)):
        axis.plot(x, values, style, ms=4, lw=1, label=label if seed == 0 else None)


def residual_figure(free: Table) -> Figure:
    """Cosines of EP and BPTT against the step residual of the free phase."""
    figure, axis = plt.subplots(figsize=(4.8, 3.4))
    for color, name in enumerate(("EP", "BPTT")):
        seeds = zip(
            zip(*(row["residual"] for row in free.values()), strict=True),
            zip(*(row[name] for row in free.values()), strict=True),
            strict=True,
        )
        for seed, (x, y) in enumerate(seeds):
            axis.plot(x, y, "o-", color=f"C{color}", ms=4, label=name if seed == 0 else None)
    axis.set_xscale("log")
    axis.set_xlabel("step residual r at the end of the free phase")
    axis.set_ylabel("cosine to the exact gradient")
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def trace_figure(traces: Mapping[str, Sequence[float]]) -> Figure:
    """Force residuals of the planted regimes, step after step."""
    figure, axis = plt.subplots(figsize=(6, 3.4))
    for label, trace in traces.items():
        axis.semilogy(np.maximum(trace, 1e-16), lw=1, label=label)
    axis.set_xlabel("step")
    axis.set_ylabel("force residual g = |F| / |z|")
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def sweep_figure(sweeps: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """The last force residual against the step size: flat for a cycle of the flow."""
    figure, axis = plt.subplots(figsize=(5, 3.4))
    for label, rows in sweeps.items():
        finite = [row for row in rows if row["g"] is not None]  # JSON has no infinity
        sizes = [row["step_size"] for row in finite]
        axis.loglog(sizes, [max(row["g"], 1e-16) for row in finite], "o-", label=label)
    axis.set_xlabel("step size, over one physical time")
    axis.set_ylabel("force residual at the end")
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def phase_figure(orbits: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """The end of each relaxation in the planted plane."""
    figure, axes = plt.subplots(1, len(orbits), figsize=(2.4 * len(orbits), 2.6), squeeze=False)
    for axis, (label, points) in zip(axes[0], orbits.items(), strict=True):
        if len(points):
            x, y = np.array(points).round(9).T  # rounding at rest is no orbit
            axis.plot(x, y, ".-", ms=3, lw=0.5)
        axis.plot(0, 0, "k+")
        axis.set_title(label, fontsize=8)
        axis.set_aspect("equal", adjustable="datalim")
        axis.tick_params(labelsize=6)
    figure.tight_layout()
    return figure


def eigenvalue_figure(scans: Mapping[str, Sequence[Mapping[str, Any]]], step_size: float) -> Figure:
    """The rightmost eigenvalues of each knob's scan, light to dark as it is turned up.

    The circle is ``|1 + step mu| = 1``: outside it the map is unstable; right of the line the flow.
    """
    figure, axes = plt.subplots(1, len(scans), figsize=(3.6 * len(scans), 3.4), squeeze=False)
    for axis, (knob, rows) in zip(axes[0], scans.items(), strict=True):
        stability_region(axis, step_size)
        axis.set_xlim(-4, 2)
        axis.set_ylim(-8, 8)
        shown = [row for row in rows if row["converged"]]
        for index, row in enumerate(shown):
            x, y = np.array(row["mu"]).T
            shade = plt.get_cmap("viridis")(1 - index / max(len(shown) - 1, 1))
            axis.plot(x, y, ".", color=shade, ms=4, label=f"{row['value']:g}")
        axis.set_title(knob, fontsize=9)
        axis.legend(fontsize=6)
    figure.tight_layout()
    return figure


def stability_region(axis: Axes, step_size: float) -> None:
    """The circle inside which the map is stable, and the line left of which the flow is."""
    turn = np.linspace(0, 2 * math.pi, 200)
    axis.plot((np.cos(turn) - 1) / step_size, np.sin(turn) / step_size, "k-", lw=0.6)
    axis.axvline(0, color="k", ls=":", lw=0.8)
    axis.set_xlabel("Re μ", fontsize=8)
    axis.set_ylabel("Im μ", fontsize=8)


def animate_eigenvalues(
    rows: Sequence[Mapping[str, Any]], step_size: float, knob: str, path: Path
) -> None:
    """A GIF of multipliers ``1 + step mu`` against the unit circle as one knob is turned up."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    shown = [row for row in rows if row["converged"]]
    figure, axis = plt.subplots(figsize=(3.6, 3.6))

    def draw(index: int) -> list[Any]:
        axis.clear()
        turn = np.linspace(0, 2 * math.pi, 200)
        axis.plot(np.cos(turn), np.sin(turn), "k-", lw=0.8)
        x, y = np.array(shown[index]["mu"]).T
        axis.plot(1 + step_size * x, step_size * y, ".", ms=5)
        axis.set_xlim(0.4, 1.25)
        axis.set_ylim(-0.8, 0.8)
        axis.set_title(f"{knob} × {shown[index]['value']:g}: 1 + {step_size:g} μ", fontsize=9)
        return []

    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder, "drawn.gif")
        FuncAnimation(figure, draw, frames=len(shown)).save(drawn, writer=PillowWriter(fps=2))
        write_atomic(path, drawn.read_bytes())
    plt.close(figure)
