"""Pictures of definitions beside WordNet; every function returns a Figure."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Readings = Mapping[str, Any]
KINDS = {"static": "C0", "encoder": "C1", "bag": "C2", "jaccard": "C3"}
LARGEST = 15  # clusters shown, as published


def alignment_figure(own: Readings, twin: Readings) -> Figure:
    """Cosine by path similarity, correlations of every reader, and clusters' intra cosines."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), width_ratios=(1, 1.1, 1.3))
    for form, marker in (("all", "o-"), ("nouns", "s--")):
        similarity, means, deviations, _ = np.array(own["scatter"][form]).T
        axes[0].errorbar(similarity, means, deviations, fmt=marker, ms=4, lw=1, label=form)
    axes[0].set_xscale("log")
    axes[0].set_xlabel("path similarity")
    axes[0].set_ylabel("cosine of encodings")
    axes[0].legend(fontsize=8)
    _correlations(axes[1], own, twin)
    _clusters(axes[2], own["clusters"]["random"])
    figure.tight_layout()
    return figure


def _correlations(axis: Axes, own: Readings, twin: Readings) -> None:
    forms = {"pearson": "all pairs", "nouns": "nouns", "partial": "given parts of speech"}
    readers = {name: own[name] for name in KINDS} | {"untrained encoder": twin["encoder"]}
    places = np.arange(len(forms))
    for index, (name, readings) in enumerate(readers.items()):
        axis.bar(
            places + 0.16 * (index - 2),
            [readings[form] for form in forms],
            0.16,
            yerr=[1.96 * readings["bootstrap deviation"], 0, 0],
            color=KINDS.get(name, "0.6"),
            label=name,
        )
    axis.axhline(0, color="k", lw=0.8)
    axis.set_xticks(places, list(forms.values()), fontsize=8)
    axis.set_ylabel("Pearson with path similarity")
    axis.legend(fontsize=8)


def _clusters(axis: Axes, clusters: Readings) -> None:
    largest = sorted(clusters, key=lambda name: -clusters[name]["words"])[:LARGEST]
    places = np.arange(len(largest))
    for index, kind in enumerate(("static", "encoder", "bag")):
        axis.bar(
            places + 0.27 * (index - 1),
            [clusters[name][kind] for name in largest],
            0.27,
            color=KINDS[kind],
            label=kind,
        )
    axis.set_xticks(places, largest, rotation=60, ha="right", fontsize=7)
    axis.set_ylabel("mean cosine within")
    axis.legend(fontsize=8)


def decay_figure(own: Readings) -> Figure:
    """Mean cosine with ancestors, by rank among the matched ones and by edges."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
    for axis, form, label in (
        (axes[0], "published", "matched ancestor"),
        (axes[1], "by edges", "edges to the ancestor"),
    ):
        for name, chain in own["chains"][form].items():
            color = KINDS.get(name, "0.6")
            axis.plot(chain["depths"], chain["means"], "o-", ms=4, color=color, label=name)
        axis.set_xlabel(label)
    axes[0].set_ylabel("mean cosine")
    axes[1].legend(fontsize=8)
    figure.tight_layout()
    return figure


def stability_figure(own: Readings) -> Figure:
    """Correlations of every seed beside the exact ones with their deviations."""
    figure, axis = plt.subplots(figsize=(5.4, 3.4))
    for index, kind in enumerate(("static", "encoder")):
        values, exact = own["seeds"][f"{kind} pearson"], own["exact"][kind]
        spread = np.random.default_rng(0).uniform(-0.2, 0.2, len(values))
        axis.plot(index + spread, values, ".", color=KINDS[kind])
        low, high = (exact["pearson"] + sign * 1.96 * exact["deviation"] for sign in (-1, 1))
        axis.fill_between([index - 0.35, index + 0.35], low, high, color=KINDS[kind], alpha=0.25)
        axis.plot([index - 0.35, index + 0.35], [exact["pearson"]] * 2, color=KINDS[kind])
    shuffled = own["exact"]["shuffled"]
    axis.axhline(shuffled["pearson"], color="0.6", lw=1)
    axis.set_xticks([0, 1], ["static", "encoder"])
    axis.set_ylabel("Pearson with path similarity")
    figure.tight_layout()
    return figure
