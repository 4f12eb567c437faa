"""Swaps and sedation of networks of several layers, beside their controls.

Source: "The Conservation of Separability", 2.1 and 2.3, and 4.1 (first layers only), which was
planned there and never run.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from ...hooked.model import HookedModel
from ...interventions import SwapWeights
from .bases import permuted_twin
from .disturbance import Scaling, disturbed_scores, read_signal, scaled
from .hybrids import accuracy

Tokens = Int[Tensor, "batch pos"]
Labels = Int[Tensor, "batch read"]
PARTS = {"QKV": ("Q", "K", "V"), "QK": ("Q", "K"), "V": ("V",)}
_DRAWS = 3  # of the noise


def deep_swaps(
    model: HookedModel, donor: HookedModel, tokens: Tokens, labels: Labels, seed: int
) -> dict[str, dict[str, float]]:
    """Accuracy of ``model`` by what is swapped and whose weights are put in.

    ``QKV`` of all layers is what the write-up calls QK; the same of the ``first k`` layers, true
    ``QK`` and ``V`` alone stand beside. Donors: ``B``, the given one; ``permuted A``, the
    model itself with its features in another order; ``random`` and ``zero``.

    Args:
        seed: of the order of features and of random weights.
    """
    layers = model.cfg.n_layers
    swaps = {f"{name}, all layers": (parts, layers) for name, parts in PARTS.items()}
    swaps |= {f"QKV, first {k}": (PARTS["QKV"], k) for k in range(1, layers)}
    donors: Mapping[str, Any] = {"B": donor, "permuted A": permuted_twin(model, seed)}
    donors = {**donors, "random": "random", "zero": "zero"}
    return {
        name: {
            whose: accuracy(
                model, tokens, labels, SwapWeights(w, parts, layers=tuple(range(k)), seed=seed)
            )
            for whose, w in donors.items()
        }
        for name, (parts, k) in swaps.items()
    }


def sedation_at(
    model: HookedModel, tokens: Tokens, labels: Labels, share: float, ratio: float
) -> dict[str, dict[str, float]]:
    """Accuracy and margin with the final norm's output clamped to a share of its norm, and noise.

    ``clean``, ``noise``, ``clamped`` and ``clamped, noise`` are the published four settings;
    ``noise divided`` clamps nothing and divides the noise by ``share`` instead.

    Args:
        share: of the mean norm, what the clamp leaves.
        ratio: of the mean norm to the noise's deviation, so that widths compare.

    Returns:
        by setting, means over three draws of the noise.
    """
    signal = read_signal(model, tokens)
    target, sigma = share * signal.norm, signal.norm / ratio
    settings: dict[str, tuple[Scaling, float, float]] = {
        "clean": ("none", signal.norm, 0.0),
        "noise": ("none", signal.norm, sigma),
        "clamped": ("norm", target, 0.0),
        "clamped, noise": ("norm", target, sigma),
        "noise divided": ("noise divided", target, sigma),
    }
    found = {}
    for name, (way, norm, noise) in settings.items():
        each = [
            disturbed_scores(model, scaled(signal, way, norm, noise, draw), tokens, labels)
            for draw in range(_DRAWS)
        ]
        found[name] = {
            what: float(np.mean([one[what] for one in each])) for what in ("accuracy", "margin")
        }
    return found


def in_chances(found: Mapping[str, Any], part: str, donor: str) -> list[float]:
    """Accuracy after a swap in all layers, in units of chance.

    Args:
        found: ``swaps`` of :func:`deep_swaps` and ``chance``, gathered: a number a pair.
    """
    pairs = zip(found["swaps"][f"{part}, all layers"][donor], found["chance"], strict=True)
    return [value / chance for value, chance in pairs]


def margin_ratios(scores: Mapping[str, Any]) -> list[float]:
    """Margin under the clamp over the margin without; ``scores`` gathered, a number a pair."""
    pairs = zip(scores["clamped"]["margin"], scores["clean"]["margin"], strict=True)
    return [clamped / clean for clamped, clean in pairs]


def noise_losses(found: Mapping[str, Any], setting: str) -> list[float]:
    """Points of accuracy that noise takes more in ``setting`` than where nothing is clamped."""
    scores = found["sedation"]
    pairs = zip(scores["noise"]["accuracy"], scores[setting]["accuracy"], strict=True)
    return [100 * (plain - other) for plain, other in pairs]
