"""Pictures of a modulator beside its controls; every function returns a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plotting import PALETTE
from .modulation import MODULATED
from .resampling import difference

Readings = Mapping[str, Any]
LABELS = {
    "pearson": "Pearson with path similarity",
    "nouns": "Pearson of pairs of nouns",
    "gradient": "gradient of mean cosines",
    "preservation": "cosine with the original",
}
BLUE, VERMILION, GREEN, PINK = PALETTE[:4]
#: Colour, mark and line of the kinds that have curves.
STYLES = {
    MODULATED: (VERMILION, "o", "-"),
    "shrink-only": (BLUE, "s", "--"),
    "permuted": (PINK, "^", ":"),
    "zero unmatched": (GREEN, "D", "-."),
}
PLAIN = ("0.4", "o", "-")


def controls_figure(curves: Mapping[str, Readings], alpha: float) -> Figure:
    """The modulator less each control at one alpha, with intervals."""
    figure, axes = plt.subplots(2, 2, figsize=(8, 6.6), sharey=True)
    controls = [kind for kind in curves if kind != MODULATED]
    for axis, (name, label) in zip(axes.flat, LABELS.items(), strict=True):
        for place, kind in enumerate(controls):
            value, low, high = difference(curves[MODULATED], curves[kind], name, alpha)
            colour, mark, _ = STYLES.get(kind, PLAIN)
            axis.plot([low, high], [place, place], color=colour, lw=2)
            axis.plot(value, place, mark, color=colour, ms=5)
        axis.axvline(0, color="k", lw=0.8)
        axis.set_xlabel(label)
        axis.tick_params(axis="x", labelsize=9)
        axis.locator_params(axis="x", nbins=5)
    axes[0, 0].set_yticks(range(len(controls)), controls)
    axes[0, 0].invert_yaxis()
    figure.suptitle(f"modulated less each control, alpha = {alpha}", fontsize=11)
    figure.tight_layout()
    return figure


def geometry_figure(run: Readings) -> Figure:
    """Fits beside their nulls, cosines by band, and the stream's length by layer."""
    figure, axes = plt.subplot_mosaic([["fit", "fit"], ["bands", "length"]], figsize=(8.5, 7))
    _fits(axes["fit"], run["geometry"])
    _bands(axes["bands"], run["bands"])
    axis, norms = axes["length"], run["geometry"]["stream norms"]
    axis.plot(range(len(norms)), norms, "o-", color=BLUE, label="residual stream")
    axis.axhline(run["geometry"]["length"], color="k", ls="--", lw=0.8, label="pooled encodings")
    axis.set_ylim(0)
    axis.set_xlabel("before block")
    axis.set_ylabel("mean length")
    axis.legend(fontsize=9)
    figure.tight_layout()
    return figure


def _fits(axis: Axes, geometry: Readings) -> None:
    fit, given = geometry["alignment"], geometry["reconstruction"]
    shown = {
        "alignment,\npublished": (fit["cosine"], fit["shuffled"]),
        "alignment,\ncentred": (fit["centred"], fit["null"]),
        "alignment,\nheld out": (fit["held_out"], fit["held_out_shuffled"]),
        "reconstruction": (given["r"], given["null"]),
    }
    places = np.arange(len(shown))
    own, null = zip(*shown.values(), strict=True)
    axis.bar(places - 0.2, own, 0.4, color=BLUE, label="measured")
    axis.bar(places + 0.2, null, 0.4, color="0.65", label="null")
    axis.set_xticks(places, list(shown))
    axis.set_ylabel("mean cosine; of pairs, r")
    axis.axhline(0, color="k", lw=0.8)
    axis.legend(fontsize=9)


def _bands(axis: Axes, bands: Sequence[Readings]) -> None:
    styles = {"static": (BLUE, "s--"), "original": ("k", "o-"), MODULATED: (VERMILION, "x:")}
    places = np.arange(len(bands))
    for name, (colour, style) in styles.items():
        values = [band[name] for band in bands]
        axis.plot(places, values, style, color=colour, ms=6, label=name)
    axis.set_xticks(places, [f"from {band['from']:g}\n({band['pairs']})" for band in bands])
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("path similarity (pairs)")
    axis.set_ylabel("mean cosine")
    axis.legend(fontsize=9)


def phase_figure(curves: Mapping[str, Readings], constants: Sequence[float]) -> Figure:
    """Every measure along alpha, of the modulator and its controls, and where each curve bends.

    Below the curves: each one's best bend with its interval, hollow where the curve is smooth.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 8))
    whole = {kind: curve for kind, curve in curves.items() if "bends" in curve}
    for axis, (name, label) in zip(axes.flat, LABELS.items(), strict=True):
        printed = ", ".join(map(str, constants))
        for constant in constants:
            axis.axvline(constant, color="k", lw=0.7, ls=":", label=printed)
            printed = None  # once in the legend
        for place, (kind, curve) in enumerate(whole.items()):
            colour, mark, line = STYLES.get(kind, PLAIN)
            if kind == MODULATED:
                draws = np.array(curve["resampled"][name])
                low, high = np.quantile(draws, [0.025, 0.975], axis=0)
                axis.fill_between(curve["alphas"], low, high, color=colour, alpha=0.15, lw=0)
            style = {"color": colour, "marker": mark, "ls": line, "lw": 1.4, "ms": 3.5}
            axis.plot(curve["alphas"], curve[name], **style, label=kind)
            _bend(axis, curve["bends"][name], place, colour, mark)
        axis.set_ylabel(label)
        axis.set_xlabel("alpha")
    shown = axes[0, 0].get_legend_handles_labels()
    figure.legend(*shown, loc="upper center", ncols=len(shown[0]), fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    return figure


def _bend(axis: Axes, bend: Readings, place: int, colour: str, mark: str) -> None:
    """In axis units from below: a tenth of the axis is left free for four of them."""
    height = 0.17 - 0.035 * place
    face = colour if bend["sharper"] else "white"
    style = {"color": colour, "transform": axis.get_xaxis_transform(), "clip_on": False}
    axis.plot([bend["low"], bend["high"]], [height] * 2, lw=1.5, **style)
    axis.plot(bend["at"], height, mark, ms=6, markerfacecolor=face, **style)
