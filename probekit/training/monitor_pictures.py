"""Figures of what the developmental monitor saw: rows, norms and kill tests, each with its null."""

import math
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..entropy import one_hot_last_row_vdi, uniform_causal_vdi
from .condition_runs import ConditionRun


def rows_figure(run: ConditionRun) -> Figure:
    """Row entropy over training, mean over heads, by query; dashed what uniform attention reads."""
    figure, axis = plt.subplots(figsize=(6, 4))
    steps, by_query = run.series("vdi_by_query")
    length = by_query.shape[-1]
    for query in range(length):
        axis.plot(steps, by_query[:, :, query].mean(1), color=f"C{query}", label=f"query {query}")
        axis.axhline(math.log(query + 1) / math.log(length), color=f"C{query}", ls="--", lw=1)
    axis.set(xlabel="step", ylabel=f"row entropy / ln {length}")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure


def norms_figure(runs: Mapping[int, ConditionRun], decay: float) -> Figure:
    """Norms of W_Q and W_K; dashed what decay alone does from the start and from half-way.

    Args:
        runs: by seed; the dashed lines begin at the last one's norms.
        decay: learning rate times weight decay, a step.
    """
    figure, axis = plt.subplots(figsize=(6, 4))
    for color, (seed, run) in enumerate(runs.items()):
        steps, norms = run.series("norms")
        for name, style in (("W_Q", "-"), ("W_K", ":")):
            values = [norm[name] for norm in norms]
            axis.semilogy(steps, values, style, color=f"C{color}", label=f"{name}, seed {seed}")
    steps, norms = list(runs.values())[-1].series("norms")
    for begin, label in ((0, "exp(-lr wd t)"), (len(steps) // 2, None)):
        since = np.array(steps[begin:]) - steps[begin]
        axis.semilogy(
            steps[begin:], norms[begin]["W_Q"] * np.exp(-decay * since), "k--", lw=1, label=label
        )
    axis.set(xlabel="step", ylabel="Frobenius norm")
    axis.legend(fontsize=8)
    return figure


def kill_figure(runs: Iterable[ConditionRun], published: tuple[float, float]) -> Figure:
    """Kill-test scores over training: as published, with no head scaled, and with a fresh baseline.

    Args:
        published: the least and the greatest score that were published.
    """
    styles = {
        "stale": ("o-", 6, "as published, stale baseline"),
        "fresh": ("s--", 6, "fresh baseline"),
        "undisturbed": ("x", 10, "stale baseline, no head scaled"),
    }
    figure, axis = plt.subplots(figsize=(6, 4))
    for index, run in enumerate(runs):
        tests = run.trajectory["kill_tests"]
        steps = [test["step"] for test in tests]
        for key, (style, size, label) in styles.items():
            color = "k" if key == "undisturbed" else f"C{index}"
            scores = [test[key] for test in tests]
            axis.plot(steps, scores, style, ms=size, color=color, label=label)
    axis.axhspan(*published, color="0.85", label="published range")
    axis.set(xlabel="step", ylabel="compensation score")
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), fontsize=8)
    return figure


def length_figure(published: Mapping[int, float]) -> Figure:
    """What uniform causal attention reads, by length.

    Args:
        published: final VDI by length, as points.
    """
    figure, axis = plt.subplots(figsize=(6, 4))
    lengths = range(2, 65)
    axis.plot(lengths, [uniform_causal_vdi(n) for n in lengths], label="ln(T!) / (T ln T)")
    axis.plot(lengths, [one_hot_last_row_vdi(n) for n in lengths], ":", label="last row one-hot")
    axis.plot(list(published), list(published.values()), "o", label="published equilibria")
    axis.set(xlabel="length T", ylabel="VDI of uniform causal attention")
    axis.legend(fontsize=8)
    return figure
