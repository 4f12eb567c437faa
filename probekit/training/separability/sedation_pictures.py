"""Figures of the sedation curve: accuracy by clamp target, by A / sigma, and margins.

``results`` are by arm: ``settings`` as :func:`~probekit.training.scores_by_setting` gives them,
gathered over seeds, and ``norm``, the norms that were found without a clamp.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .noise_pictures import Curves, collapse_figure, curves_figure
from .sedation import noisy_points

#: What was published, by sigma and target; None is no clamp.
Published = Mapping[float, Mapping[float | None, float]]
NATURAL = 11.8  # the published norm without a clamp
NAMES = {
    "norm": "norm clamp",
    "each vector": "norm clamp of each vector",
    "variance there": "mean-preserving, mean at the read-out",
    "noise divided": "no clamp, noise divided",
    "variance": "mean-preserving, mean over all positions",
}


def sedation_figure(
    results: Mapping[str, Mapping[str, Any]], published: Published, chance: float
) -> Figure:
    """Accuracy against the clamp's target, a line a sigma; a panel an arm and way to scale."""
    first = next(iter(results))
    panels = {
        f"{arm}\n{NAMES[way]}": _by_sigma(results[arm], way)
        for arm, way in [
            (first, "norm"),
            (first, "noise divided"),
            (first, "variance"),
            *((arm, "norm") for arm in results if arm != first),
            (first, "variance there"),
        ]
    }
    points = {
        f"σ = {sigma:g}": {target or NATURAL: value for target, value in by_target.items()}
        for sigma, by_target in published.items()
    }
    return curves_figure(
        panels,
        "clamp target A",
        ["accuracy where the sum is predicted"],
        published={next(iter(panels)): points},
        levels={"chance": chance},
        ylim=(-0.03, 1.03),
    )


def ratio_figure(results: Mapping[str, Mapping[str, Any]], published: Published) -> Figure:
    """Accuracy against A / sigma, a marker a way to scale, a panel an arm that knows the sum."""
    points = [
        ((target or NATURAL) / sigma, value)
        for sigma, by_target in published.items()
        for target, value in by_target.items()
    ]
    panels = {
        arm: {NAMES[way]: _by_ratio(found, way) for way in found["settings"] if way in NAMES}
        for arm, found in results.items()
    }
    return collapse_figure(panels, "A / σ", "accuracy where the sum is predicted", points)


def margin_figure(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Margin against target, a line a sigma, and in units of sigma against A / sigma."""
    first = next(iter(results.values()))
    clamped = _by_sigma(first, "norm", "margin_there")
    scaled: dict[str, Any] = {}
    for label, curve in clamped.items():
        if sigma := float(label.removeprefix("σ = ")):
            scaled[label] = {a / sigma: [m / sigma for m in each] for a, each in curve.items()}
    panels: dict[str, Curves] = {
        NAMES["norm"]: clamped,
        NAMES["noise divided"]: _by_sigma(first, "noise divided", "margin_there"),
        "norm clamp, in units of σ": scaled,
    }
    return curves_figure(
        panels,
        "clamp target A (right: A / σ)",
        ["margin (logits)", "margin (logits)", "margin / σ"],
        levels={"decision boundary": 0.0},
    )


def _by_sigma(found: Mapping[str, Any], way: str, what: str = "accuracy_there") -> Curves:
    """A curve a sigma; of the norm clamp with what is read without one."""
    natural = float(np.mean(found["norm"]))
    settings = found["settings"]
    unclamped = settings["none"] if way in ("norm", "noise divided") else {}
    curves: dict[str, dict[float, Any]] = {}
    for target, by_sigma in {**unclamped, **settings[way]}.items():
        for sigma, scores in by_sigma.items():
            where = natural if target == "natural" else float(target)
            curves.setdefault(f"σ = {sigma}", {})[where] = scores[what]
    return curves


def _by_ratio(found: Mapping[str, Any], way: str) -> list[tuple[float, float]]:
    return [
        (target / sigma, float(np.mean(values)))
        for target, sigma, values in noisy_points(found["settings"], [way])
    ]
