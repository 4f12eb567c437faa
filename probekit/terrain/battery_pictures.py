"""The write-up's picture of a model's weights, its random twin in grey."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .batteries import pooled, table

Readings = Mapping[str, Any]
GREY = "0.6"


def battery_figure(own: Readings, twin: Readings) -> Figure:
    """Ranks, condition, sparsity, circuits, the published product, cosines, neurons, norms."""
    figure, grid = plt.subplots(2, 4, figsize=(15, 6.8))
    axes = grid.flat
    _by_layer(axes[0], own, twin, "stable_rank", "stable rank / a Gaussian's", relative=True)
    _by_layer(axes[1], own, twin, "log10_condition", "log10 condition")
    _sparsity(axes[2], own, twin)
    _circuits(axes[3], own, twin)
    for readings, color in ((twin, GREY), (own, "C0")):
        rows = table(dict(readings), "published_qk")
        if len(rows):
            axes[4].plot(rows["positive_fraction"].to_numpy(), "o-", color=color, ms=4)
            axes[4].axhline(rows["positive_fraction_null"].iloc[0], color="k", ls="--", lw=0.8)
    axes[4].set_xlabel("attention")
    axes[4].set_title("published product: positive share", fontsize=9)
    _across(axes[5], own)
    for readings, color in ((twin, GREY), (own, "C0")):
        rows = table(dict(readings), "neurons")
        if len(rows):
            axes[6].semilogy(rows["cv"].to_numpy(), "o-", color=color, ms=4)
            axes[6].semilogy(rows["cv_null"].to_numpy(), "k--", lw=0.8)
    axes[6].set_xlabel("MLP")
    axes[6].set_title("CV of neurons' importance", fontsize=9)
    norms = table(dict(own), "norms")
    axes[7].errorbar(range(len(norms)), norms["mean"], norms["std"], fmt="o", ms=4, lw=1)
    axes[7].axhline(1, color="k", ls="--", lw=0.8)
    axes[7].set_xlabel("norm")
    axes[7].set_title("scales of norms, mean and deviation", fontsize=9)
    figure.tight_layout()
    return figure


def _by_layer(
    axis: Axes, own: Readings, twin: Readings, column: str, title: str, relative: bool = False
) -> None:
    for readings, alpha in ((twin, 0.0), (own, 1.0)):
        rows = table(dict(readings), "spectra")
        for index, (type, group) in enumerate(rows.groupby("type", sort=False)):
            values = group[column] / group[f"{column}_null"] if relative else group[column]
            color = f"C{index}" if alpha else GREY
            label = str(type) if alpha else None
            axis.plot(values.to_numpy(), "-", color=color, lw=1.2, label=label)
    if relative:
        axis.axhline(1, color="k", ls="--", lw=0.8)
    axis.set_xlabel("layer")
    axis.set_title(title, fontsize=9)
    axis.legend(fontsize=7, ncols=2)


def _sparsity(axis: Axes, own: Readings, twin: Readings) -> None:
    types = [row["type"] for row in own["sparsity_pooled"] if row["stack"] == "all"]
    places = np.arange(len(types))
    for offset, readings, column, color, label in (
        (-0.3, own, "below_0.1", "C0", "below 0.1"),
        (-0.1, twin, "below_0.1", "0.75", "the same, twin"),
        (0.1, own, "below_rms", "C1", "below rms / 10"),
        (0.3, twin, "below_rms", "0.55", "the same, twin"),
    ):
        values = [pooled(dict(readings), "sparsity_pooled", type, column) for type in types]
        axis.bar(places + offset, values, 0.2, color=color, label=label)
    axis.axhline(0.0797, color="k", ls="--", lw=0.8)
    axis.set_xticks(places, types, rotation=60, fontsize=7)
    axis.set_title("sparsity", fontsize=9)
    axis.set_ylim(0, 1.45)  # room for the legend
    axis.legend(fontsize=7, ncols=2)


def _circuits(axis: Axes, own: Readings, twin: Readings) -> None:
    for readings, color, shift in ((twin, GREY, 0.15), (own, "C0", -0.15)):
        rows = table(dict(readings), "qk")
        if not len(rows):
            continue
        place = rows.groupby(["stack", "attention", "layer"], sort=False).ngroup()
        axis.plot(place + shift, rows["score"], ".", color=color, ms=5)
        chance = 3 * rows["score_null_sd"].iloc[0]
        axis.axhspan(-chance, chance, color=GREY, alpha=0.15)
    axis.axhline(0, color="k", lw=0.8)
    axis.set_xlabel("attention")
    axis.set_title("circuit score of each head", fontsize=9)


def _across(axis: Axes, own: Readings) -> None:
    """z of queries' cosines, by pair of layers of the first stack."""
    rows = table(dict(own), "layers", type="q")
    if not len(rows):
        axis.set_axis_off()
        return
    rows = rows[rows["stack"] == rows["stack"].iloc[0]]
    size = int(rows["other_layer"].max()) + 1
    z = np.full((size, size), np.nan)
    for row in rows.itertuples():
        z[int(row.layer), int(row.other_layer)] = z[int(row.other_layer), int(row.layer)] = row.z
    largest = max(3.0, np.nanmax(np.abs(z)))
    image = axis.imshow(z, cmap="RdBu", vmin=-largest, vmax=largest)
    axis.figure.colorbar(image, ax=axis)
    axis.set_title("cosine of queries across layers, z", fontsize=9)
