"""Accuracy over clamps and noise ("sedation"), and whether it is one function of their ratio."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...attachment import attach
from ...geometry.activity import mean_norm
from ...hooked.model import weights
from ...probes import Record
from ..leak import find_leak
from ..tasks import ModularTask
from .disturbance import SITE, Scaling, disturbed_scores, read_signal, scaled

Setting = tuple[Scaling, float | None, float]  # way, target (None: as it is), sigma


def scores_by_setting(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch read"],
    settings: Iterable[Setting],
    *,
    there: int,
    draws: int,
) -> dict[str, Any]:
    """:func:`disturbed_scores` by way, target (``"natural"`` for None) and sigma, as keys of JSON.

    Each is the mean over ``draws`` of the noise, the same draws in every setting; ``range_there``
    is the largest less the least accuracy over draws, the noise's own part in any difference.
    """
    signal = read_signal(model, tokens, there)
    found: dict[str, Any] = {}
    for way, target, sigma in settings:
        draw_items = partial(scaled, signal, way, target or signal.norm, sigma)
        each = [
            disturbed_scores(model, draw_items(seed), tokens, labels, there)
            for seed in range(draws if sigma else 1)
        ]
        scores = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
        accuracies = [one["accuracy_there"] for one in each]
        scores["range_there"] = max(accuracies) - min(accuracies)
        by_sigma = found.setdefault(way, {}).setdefault(setting_key(target), {})
        by_sigma[setting_key(sigma)] = scores
    return found


def sedate(
    model: TransformerBridge,
    task: ModularTask,
    *,
    there: int,
    ways: Sequence[Scaling],
    targets: Sequence[float],
    sigmas: Sequence[float],
    draws: int,
) -> dict[str, Any]:
    """The whole grid on held-out examples, in JSON's types.

    Returns:
        ``norm`` without a clamp; ``settings`` as :func:`scores_by_setting`, sigma 0 and no clamp
        among them; ``algebra``, :func:`rescaled_accuracy` by target; and ``leak``.
    """
    tokens, labels = task.validation()
    read, every = labels.shape[1], (0.0, *sigmas)
    settings: list[Any] = [("none", None, sigma) for sigma in every]
    settings += [(way, target, sigma) for way in ways for target in targets for sigma in every]
    found = scores_by_setting(model, tokens, labels, settings, there=there, draws=draws)
    algebra = {t: rescaled_accuracy(model, tokens, labels, t, there) for t in targets}
    leak = find_leak(lambda ids: model(ids)[:, -read:], tokens, labels, ceiling=task.ceiling)
    return {
        "norm": read_signal(model, tokens).norm,
        "settings": found,
        "algebra": {setting_key(target): value for target, value in algebra.items()},
        "leak": {**asdict(leak), "words": str(leak)},
    }


def setting_key(number: float | None) -> str:
    """The key of a target or a sigma in :func:`scores_by_setting`.

    Example:
        >>> setting_key(8.0), setting_key(11.5), setting_key(None)
        ('8', '11.5', 'natural')
    """
    return "natural" if number is None else f"{number:g}"


@torch.no_grad()
def rescaled_accuracy(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch read"],
    target: float,
    there: int = -1,
) -> float:
    """Accuracy of ``argmax c W x + b`` at one position, ``c = target / norm``: the clamp's algebra.

    A native model's unembedding is read and no clamp attached.
    """
    own = weights(model)
    with attach(model, Record(SITE)) as run:
        model(tokens)
    x = run["record"].values
    logits = target / mean_norm(x) * x[:, there] @ own["head.weight"].T
    right = (logits + own.get("head.bias", 0)).argmax(-1) == labels[:, there - tokens.shape[1]]
    return float(right.double().mean())


def noisy_points(
    found: Mapping[str, Any], ways: Iterable[str], what: str = "accuracy_there"
) -> list[tuple[float, float, Any]]:
    """(target, sigma, value) of every clamped setting with noise.

    Args:
        found: by :func:`scores_by_setting`, or that gathered over seeds.
    """
    return [
        (float(target), float(sigma), scores[what])
        for way in ways
        for target, by_sigma in found[way].items()
        for sigma, scores in by_sigma.items()
        if target != "natural" and float(sigma)
    ]


def ratio_spreads(
    found: Mapping[str, Any], ways: Iterable[str], *, at_equal: str = "ratio"
) -> list[float]:
    """The largest difference of accuracy between settings of one A / sigma, a number a seed.

    Args:
        found: gathered over seeds.
        at_equal: ``"ratio"``, or ``"target"`` for settings of one A, whatever sigma.
    """
    points = noisy_points(found, ways)
    keys = [round(a / sigma, 6) if at_equal == "ratio" else a for a, sigma, _ in points]
    return [spread_at_equal(keys, values) for values in zip(*(v for *_, v in points), strict=True)]


def least(values: Iterable[Sequence[float]]) -> list[float]:
    """The least of several readings, each a number a seed.

    Example:
        >>> least([[0.5, 1.0], [0.75, 0.25]])
        [0.5, 0.25]
    """
    return [min(each) for each in zip(*values, strict=True)]


def least_clean(found: Mapping[str, Any], way: str) -> list[float]:
    """The least accuracy over targets without noise, a number a seed."""
    return least(by_sigma["0"]["accuracy_there"] for by_sigma in found[way].values())


def without_noise(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What :func:`sedate` found without clamp and noise, gathered over seeds: a row an arm."""
    table = {}
    for arm, found in results.items():
        scores = found["settings"]["none"]["natural"]["0"]
        there, everywhere = scores["accuracy_there"], scores["accuracy"]
        table[arm] = {"read alone": there, "at all positions": everywhere, "A": found["norm"]}
    return table


def agreement(
    found: Mapping[str, Any], groups: Mapping[str, Sequence[Scaling]]
) -> dict[str, list[float]]:
    """:func:`ratio_spreads` of each group of ways, beside two comparisons.

    Settings of one target and any sigma differ where accuracy depends on sigma; one setting on
    several draws tells the noise's own part.
    """
    every = list(dict.fromkeys(way for ways in groups.values() for way in ways))
    return {
        **{f"equal A / σ, {name}": ratio_spreads(found, ways) for name, ways in groups.items()},
        "equal A": ratio_spreads(found, every, at_equal="target"),
        "one setting, draws": noise_range(found, every),
    }


def by_target(found: Mapping[str, Any], way: str) -> dict[str, dict[str, Any]]:
    """Accuracies of one way as a table: a row a target, a column a sigma."""
    return {
        f"A = {target}": {f"σ = {sigma}": scores["accuracy_there"] for sigma, scores in row.items()}
        for target, row in found[way].items()
    }


def noise_range(found: Mapping[str, Any], ways: Iterable[str]) -> list[float]:
    """The largest difference of accuracy between draws of the noise in one setting, one a seed."""
    ranges = [values for *_, values in noisy_points(found, ways, "range_there")]
    return [max(values) for values in zip(*ranges, strict=True)]


def spread_at_equal(keys: Sequence[Hashable], values: Sequence[float]) -> float:
    """The largest difference between values of one key; NaN where no key comes twice.

    Noise makes it grow with the number of values: compare with one setting on several draws.

    Example:
        >>> spread_at_equal(["a", "b", "a", "b"], [0.5, 0.2, 0.75, 0.2])
        0.25
    """
    groups: dict[Hashable, list[float]] = {}
    for key, value in zip(keys, values, strict=True):
        groups.setdefault(key, []).append(value)
    spreads = [max(group) - min(group) for group in groups.values() if len(group) > 1]
    return max(spreads, default=float("nan"))
