"""The terrain write-up's picture of a model, its random twin beside it everywhere."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Readings = Mapping[str, Any]
GREY = "0.6"


def terrain_figure(own: Readings, twin: Readings) -> Figure:
    """Norms, cosines, spectrum, volumes, digits, categories, and norms and cosines by layer."""
    figure, grid = plt.subplots(2, 4, figsize=(14, 6.4))
    axes = grid.flat
    _histograms(axes[0], own, twin, "norm", "norm of a row")
    _histograms(axes[1], own, twin, "cosine", "cosine of two rows")
    for readings, color, label in ((own, "C0", "pretrained"), (twin, GREY, "random twin")):
        axes[2].semilogy(readings["histograms"]["eigenvalues"], color=color, label=label)
    axes[2].set_xlabel("eigenvalue of the covariance")
    axes[2].legend(fontsize=8)
    _histograms(axes[3], own, twin, "volume over Gaussian mean", "volume / mean Gaussian volume")
    _digits(axes[4], own["digits"])
    _categories(axes[5], own["categories"])
    for axis, name, title in (
        (axes[6], "norm_mean", "norm of a token"),
        (axes[7], "cosine_mean", "cosine of two tokens"),
    ):
        for form, style in (("published", "o:"), ("raw", "o-")):
            axis.plot(own["layers"][form][name], style, color="C0", ms=4, label=form)
            axis.plot(twin["layers"][form][name], style, color=GREY, ms=4)
        axis.set_xlabel("blocks passed")
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _histograms(axis: Axes, own: Readings, twin: Readings, name: str, label: str) -> None:
    for readings, color, alpha in ((twin, GREY, 0.6), (own, "C0", 0.6)):
        found = readings["histograms"][name]
        axis.stairs(found["density"], found["edges"], fill=True, color=color, alpha=alpha)
    # A twin's spike would leave the model's own curve flat.
    axis.set_ylim(0, 1.6 * max(own["histograms"][name]["density"]))
    axis.set_xlabel(label)
    axis.set_yticks([])


def _digits(axis: Axes, digits: Readings) -> None:
    walk, spread = digits["null"]["walk"], digits["null"]["walk's deviation"]
    deviation = digits["null"]["deviation"]
    axis.axhspan(-2 * deviation, 2 * deviation, color=GREY, alpha=0.4, label="independent rows")
    axis.axhspan(walk - 2 * spread, walk + 2 * spread, color="C1", alpha=0.4, label="random walks")
    names = ("pearson", "spearman")
    axis.bar(names, [digits[name] for name in names], width=0.5, color="C0")
    axis.axhline(0, color="k", lw=0.8)
    axis.set_ylim(-1, 1)
    axis.set_title("digits: cosine against |i - j|", fontsize=9)
    axis.legend(fontsize=8)


def _categories(axis: Axes, categories: Readings) -> None:
    places = np.arange(len(categories))
    found = list(categories.values())
    axis.barh(places - 0.2, [each["z"] for each in found], 0.4, color="C0", label="category")
    axis.barh(
        places + 0.2, [each["matched z"] for each in found], 0.4, color=GREY, label="equal rank"
    )
    axis.set_yticks(places, list(categories), fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("centred lift, deviations of random sets")
    axis.legend(fontsize=8)
