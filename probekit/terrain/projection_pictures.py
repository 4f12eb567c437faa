"""A picture of one table mapped onto another."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..geometry.cosines import PERCENTILES


def projection_figure(readings: Mapping[str, Any]) -> Figure:
    """Quantiles of held-out cosines, each cosine beside its null, and the residual's spectrum."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    alignment, relations = readings["alignment"], readings["relations"]
    axes[0].plot(alignment["quantiles"], PERCENTILES, "o-", ms=4)
    axes[0].axvline(alignment["null"]["cosine"], color="k", ls="--", lw=0.8)
    axes[0].set_xlabel("cosine of held-out rows")
    axes[0].set_ylabel("share below")
    shown = {
        "cosine": (alignment["cosine"], alignment["null"]["cosine"]),
        **{
            name: (alignment[name], alignment["null"][name])
            for name in ("centred cosine, fitted", "centred cosine, held out")
        },
        "r of pairs": (relations["r"], relations["null"]["r"]),
    }
    places = np.arange(len(shown))
    axes[1].bar(places - 0.2, [own for own, _ in shown.values()], 0.4, label="measured")
    axes[1].bar(places + 0.2, [null for _, null in shown.values()], 0.4, color="0.6", label="null")
    axes[1].set_xticks(places, [name.replace(", ", ",\n") for name in shown], fontsize=7)
    axes[1].axhline(0, color="k", lw=0.8)
    axes[1].legend(fontsize=8)
    axes[2].semilogy(readings["residual"]["eigenvalues"])
    axes[2].set_xlabel("eigenvalue of the residual")
    figure.tight_layout()
    return figure
