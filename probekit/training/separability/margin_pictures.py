"""Figures of margins: against the modulus, with what varies beside it, and against updates."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .margin_runs import MarginRuns, Where
from .noise_pictures import curves_figure

_EVERY, _THERE = "all positions", 'at "="'
_EPOCHS, _GAIN = "equal epochs, as published", "gain of the final norm, equal epochs"


def modulus_figure(
    runs: MarginRuns, margins: Mapping[int, float], gains: Mapping[int, float]
) -> Figure:
    """Margins after equal epochs and after equal updates, and gains, against the modulus.

    Args:
        margins, gains: as published, by modulus.
    """

    def curve(where: Where, what: str) -> dict[float, list[float]]:
        return _floats(runs.by_modulus("sequence", where, what))

    alone = f"all positions, p = {runs.moduli[-1]} alone, as many updates"
    panels: dict[str, Any] = {
        _EPOCHS: {
            _EVERY: curve("epochs", "margin"),
            _THERE: curve("epochs", "margin_there"),
            alone: _floats(runs.one_by_updates("margin")),
        },
        "equal updates": {
            _EVERY: curve("updates", "margin"),
            _THERE: curve("updates", "margin_there"),
            'distance at "="': curve("updates", "distance_there"),
        },
        _GAIN: {"A / sqrt(d)": curve("epochs", "gain")},
    }
    published = {_EPOCHS: {_EVERY: _floats(margins)}, _GAIN: {"A / sqrt(d)": _floats(gains)}}
    ylabels = ["margin (logits)", "margin (logits), distance", "gain"]
    return curves_figure(panels, "modulus p", ylabels, published=published, dashed=[alone])


def updates_figure(runs: MarginRuns) -> Figure:
    """Margins against updates, a line a modulus, a panel an arm and place."""
    panels: dict[str, Any] = {
        _EVERY: _by_updates(runs, "sequence", "margin"),
        'where the sum is predicted, "="': _by_updates(runs, "sequence", "margin_there"),
        "leak-free": _by_updates(runs, "leak-free", "margin_there"),
    }
    return curves_figure(panels, "log10 of updates", ["margin (logits)"] * len(panels))


def _by_updates(runs: MarginRuns, arm: str, what: str) -> dict[str, Any]:
    """By the logarithm of the step, five points a decade."""
    curves = {}
    for p, own in sorted(runs.runs[arm].items()):
        steps = np.array([step for step in own[0].rows if step])
        kept = {int(steps[np.abs(steps - 10**t).argmin()]) for t in np.arange(0, 5, 0.2)}
        curves[f"p = {p}"] = {math.log10(s): runs.read(arm, p, s, what) for s in sorted(kept)}
    return curves


def _floats(by_modulus: Mapping[int, Any]) -> dict[float, Any]:
    return {float(p): value for p, value in by_modulus.items()}
