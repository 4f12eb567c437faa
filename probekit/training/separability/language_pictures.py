"""Figures of the language experiment: through training, by position, and cosines."""

from typing import Any

from matplotlib.figure import Figure

from .language_arms import CE, LANGUAGE_ARMS, ORTHO
from .language_results import COPIED, FOLLOWER, LanguageResults
from .noise_pictures import curves_figure


def figures(results: LanguageResults) -> dict[str, tuple[Figure, str]]:
    """All of them with captions, by file name."""
    levels = {f"{name}, no network": results.guessed(name) for name in (COPIED, FOLLOWER)}
    return {
        "learning": (
            log_figure(results, "accuracy", "validation accuracy", levels),
            "Means over seeds with 95 % t-intervals. Copying is all that the published arms learn.",
        ),
        "positions": (
            position_figure(results),
            "Without a mask everything is right but the last position, where nothing is to be "
            "copied.",
        ),
        "cosines": (
            log_figure(results, "cosine", "cosine with the anchor", {"orthogonal": 0.0}),
            "The penalties begin at a quarter of the updates and are full at half of them.",
        ),
    }


def log_figure(
    results: LanguageResults, what: str, ylabel: str, levels: dict[str, float]
) -> Figure:
    """``accuracy`` or ``cosine`` by step, a line an arm, a panel a mask.

    Args:
        levels: drawn into both panels, dotted.
    """
    panels: dict[str, Any] = {
        mask: {arm: results.log_curve(mask, what, arm) for arm in LANGUAGE_ARMS}
        for mask in results.masks
    }
    return curves_figure(
        panels, "updates since the freeze", [ylabel], levels=levels, ylim=(-0.15, 1.05)
    )


def position_figure(results: LanguageResults) -> Figure:
    """Accuracy at each position of two arms, beside guessers that only count; a panel a mask."""
    panels: dict[str, Any] = {}
    for mask, found in results.masks.items():
        shares = found["by position"]
        panels[mask] = {
            arm: {float(at): each for at, each in enumerate(zip(*shares[arm], strict=True))}
            for arm in (CE, ORTHO)
        }
        panels[mask] |= {
            name: {float(at): [share] for at, share in enumerate(each)}
            for name, each in results.guesses.items()
        }
    return curves_figure(
        panels, "position", ["accuracy"], dashed=list(results.guesses), ylim=(-0.03, 1.03)
    )
