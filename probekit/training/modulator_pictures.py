"""Pictures of a modulator's training; every function returns a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .outcome import t_interval

Run = Mapping[str, Any]
CONSTANTS = (0.29154, 0.5)  # where the write-up says that alpha ends
TICKS = (0.003, 0.01, 0.03, 0.1, 0.29154, 0.5, 0.8)


def alpha_figure(runs: Mapping[float, Sequence[Run]]) -> Figure:
    """Alpha of every layer by batch, on a logit scale, before the band that its start can reach.

    Args:
        runs: by start; each has ``alpha`` [reading, layer] and ``band`` [reading, 2] after the
            batches ``at``.
    """
    figure, axis = plt.subplots(figsize=(8.4, 4.6))
    for index, (start, each) in enumerate(runs.items()):
        color, (low, high) = f"C{index}", np.array(each[0]["band"]).T
        axis.fill_between(each[0]["at"], _logit(low), _logit(high), color=color, alpha=0.12, lw=0)
        for run in each:
            axis.plot(run["at"], _logit(np.array(run["alpha"])), color=color, lw=0.8)
        label = f"from {start:g}: {low[-1]:.3g} to {high[-1]:.3g}"
        axis.plot([], [], color=color, label=label)
    _mark(axis)
    axis.set_xlabel("batches")
    where = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axis.legend(fontsize=8, title="reach of the schedule", title_fontsize=8, **where)
    figure.tight_layout()
    return figure


def loss_figure(runs: Mapping[str, Sequence[Run]]) -> Figure:
    """Losses by epoch, and the word's own likelihood on what is held out, by objective."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for index, (name, each) in enumerate(runs.items()):
        for run in each:
            epochs = run["epochs"]
            color, places = f"C{index}", range(len(epochs))
            label = name if run is each[0] else None
            train = [np.nan if row["train_loss"] is None else row["train_loss"] for row in epochs]
            axes[0].plot(places, train, "--", color=color, lw=1)
            axes[0].plot(places, [r["val_loss"] for r in epochs], color=color, lw=1, label=label)
            axes[1].plot(places, [row["lemma_nll"] for row in epochs], color=color, lw=1)
    axes[0].set_ylabel("loss (nats): dashed of the batches")
    axes[0].set_yscale("log")
    axes[1].set_ylabel("held out: NLL of the word (nats)")
    for axis in axes:
        axis.set_xlabel("epochs")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def ends_figure(runs: Mapping[float, Sequence[Run]]) -> Figure:
    """Final alpha of each layer by start: points, intervals over runs, and the reach behind."""
    figure, axis = plt.subplots(figsize=(7.6, 4))
    for index, (start, each) in enumerate(runs.items()):
        low, high = _logit(np.array(each[0]["band"][-1]))
        axis.bar(index, high - low, 0.8, low, color=f"C{index}", alpha=0.15)
        axis.plot([index - 0.4, index + 0.4], [_logit(start)] * 2, color=f"C{index}", lw=1)
        ends = _logit(np.array([run["alpha"][-1] for run in each]))
        places = index + np.linspace(-0.3, 0.3, ends.shape[1])
        for layer, place in enumerate(places):
            axis.plot([place] * len(ends), ends[:, layer], ".", color=f"C{index}", ms=5)
            if len(ends) > 1:
                axis.plot([place] * 2, t_interval(ends[:, layer]), color="k", lw=1)
    _mark(axis)
    axis.set_xticks(range(len(runs)), [f"from {start:g}" for start in runs])
    axis.set_xlabel("start; a column of points a layer")
    figure.tight_layout()
    return figure


def silence_figure(losses: Mapping[str, Sequence[float]]) -> Figure:
    """The whole host trained on each loss without its encoder."""
    figure, axis = plt.subplots(figsize=(5, 3.4))
    for name, each in losses.items():
        axis.plot(each, label=name, lw=1)
    axis.set_yscale("log")
    axis.set_xlabel("batch")
    axis.set_ylabel("loss without an encoder (nats)")
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _mark(axis: Axes) -> None:
    for constant in CONSTANTS:
        axis.axhline(_logit(constant), color="0.3", lw=0.8, ls=":")
    axis.set_yticks([_logit(tick) for tick in TICKS], [f"{tick:g}" for tick in TICKS])
    axis.set_ylabel("alpha")


def _logit(alpha: Any) -> Any:
    return np.log(alpha) - np.log1p(-np.asarray(alpha))
