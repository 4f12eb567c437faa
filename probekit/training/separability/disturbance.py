"""How well a model predicts while its final norm's output is scaled and noise is added to it.

A linear read-out of ``c x + sigma n`` is c times that of ``x + (sigma / c) n``, up to its offset:
the largest logit depends on ``c / sigma`` alone. So two settings of one signal-to-noise ratio must
agree whatever was clamped, and a drop in accuracy says nothing beyond that ratio. The exception is
a clamp that keeps a mean vector in place while it scales the rest: the mean's own logits then win.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformer_lens.model_bridge import TransformerBridge

from ...attachment import attach
from ...errors import ProbekitError
from ...geometry.activity import mean_norm
from ...interventions import Clamp, Edit, Noise
from ...items import Item
from ...probes import Accuracy, LogitMargin, Record

#: The ways of :func:`scaled`.
Scaling = Literal["none", "norm", "each vector", "variance", "variance there", "noise divided"]
SITE = "ln_final"


@dataclass(frozen=True)
class Signal:
    """What the final norm gives, undisturbed; ``there`` is one position, read alone.

    Attributes:
        norm: mean L2 norm over examples and positions, the write-up's A.
        norm_there: the same at that position.
        spread: standard deviation of all entries around the mean vector over both.
        spread_there: the same around and at that position.
    """

    there: int
    norm: float
    norm_there: float
    spread: float
    spread_there: float


@torch.no_grad()
def read_signal(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], there: int = -1, site: str = SITE
) -> Signal:
    """Measure what :func:`scaled` brings to a target; or the same of another site."""
    with attach(model, Record(site)) as run:
        model(tokens)
    x = run["record"].values
    alone = x[:, there]
    return Signal(there, mean_norm(x), mean_norm(alone), _spread(x), _spread(alone))


def scaled(
    signal: Signal, scaling: Scaling, target: float, sigma: float, seed: int = 0
) -> list[Item]:
    """Items that bring the signal from its norm to ``target``, then add noise.

    ``none`` leaves the signal. ``norm`` clamps as published, by one factor. The others use the
    same factor: ``each vector`` clamps every vector to what the mean norm becomes at the position
    that is read, ``variance`` scales around the mean vector over examples and positions,
    ``variance there`` around that of the one position, and ``noise divided`` leaves the signal and
    divides the noise.

    Args:
        target: L2 norm.
        sigma: standard deviation of the noise; 0 adds none.
        seed: of the noise; with one seed all ways see the same draws.
    """
    factor = target / signal.norm
    ways: dict[str, list[Item]] = {
        "none": [],
        "norm": [Clamp("norm", target, SITE)],
        "each vector": [Clamp("norm", factor * signal.norm_there, SITE, per="vector")],
        "variance": [Clamp("variance", factor * signal.spread, SITE)],
        "variance there": [Edit(SITE, _Around(signal.there, factor * signal.spread_there))],
        "noise divided": [],
    }
    added = sigma / factor if scaling == "noise divided" else sigma
    return ways[scaling] + ([Noise(added, SITE, seed)] if sigma else [])


@dataclass(frozen=True)
class _Around:
    """The mean-preserving clamp of one position."""

    there: int
    target: float

    def __call__(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        own, clamped = x[:, self.there], x.clone()
        mean = own.mean(0)
        clamped[:, self.there] = mean + (own - mean) * (self.target / _spread(own))
        return clamped


def _spread(x: Float[Tensor, "*rows d_model"]) -> float:
    return float((x - x.flatten(0, -2).mean(0)).std())


@torch.no_grad()
def disturbed_scores(
    model: TransformerBridge,
    items: Sequence[Item],
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch read"],
    there: int = -1,
) -> dict[str, Any]:
    """Accuracy (fraction) and margin (logits) of one forward under ``items``.

    ``accuracy`` and ``margin`` are over all positions with a label, the last ``read``;
    ``accuracy_there`` and ``margin_there`` at one.

    Args:
        items: act in this order where they share a site.
        there: the position that is read alone.

    Raises:
        ProbekitError: that position has no label.
    """
    length, read = tokens.shape[1], labels.shape[1]
    if not length - read <= there % length < length:
        raise ProbekitError(
            f"position {there} has no label: the last {read} of {length} positions have one"
        )
    padded = F.pad(labels, (length - read, 0), value=-100)

    def targets(_: Tensor) -> Tensor:  # a table of labels would be checked number by number
        return padded

    with attach(model, *items, Accuracy(targets), LogitMargin(targets)) as run:
        model(tokens)
    found: dict[str, Any] = {}
    for name, probe in (("accuracy", "accuracy"), ("margin", "logit_margin")):
        rows = run[probe].rows
        assert rows is not None
        found |= {name: float(run[probe].values), f"{name}_there": float(rows.values[there])}
    return found
