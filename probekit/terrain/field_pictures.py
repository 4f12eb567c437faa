"""Pictures of field modulators; every function returns a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Runs = Sequence[Mapping[str, Any]]


def training_figure(arms: Mapping[str, Runs]) -> Figure:
    """NLL of the word by epoch, an arm a colour; dashed where no modulator is there."""
    figure, axis = plt.subplots(figsize=(6, 3.8))
    for index, (arm, runs) in enumerate(arms.items()):
        if "epochs" not in runs[0]:
            axis.axhline(runs[0]["lemma_nll"], color="black", linestyle="--", lw=1, label=arm)
            continue
        for run in runs:
            values = [row["lemma_nll"] for row in run["epochs"]]
            label = arm if run is runs[0] else None
            axis.plot(range(len(values)), values, color=f"C{index}", marker="o", lw=1, label=label)
    axis.set_xlabel("epochs")
    axis.set_ylabel("NLL of the word (nats)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def alpha_figure(arms: Mapping[str, Runs]) -> Figure:
    """Trained alpha by layer, its mean over experts; dotted where it started."""
    figure, axis = plt.subplots(figsize=(6, 3.6))
    for index, (arm, runs) in enumerate(arms.items()):
        for run in runs:
            values = np.mean(run["alpha"], axis=1)
            label = arm if run is runs[0] else None
            axis.plot(range(len(values)), values, color=f"C{index}", marker="o", lw=1, label=label)
    for start in (0.01, 0.3):
        axis.axhline(start, color="grey", linestyle=":", lw=1)
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("layer")
    axis.set_ylabel("alpha")
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def gates_figure(gates: Mapping[str, Any]) -> Figure:
    """Deviation of the gates over positions, by the order of the expert."""
    figure, axis = plt.subplots(figsize=(5, 3.4))
    orders = list(gates["simplex"])
    for index, gate in enumerate(("simplex", "constant")):
        places = np.arange(len(orders)) + 0.4 * index - 0.2
        axis.bar(places, [gates[gate][k]["gate_std"] for k in orders], width=0.4, label=gate)
    axis.set_xticks(range(len(orders)), [f"k = {k}" for k in orders])
    axis.set_xlabel("expert")
    axis.set_ylabel("deviation of the gate over positions")
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def check_figure(check: Mapping[str, Any], layers: Sequence[float]) -> Figure:
    """The CV by the number of coordinates, beside Gaussian points, and what is called healthy."""
    figure, axis = plt.subplots(figsize=(6, 3.8))
    axis.axhspan(0.16, 0.26, color="grey", alpha=0.25, lw=0)
    axis.plot(check["dims"], check["by dims"], marker="o", label="embedding")
    axis.plot(check["dims"], check["by dims null"], "--", color="black", label="Gaussian points")
    axis.plot([8] * len(layers), layers, "x", color="C3", label="layers")
    axis.set_xscale("log", base=2)
    axis.set_xlabel("coordinates read")
    axis.set_ylabel("CV of volumes")
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure
