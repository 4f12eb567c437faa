"""Pictures of field modulators; every function returns a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..plotting import PALETTE, series_style

Runs = Sequence[Mapping[str, Any]]
Arms = Mapping[float, Mapping[str, Runs]]  # by alpha's start, the arms that have it
WIDTH, TALL = 8.5, 3.8


def training_figure(arms: Arms, none: float) -> Figure:
    """Held-out NLL of the word by epoch, a panel a start of alpha; dotted without a modulator."""
    figure, axes = plt.subplots(1, len(arms), figsize=(WIDTH, TALL), squeeze=False)
    for axis, (start, each) in zip(axes[0], arms.items(), strict=True):
        axis.axhline(none, color="black", linestyle=":", lw=1.2, label="none")
        for index, (arm, runs) in enumerate(each.items()):
            for run in runs:
                values = [row["lemma_nll"] for row in run["epochs"]]
                _series(axis, range(len(values)), values, index, arm if run is runs[0] else None)
        axis.set_title(f"alpha from {start:g}", fontsize=10)
        axis.set_xlabel("epochs")
        axis.ticklabel_format(axis="y", useOffset=False)
    axes[0, 0].set_ylabel("held out: NLL of the word (nats)")
    return _finished(figure, axes)


def alpha_figure(arms: Arms) -> Figure:
    """Trained alpha by layer, its mean over experts, a panel a start; dotted where it started."""
    figure, axes = plt.subplots(1, len(arms), figsize=(WIDTH, TALL), squeeze=False)
    for axis, (start, each) in zip(axes[0], arms.items(), strict=True):
        axis.axhline(start, color="black", linestyle=":", lw=1.2, label="start")
        for index, (arm, runs) in enumerate(each.items()):
            for run in runs:
                values = np.mean(run["alpha"], axis=1)
                _series(axis, range(len(values)), values, index, arm if run is runs[0] else None)
        axis.set_title(f"alpha from {start:g}", fontsize=10)
        axis.set_xlabel("layer")
    axes[0, 0].set_ylabel("alpha")
    return _finished(figure, axes)


def gates_figure(gates: Mapping[str, Any]) -> Figure:
    """Deviation of the gates over positions, by the order of the expert."""
    figure, axis = plt.subplots(figsize=(5.5, TALL))
    orders = list(gates["simplex"])
    for index, gate in enumerate(("simplex", "constant")):
        places = np.arange(len(orders)) + 0.4 * index - 0.2
        values = [gates[gate][k]["gate_std"] for k in orders]
        bars = axis.bar(places, values, width=0.4, color=PALETTE[index], label=gate)
        axis.bar_label(bars, fmt="%.3g", fontsize=9)
    axis.set_xticks(range(len(orders)), [f"k = {k}" for k in orders])
    axis.set_xlabel("expert")
    axis.set_ylabel("deviation of the gate over positions")
    axis.legend(fontsize=9, loc="upper left")
    figure.tight_layout()
    return figure


def check_figure(check: Mapping[str, Any], layers: Sequence[float]) -> Figure:
    """The CV by the number of coordinates, beside Gaussian points, and what is called healthy."""
    figure, axis = plt.subplots(figsize=(6.5, 4))
    axis.axhspan(0.16, 0.26, color="grey", alpha=0.25, lw=0, label="called healthy")
    axis.plot(check["dims"], check["by dims"], "o-", color=PALETTE[0], label="embedding")
    axis.plot(check["dims"], check["by dims null"], "--", color="black", label="Gaussian points")
    axis.plot([8] * len(layers), layers, "x", color=PALETTE[1], label="each layer's stream")
    axis.set_xscale("log", base=2)
    axis.set_xticks(check["dims"], [str(each) for each in check["dims"]])
    axis.set_ylim(0)
    axis.set_xlabel("coordinates read")
    axis.set_ylabel("CV of volumes")
    axis.legend(fontsize=9)
    figure.tight_layout()
    return figure


def _series(axis: Axes, x: Any, y: Any, index: int, label: str | None) -> None:
    axis.plot(x, y, lw=1.2, ms=5, label=label, **series_style(index))


def _finished(figure: Figure, axes: np.ndarray) -> Figure:
    for axis in axes.flat:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(fontsize=9)
    figure.tight_layout()
    return figure
