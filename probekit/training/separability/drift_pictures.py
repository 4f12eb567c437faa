"""Figures of drift: every part beside the motion that weight decay alone would give QK.

A panel an arm; all seeds are drawn, a part's in one colour.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..drift import published_stable_step
from .drift_log import DriftRun, Head

#: arm -> its runs, one a seed
Arms = Mapping[str, Sequence[DriftRun]]
SHOWN = ("QK", "OV", "MLP", "EMBED", "UNEMBED", "LN")
_UNIFORM = 1e-8  # float32 tells no less from uniform attention
_SMALLEST = 1e-12  # on an axis of logarithms


def norm_figure(arms: Arms, decay: Mapping[str, float], begin: int) -> Figure:
    """Norms; dashed QK under decay alone, from the start and from step ``begin``, run by run.

    Args:
        decay: by arm, learning rate times weight decay, a step.
    """
    figure, axes = _panels(arms, "norm")
    for axis, (arm, runs) in zip(axes, arms.items(), strict=True):
        for part in SHOWN:
            _draw(axis, runs, part, "norm")
        for since in (0, begin):
            _decay_alone(axis, runs, decay[arm], since, velocity=False)
    return _finished(figure, axes)


def velocity_figure(arms: Arms, decay: Mapping[str, float], begin: int) -> Figure:
    """Velocities, as published (change between two logs); dotted QK's without weight decay's share.

    Dashed what decay alone would give QK from step ``begin`` on.
    """
    figure, axes = _panels(arms, "velocity: change between logs")
    for axis, (arm, runs) in zip(axes, arms.items(), strict=True):
        for part in SHOWN:
            _draw(axis, runs, part, "velocity")
        _draw(axis, runs, "QK", "beyond_decay", style=":", label="QK, beyond decay")
        if decay[arm]:
            _decay_alone(axis, runs, decay[arm], begin, velocity=True)
    return _finished(figure, axes)


def displacement_figure(arms: Arms) -> Figure:
    """``|theta - theta_0| / |theta_0|``; 1 where a part has decayed to nothing."""
    figure, axes = _panels(arms, "displacement", log=False)
    for axis, runs in zip(axes, arms.values(), strict=True):
        for part in SHOWN:
            _draw(axis, runs, part, "displacement")
        axis.axhline(1, color="k", ls="--", lw=1, label="decayed to 0")
        axis.axhline(2**0.5, color="k", ls="-.", lw=1, label="same norm, unrelated")
        axis.set_ylim(0, 2)
    return _finished(figure, axes)


def attention_figure(arms: Arms, seeds: Sequence[int]) -> Figure:
    """Attention entropy of every head and seed, beside uniform attention."""
    figure, axes = _panels(arms, "entropy / ln(visible keys)", log=False)
    for axis, runs in zip(axes, arms.values(), strict=True):
        for index, (seed, run) in enumerate(zip(seeds, runs, strict=False)):
            lines = axis.plot(run.steps, run.entropy, color=f"C{index}", lw=0.8)
            lines[0].set_label(f"seed {seed}, by head")
        axis.axhline(1, color="k", ls="--", lw=1, label="uniform attention")
    return _finished(figure, axes)


def heads_figure(arms: Mapping[str, Sequence[Sequence[Head]]]) -> Figure:
    """Rate at which each head's Q and K decay, by how far its attention is from uniform.

    Args:
        arms: by arm, the heads of each seed, their rates over lr * wd.
    """
    figure, axis = plt.subplots(figsize=(6.2, 3.8))
    for index, (arm, seeds) in enumerate(arms.items()):
        every = [head for own in seeds for head in own]
        far = np.clip([head.from_uniform for head in every], _UNIFORM, None)
        rates = [head.rate for head in every]
        axis.plot(far, rates, "os^"[index % 3], color=f"C{index}", mfc="none", label=arm)
    axis.axhline(1, color="k", ls="--", lw=1, label="decay alone")
    axis.axhline(0, color="0.6", lw=1, label="norm kept")
    axis.set(xscale="log", xlim=(_UNIFORM / 2, 1))  # its own limits, as there may be no head
    axis.set(xlabel="1 - attention entropy (0: uniform)", ylabel="rate of ln |QK| / (lr wd)")
    return _finished(figure, [axis])


def rule_figure(arms: Arms, selections: Sequence[str], every: int) -> Figure:
    """Distance from the start, and where the published rule calls each selection stable.

    Args:
        selections: parts, such as the published "QK", which is QKV.
        every: the rule reads every so many logs.
    """
    figure, axes = _panels(arms, "drift from the start", log=False)
    for axis, runs in zip(axes, arms.values(), strict=True):
        for color, part in enumerate(selections):
            for index, run in enumerate(runs):
                steps, drift = run.steps[::every], run.part(part, "drift")[::every]
                label = part if index == 0 else None
                axis.plot(steps, drift, ".-", color=f"C{color}", lw=0.8, ms=4, label=label)
                step = published_stable_step(steps, list(drift))
                if step is not None:
                    found = drift[steps.index(step)]
                    axis.plot(step, found, "o", color=f"C{color}", mfc="none", ms=9)
        axis.plot([], [], "o", color="k", mfc="none", ms=9, label='"stable" by the rule')
    return _finished(figure, axes)


def progress_figure(arms: Arms, parts: Sequence[str]) -> Figure:
    """Drift of each part as a share of where it ends, and validation accuracy; medians of seeds."""
    figure, axes = _panels(arms, "share of the last value", log=False)
    for axis, runs in zip(axes, arms.values(), strict=True):
        for color, part in enumerate(parts):
            drifts = np.array([run.part(part, "drift") for run in runs])
            shares = np.median(drifts / drifts[:, -1:], axis=0)
            axis.plot(runs[0].steps, shares, color=f"C{color}", lw=1, label=part)
        accuracies = np.median([run.score("accuracy") for run in runs], axis=0)
        axis.plot(runs[0].steps, accuracies, "k", lw=2, label="validation accuracy")
    return _finished(figure, axes)


def _panels(arms: Arms, ylabel: str, log: bool = True) -> tuple[Figure, list[Axes]]:
    figure, grid = plt.subplots(
        1, len(arms), figsize=(4.6 * len(arms) + 1.6, 3.8), sharey=True, squeeze=False
    )
    axes = list(grid.flat)
    for axis, (arm, runs) in zip(axes, arms.items(), strict=True):
        axis.set_title(arm, fontsize=10)
        axis.set_xlabel("step")
        if log:
            axis.set_yscale("log")
        found = [run.grokked for run in runs if not np.isnan(run.grokked)]
        for index, step in enumerate(found):
            label = "90 % held-out accuracy" if index == 0 else None
            axis.axvline(step, color="0.6", lw=1, label=label)
    axes[0].set_ylabel(ylabel)
    return figure, axes


def _draw(
    axis: Axes,
    runs: Sequence[DriftRun],
    part: str,
    what: str,
    style: str = "-",
    label: str | None = None,
) -> None:
    for index, run in enumerate(runs):
        values = run.part(part, what)
        shown = np.where(values > _SMALLEST, values, np.nan)
        name = (label or part) if index == 0 else None
        width = 2 if (part, style) == ("QK", "-") else 1  # seen where another part moves alike
        axis.plot(run.steps, shown, style, color=f"C{SHOWN.index(part)}", lw=width, label=name)


def _decay_alone(
    axis: Axes, runs: Sequence[DriftRun], decay: float, begin: int, velocity: bool
) -> None:
    """QK's norm or velocity under decay alone, from each run's norm at ``begin`` on."""
    for run in runs:
        norms = run.part("QK", "norm")
        kept = [(step, norm) for step, norm in zip(run.steps, norms, strict=True) if step >= begin]
        if not kept:
            continue
        steps = np.array([step for step, _ in kept])
        alone = decayed(float(kept[0][1]), decay, steps - steps[0])
        if velocity:
            alone = alone / (1 - decay) ** (run.steps[1] - run.steps[0]) - alone
        drawn = "decay alone" in axis.get_legend_handles_labels()[1]
        label = None if drawn else "decay alone"
        axis.plot(steps, alone, "k--", lw=1, label=label)


def decayed(norm: float, decay: float, steps: np.ndarray) -> Float[np.ndarray, " log"]:
    """``norm * (1 - decay)**steps``: AdamW without gradients, decay its ``lr * weight_decay``."""
    return norm * (1 - decay) ** steps


def _finished(figure: Figure, axes: list[Axes]) -> Figure:
    """Each label once, outside the panels."""
    labels: dict[str, Artist] = {}
    for axis in axes:
        handles, names = axis.get_legend_handles_labels()
        labels |= {
            name: cast(Artist, handle)
            for name, handle in zip(names, handles, strict=True)
            if name not in labels
        }
    axes[-1].legend(
        labels.values(), labels.keys(), fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)
    )
    figure.tight_layout()
    return figure
