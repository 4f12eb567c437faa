"""Figures of recipe slack: learning with the cosine beside it, and similarity that a basis changes.

All take what :mod:`slack_arms` returns, gathered over seeds: every number a list.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from .noise_pictures import Curve, curves_figure
from .swap_pictures import similarity_figure

#: by name of an arm what its function returned
Arms = Mapping[str, Mapping[str, Any]]
_LIMITS, _STEP = (-0.1, 1.05), "step with attention frozen"
_SHOWN = ("cosine", "linear CKA", "aligned cosine", "wrong logits")


def branches_figure(arms: Arms) -> Figure:
    """Accuracy of each network through training above its cosine to the anchor, a column an arm."""
    kinds = {"accuracy": "curves", "cosine to the anchor": "cosines"}
    panels = {
        f"{arm}: {kind}": {name: _curve(own) for name, own in found[key].items()}
        for kind, key in kinds.items()
        for arm, found in arms.items()
    }
    return curves_figure(panels, _STEP, ["accuracy, cosine"], ylim=_LIMITS)


def rows_figure(rows: Arms) -> Figure:
    """A panel a row of the table: accuracy of anchor and probe, and their cosine."""
    panels = {
        row: {
            **{name: _curve(own) for name, own in found["curves"].items()},
            "cosine of both": _curve(found["cosines"]["probe"]),
        }
        for row, found in rows.items()
    }
    return curves_figure(panels, _STEP, ["accuracy, cosine"], ylim=_LIMITS)


def alike_figure(arms: Arms) -> Figure:
    """How alike each network is to the anchor (A), by what a basis changes and what it does not."""
    tables = {
        arm: {
            name: {what: own[what] for what in _SHOWN}
            for name, own in found["alike"].items()
            if name != "anchor"
        }
        for arm, found in arms.items()
    }
    return similarity_figure(tables, {})


def _curve(by_step: Mapping[str, Sequence[float]]) -> Curve:
    return {float(step): values for step, values in by_step.items()}
