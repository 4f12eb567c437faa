"""Pictures of a modulator beside its controls; every function returns a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .modulation import MODULATED
from .resampling import difference

Readings = Mapping[str, Any]
MEASURES = {
    "pearson": "Pearson with path similarity",
    "nouns": "Pearson of pairs of nouns",
    "gradient": "gradient of mean cosines",
    "preservation": "cosine with the original",
}
COLOURS = {MODULATED: "C3", "shrink-only": "C0", "permuted": "C2", "zero unmatched": "C1"}


def controls_figure(curves: Mapping[str, Readings], alpha: float) -> Figure:
    """The modulator less each control at one alpha, with intervals."""
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(13, 3.2), sharey=True)
    controls = [kind for kind in curves if kind != MODULATED]
    for axis, (name, label) in zip(axes, MEASURES.items(), strict=True):
        for place, kind in enumerate(controls):
            value, low, high = difference(curves[MODULATED], curves[kind], name, alpha)
            axis.plot([low, high], [place, place], color=COLOURS.get(kind, "0.4"))
            axis.plot(value, place, "o", color=COLOURS.get(kind, "0.4"))
        axis.axvline(0, color="k", lw=0.8)
        axis.set_xlabel(label, fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_yticks(range(len(controls)), controls)
    axes[0].invert_yaxis()
    figure.suptitle(f"modulated less each control, alpha = {alpha}", fontsize=10)
    figure.tight_layout()
    return figure


def geometry_figure(run: Readings) -> Figure:
    """Fits beside their nulls, cosines by band, and the stream's length by layer."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6))
    geometry, bands = run["geometry"], run["bands"]
    fit, given = geometry["alignment"], geometry["reconstruction"]
    shown = {
        "alignment,\npublished": (fit["cosine"], fit["shuffled"]),
        "centred": (fit["centred"], fit["null"]),
        "held out": (fit["held_out"], fit["held_out_shuffled"]),
        "reconstruction": (given["r"], given["null"]),
    }
    places = np.arange(len(shown))
    axes[0].bar(places - 0.2, [own for own, _ in shown.values()], 0.4, label="measured")
    axes[0].bar(places + 0.2, [null for _, null in shown.values()], 0.4, color="0.6", label="null")
    axes[0].set_xticks(places, list(shown), fontsize=8)
    axes[0].axhline(0, color="k", lw=0.8)
    axes[0].legend(fontsize=8)
    styles = {"static": "C0s--", "original": "C1o-", MODULATED: "C3x:"}
    places = np.arange(len(bands))
    for name, style in styles.items():
        axes[1].plot(places, [band[name] for band in bands], style, ms=5, label=name)
    axes[1].set_xticks(places, [f"from {band['from']:g}\n({band['pairs']})" for band in bands])
    axes[1].tick_params(axis="x", labelsize=8)
    axes[1].set_xlabel("path similarity (pairs)")
    axes[1].set_ylabel("mean cosine")
    axes[1].legend(fontsize=8)
    norms = geometry["stream norms"]
    axes[2].plot(range(len(norms)), norms, "o-", label="residual stream")
    axes[2].axhline(geometry["length"], color="k", ls="--", lw=0.8, label="pooled encodings")
    axes[2].set_ylim(0)
    axes[2].set_xlabel("before block")
    axes[2].set_ylabel("mean length")
    axes[2].legend(fontsize=8)
    figure.tight_layout()
    return figure


def phase_figure(curves: Mapping[str, Readings], constants: Sequence[float]) -> Figure:
    """Every measure along alpha, of the modulator and its controls, and where each curve bends.

    Below the curves: each one's best bend with its interval, hollow where the curve is smooth.
    """
    figure, axes = plt.subplots(2, 2, figsize=(12, 8))
    whole = {kind: curve for kind, curve in curves.items() if "bends" in curve}
    for axis, (name, label) in zip(axes.flat, MEASURES.items(), strict=True):
        printed = ", ".join(map(str, constants))
        for constant in constants:
            axis.axvline(constant, color="k", lw=0.7, ls=":", label=printed)
            printed = None  # once in the legend
        for place, (kind, curve) in enumerate(whole.items()):
            colour = COLOURS.get(kind, "0.4")
            if kind == MODULATED:
                draws = np.array(curve["resampled"][name])
                low, high = np.quantile(draws, [0.025, 0.975], axis=0)
                axis.fill_between(curve["alphas"], low, high, color=colour, alpha=0.15, lw=0)
            axis.plot(curve["alphas"], curve[name], ".-", color=colour, lw=1.2, ms=4, label=kind)
            _bend(axis, curve["bends"][name], place, colour)
        axis.set_ylabel(label)
        axis.set_xlabel("alpha")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def _bend(axis: Axes, bend: Readings, place: int, colour: str) -> None:
    """In axis units from below: a tenth of the axis is left free for four of them."""
    height = -0.03 - 0.035 * place
    across = axis.get_xaxis_transform()
    face = colour if bend["sharper"] else "none"
    style = {"color": colour, "transform": across, "clip_on": False}
    axis.plot([bend["low"], bend["high"]], [height + 0.2] * 2, lw=1.5, **style)
    axis.plot(bend["at"], height + 0.2, "o", ms=6, markerfacecolor=face, **style)
