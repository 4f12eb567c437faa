"""Pictures of arms of runs that branch from one network."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .noise_pictures import curves_figure
from .recovery_tables import GOOD, Runs


def logs_figure(runs: Runs, seeds: Sequence[int]) -> Figure:
    """Accuracy over training, a panel an arm, a line a seed."""
    panels = {
        arm: {
            f"seed {seed}": {float(step): [each[index]] for step, each in found["log"].items()}
            for index, seed in enumerate(seeds)
        }
        for arm, found in runs.items()
    }
    return curves_figure(
        panels, "steps after the branch", ["accuracy"], levels={f"{GOOD:g}": GOOD}, ylim=(0.0, 1.02)
    )


def ends_figure(runs: Runs, published: Mapping[str, float], compared: Sequence[str]) -> Figure:
    """Where runs end, a dot each; and how unequal their heads are, against where they end.

    Args:
        published: means by arm, open diamonds.
        compared: the arms of the second panel.
    """
    figure, (ends, heads) = plt.subplots(1, 2, figsize=(10.5, 4.4), width_ratios=(1.5, 1))
    for index, (arm, found) in enumerate(runs.items()):
        jitter = np.linspace(-0.2, 0.2, len(found["final"])) if len(found["final"]) > 1 else [0]
        ends.plot(index + np.asarray(jitter), found["final"], "o", color="C0", ms=4)
        if arm in published:
            ends.plot(index, published[arm], "D", color="C1", mfc="w", ms=7)
    ends.plot([], [], "o", color="C0", ms=4, label="a run")
    ends.plot([], [], "D", color="C1", mfc="w", ms=7, label="published mean")
    ends.set_xticks(range(len(runs)), list(runs), rotation=40, ha="right", fontsize=8)
    ends.set(ylabel="final accuracy", ylim=(-0.03, 1.03))
    ends.legend(fontsize=8, loc="lower right")
    for what, marker in (("gini", "o"), ("max share", "s")):
        for number, arm in enumerate(compared):
            found = runs[arm]
            label = f"{what}, {arm}"
            heads.plot(
                found["final"], found[what], marker, color=f"C{number}", mfc="none", label=label
            )
    heads.set(xlabel="final accuracy", ylabel="dominance", xlim=(-0.03, 1.03), ylim=(0, None))
    heads.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure
