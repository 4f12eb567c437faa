"""Tables and figures of hybrids under noise, and of attention behind noise, each with its nulls.

``transfer`` and ``rerouting`` are what the recipe's two experiments read, gathered over seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..tables import Table, interval_rows
from .swap_pictures import Marks, grouped_bars, swap_figure
from .transfer import recoveries


def transfer_tables(
    results: Mapping[str, Any], titles: Mapping[str, str], seeds: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """Accuracies of the networks and of hybrids, what hybrids recovered, and leaks.

    Args:
        titles: of the sigmas, the last of which the advantage is measured under.
    """
    transfer = results["transfer"]
    networks = {**transfer["alone"], "repeated sequences": results["rerouting"]["accuracy"]}
    alone = {
        network: {titles[sigma]: values for sigma, values in row.items()}
        for network, row in networks.items()
    }
    tables: dict[str, Any] = {"accuracy": interval_rows(alone, "network")}
    for sigma, table in transfer["swaps"].items():
        tables[f"accuracy of hybrids, {titles[sigma]}"] = interval_rows(table, "swapped")
    sigma = list(titles)[-1]
    ratios = {
        part: {donor: recoveries(transfer, part, donor, sigma) for donor in row}
        for part, row in transfer["swaps"][sigma].items()
    }
    tables["recovery ratio"] = interval_rows(ratios, "swapped")
    tables["is the answer among the inputs?"] = [
        {"experiment": name, "seed": seed, "found": words}
        for name, found in results.items()
        for seed, words in zip(seeds, found["leak"], strict=True)
    ]
    return tables


def transfer_figure(
    transfer: Mapping[str, Any], titles: Mapping[str, str], published: Marks
) -> Figure:
    """Accuracy of hybrids by part and donor, a panel a sigma."""
    swaps = {title: transfer["swaps"][sigma] for sigma, title in titles.items()}
    own = {t: float(np.mean(transfer["alone"]["baseline"][s])) for s, t in titles.items()}
    figure = swap_figure(swaps, own, float(np.mean(transfer["chance"])), published)
    lines = [
        axis.axhline(float(np.mean(transfer["alone"]["hardened"][sigma])), ls="-.", lw=1)
        for axis, sigma in zip(figure.axes, titles, strict=True)
    ]
    figure.axes[-1].legend(lines[:1], ["hardened, no swap"], fontsize=8, loc="center right")
    return figure


def rerouting_tables(rerouting: Mapping[str, Any]) -> dict[str, Table]:
    """Cohen's d by metric, and cosines of layer 1's patterns by what was averaged first."""
    trained, untrained = rerouting["trained"], rerouting["untrained"]
    similar = {
        average: {
            "with noise": trained["similarity"]["layer 1"][average],
            "other inputs": trained["other inputs"]["layer 1"][average],
            "untrained, with noise": untrained["similarity"]["layer 1"][average],
            "trained and untrained": cosines,
            "layer 0, with noise": trained["similarity"]["layer 0"][average],
        }
        for average, cosines in rerouting["trained and untrained"].items()
    }
    effects = {
        what: {"trained": d, "untrained": untrained["d"][what]} for what, d in trained["d"].items()
    }
    return {"Cohen's d over examples": effects, "cosine of layer 1's patterns": similar}


def rerouting_figure(tables: Mapping[str, Table], accepted: float, published: Marks) -> Figure:
    """Cohen's d by metric (groups) and network; cosines of patterns by average and comparison.

    Args:
        tables: of :func:`rerouting_tables`.
        accepted: the bound of |d| that was stated beforehand, shaded.
        published: cosines.
    """
    effects, similarities = tables.values()
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 6.4))
    grouped_bars(above, effects)
    above.axhspan(-accepted, accepted, color="C2", alpha=0.3, lw=0, label="criterion")
    above.axhline(0, color="k", lw=0.8)
    above.set_yscale("symlog", linthresh=1)
    above.set_ylabel("Cohen's d over examples")
    grouped_bars(below, similarities, published)
    below.set_ylabel("cosine of patterns")
    below.set_ylim(0, 1.05)
    for axis in (above, below):
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure
