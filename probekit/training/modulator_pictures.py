"""Pictures of a modulator's training; every function returns a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ..plotting import series_style
from .outcome import t_interval

Run = Mapping[str, Any]
CONSTANTS = (0.29154, 0.5)  # where the write-up says that alpha ends
TICKS = (0.003, 0.01, 0.03, 0.1, 0.29154, 0.5, 0.8)
LEAST = 1e-9  # a loss, in pictures on a logarithmic scale


def alpha_figure(runs: Mapping[float, Sequence[Run]]) -> Figure:
    """Alpha of every layer by batch, on a logit scale, before the band that its start can reach.

    Args:
        runs: by start; each has ``alpha`` [reading, layer] and ``band`` [reading, 2] after the
            batches ``at``.
    """
    figure, axis = plt.subplots(figsize=(7.2, 5.4))
    for index, (start, each) in enumerate(runs.items()):
        style: dict[str, Any] = series_style(index) | {"marker": ""}
        low, high = np.array(each[0]["band"]).T
        shade = {"color": style["color"], "alpha": 0.15, "lw": 0}
        axis.fill_between(each[0]["at"], _logit(low), _logit(high), **shade)
        for run in each:
            axis.plot(run["at"], _logit(np.array(run["alpha"])), lw=1, **style)
        label = f"from {start:g}: {low[-1]:.3g} to {high[-1]:.3g}"
        axis.plot([], [], label=label, **style)
    _mark(axis)
    axis.set_xlabel("batches")
    where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
    axis.legend(fontsize=9, title="reach of equal steps", title_fontsize=9, **where)
    figure.tight_layout()
    return figure


def loss_figure(runs: Mapping[str, Sequence[Run]]) -> Figure:
    """Losses by epoch, and the word's own likelihood on what is held out, by objective."""
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 4.4))
    for index, (name, each) in enumerate(runs.items()):
        style: dict[str, Any] = series_style(index) | {"ms": 3.5, "lw": 1}
        for run in each:
            epochs = run["epochs"]
            places, label = range(len(epochs)), name if run is each[0] else None
            train = [np.nan if row["train_loss"] is None else row["train_loss"] for row in epochs]
            axes[0].plot(places, train, **style | {"linestyle": ":"})
            held_out = style | {"linestyle": "-"}
            axes[0].plot(places, [row["val_loss"] for row in epochs], **held_out, label=label)
            axes[1].plot(places, [row["lemma_nll"] for row in epochs], **held_out)
    low, high = axes[0].get_ylim()
    if high > 5 * max(low, 0.2):  # hosts whose losses are of one size need no logarithm
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("loss (nats a token)\nline: held out; dotted: batches")
    axes[1].set_ylabel("held out: NLL of the word (nats)")
    for axis in axes:
        axis.set_xlabel("epochs")
    shown = axes[0].get_legend_handles_labels()
    figure.legend(*shown, loc="upper center", ncols=3, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.88))
    return figure


def ends_figure(runs: Mapping[float, Sequence[Run]]) -> Figure:
    """Final alpha of each layer by start: points, intervals over runs, and the reach behind."""
    figure, axis = plt.subplots(figsize=(7.2, 4.2))
    axis.use_sticky_edges = False
    for index, (start, each) in enumerate(runs.items()):
        color, (low, high) = series_style(index)["color"], _logit(np.array(each[0]["band"][-1]))
        axis.bar(index, high - low, 0.8, low, color=color, alpha=0.2)
        axis.plot([index - 0.4, index + 0.4], [_logit(start)] * 2, color=color, lw=1)
        ends = _logit(np.array([run["alpha"][-1] for run in each]))
        places = index + np.linspace(-0.3, 0.3, ends.shape[1])
        for layer, place in enumerate(places):
            axis.plot([place] * len(ends), ends[:, layer], "o", color=color, ms=4)
            if len(ends) > 1:
                axis.plot([place] * 2, t_interval(ends[:, layer]), color="k", lw=1)
    _mark(axis)
    axis.set_xticks(range(len(runs)), [f"from {start:g}" for start in runs])
    axis.set_xlabel("start; a column of points a layer")
    figure.tight_layout()
    return figure


def silence_figure(losses: Mapping[str, Sequence[float]]) -> Figure:
    """The whole host trained on each loss without its encoder; below 1e-9 drawn there."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for index, (name, each) in enumerate(losses.items()):
        style: dict[str, Any] = series_style(index) | {"marker": ""}
        axis.plot(np.maximum(each, LEAST), lw=1.2, label=name, **style)
    axis.set_yscale("log")
    axis.set_ylim(LEAST / 3, 1e4)  # room for the legend above the curves
    axis.set_xlabel("batch")
    axis.set_ylabel("loss without an encoder (nats)")
    axis.legend(fontsize=9, loc="upper right", ncols=2)
    figure.tight_layout()
    return figure


def _mark(axis: Axes) -> None:
    for constant in CONSTANTS:
        axis.axhline(_logit(constant), color="0.3", lw=0.8, ls=":")
    low, high = axis.get_ylim()
    shown = [tick for tick in TICKS if low <= _logit(tick) <= high]
    axis.set_yticks([_logit(tick) for tick in shown], [f"{tick:g}" for tick in shown])
    axis.set_ylabel("alpha")


def _logit(alpha: Any) -> Any:
    return np.log(alpha) - np.log1p(-np.asarray(alpha))
