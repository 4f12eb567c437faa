"""One table mapped onto another by PCA and a rotation, and what of the agreement is its null.

A predictor that says the mean row for every token already has a cosine of the square root of the
mean cosine, and a rotation fitted on a few thousand rows fits noise. So each published number
stands beside a centred one, held-out rows, and rows paired at random.

All numbers are computed in float64.

Source: the write-up "Geometric Terrain Analysis", its section 13b (Qwen3.5-4B onto 0.8B).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ProbekitError
from ..geometry.cosines import PERCENTILES, pair_cosines
from ..geometry.similarity import cosine_similarity, procrustes, procrustes_null
from ..geometry.spectrum import (
    covariance_eigenvalues,
    dims_for_variance_null,
    participation_ratio,
)
from ..geometry.volumes import simplex_volumes, volume_stats

Readings = dict[str, Any]
Table = Float[Tensor, "rows dim"]
PCA_ROWS, RELATIONAL, RAW, SIMPLICES = 50_000, 1000, 500, 1000
LEVELS = tuple(round(0.1 * i, 1) for i in range(10))


def projection_readings(
    large: Float[Tensor, "rows large"],
    small: Float[Tensor, "rows small"],
    *,
    anchors: int = 10_000,
    tests: int = 5_000,
    digits: Sequence[int] = (),
    seed: int = 42,
) -> Readings:
    """How well PCA and orthogonal Procrustes carry the rows of ``large`` onto those of ``small``.

    NumPy's generator is consumed as published: rows for PCA (where the widths differ), a
    permutation whose first rows are fitted and whose next are tested, then pentachora.

    Args:
        large, small: two vectors of each token.
        digits: rows of the ten digits.

    Returns:
        groups of numbers by name; ``null`` in a group holds what chance reads.

    Raises:
        ProbekitError: tables of different lengths, a larger ``small``, or too few rows.
    """
    if len(large) != len(small) or large.shape[1] < small.shape[1]:
        raise ProbekitError(
            f"projection_readings pairs rows of a wider table with a narrower one's, not "
            f"{tuple(large.shape)} with {tuple(small.shape)}"
        )
    if len(large) < anchors + tests or tests < 10:
        raise ProbekitError(
            f"{len(large)} rows are not {anchors} anchors and {tests} tests; lower anchors or tests"
        )
    large, small = large.detach().double().cpu(), small.detach().double().cpu()
    rng = np.random.default_rng(seed)
    found: Readings = {}
    projected = large
    if large.shape[1] > small.shape[1]:
        projected, found["pca"] = _reduced(large, small.shape[1], rng)
    order = torch.from_numpy(rng.permutation(len(large)))[: anchors + tests]
    fitted, held = order[:anchors], order[anchors:]
    aligned = procrustes(projected[order], small[order], test=range(anchors, anchors + tests))
    mean = small[fitted].mean(0)
    mapped = (projected - projected[fitted].mean(0)) @ aligned.rotation + mean
    simplices = torch.from_numpy(
        np.stack([rng.choice(len(large), 5, replace=False) for _ in range(SIMPLICES)])
    )
    found["alignment"] = _alignment(mapped[held], small[held], mean) | {
        "centred cosine, fitted": aligned.cosine,
        "centred cosine, held out": aligned.held_out,
        "scale": aligned.scale,
    }
    found["alignment"]["null"] |= {
        "centred cosine, fitted": procrustes_null(anchors, small.shape[1]),
        "centred cosine, held out": _paired_at_random(mapped[held] - mean, small[held] - mean),
    }
    found["relations"] = _relations(large, mapped, small, mean, held)
    found["all rows"] = _all_rows(mapped, small)
    if len(digits):
        found["digits"] = _digits(mapped[list(digits)], small[list(digits)])
    found["volumes"] = _volumes(mapped, small, simplices)
    residual = covariance_eigenvalues(small[held] - mapped[held])
    found["residual"] = {
        "participation / dim": float(participation_ratio(residual)) / len(residual),
        "share of variance": float(residual.sum() / covariance_eigenvalues(small[held]).sum()),
        "eigenvalues": residual[:100].tolist(),
    }
    return found


def _reduced(large: Tensor, width: int, rng: np.random.Generator) -> tuple[Tensor, Readings]:
    rows = torch.from_numpy(rng.choice(len(large), min(PCA_ROWS, len(large)), replace=False))
    centre = large[rows].mean(0)
    _, values, components = torch.linalg.svd(large[rows] - centre, full_matrices=False)
    kept = float(values[:width].square().sum() / values.square().sum())
    null = isotropic_share(large.shape[1], width, len(rows))
    return (large - centre) @ components[:width].T, {
        "variance retained": kept,
        "null": {"variance retained": null},
    }


def isotropic_share(dim: int, kept: int, rows: int) -> float:
    """The share of variance that the first ``kept`` principal components of isotropic rows hold.

    By the Marchenko-Pastur law: the share that takes so many dimensions. More than ``kept / dim``,
    since the components are chosen on the rows themselves.
    """
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        within = dims_for_variance_null(dim, rows, [middle])[0] <= kept
        low, high = (middle, high) if within else (low, middle)
    return low


def _alignment(mapped: Tensor, small: Tensor, mean: Tensor) -> Readings:
    cosines, distances = cosine_similarity(mapped, small), (mapped - small).norm(dim=-1)
    return {
        "cosine": float(cosines.mean()),
        "quantiles": np.quantile(cosines.numpy(), PERCENTILES).tolist(),
        "distance": float(distances.mean()),
        "distance quantiles": np.quantile(distances.numpy(), PERCENTILES).tolist(),
        "null": {"cosine": float(cosine_similarity(mean.expand_as(small), small).mean())},
    }


def _relations(
    large: Tensor, mapped: Tensor, small: Tensor, mean: Tensor, held: Int[Tensor, " row"]
) -> Readings:
    """Whether pairs of rows have the same cosine in both tables."""
    few, rows = held[:RAW], held[:RELATIONAL]
    own, other = pair_cosines(small[rows]), pair_cosines(mapped[rows])
    centred = pair_cosines(small[rows] - mean), pair_cosines(mapped[rows] - mean)
    random = pair_cosines(mapped[rows.roll(1)])
    return {
        "raw r": _pearson(pair_cosines(large[few]), pair_cosines(small[few])),
        "r": _pearson(own, other),
        "mean difference": float((own - other).abs().mean()),
        "centred r": _pearson(*centred),
        "null": {
            "raw r": _pearson(pair_cosines(large[few.roll(1)]), pair_cosines(small[few])),
            "r": _pearson(own, random),
            "mean difference": float((own - random).abs().mean()),
        },
    }


def _all_rows(mapped: Tensor, small: Tensor) -> Readings:
    """As published, fitted rows included."""
    cosines = cosine_similarity(mapped, small)
    ranked = cosines.argsort()
    return {
        "cosine": float(cosines.mean()),
        "share above": {str(level): float((cosines > level).double().mean()) for level in LEVELS},
        "worst": ranked[:20].tolist(),
        "best": ranked.flip(0)[:20].tolist(),
    }


def _digits(mapped: Tensor, small: Tensor) -> Readings:
    return {
        "cosine": cosine_similarity(mapped, small).tolist(),
        "r": _pearson(pair_cosines(mapped), pair_cosines(small)),
    }


def _volumes(mapped: Tensor, small: Tensor, simplices: Int[Tensor, "simplex five"]) -> Readings:
    first, second = (simplex_volumes(table, simplices) for table in (mapped, small))
    both = (first > 0) & (second > 0)  # filtered jointly: pairs stay pairs
    return {
        "cv": volume_stats(first).cv,
        "target's cv": volume_stats(second).cv,
        "ratio": float(first[both].mean() / second[both].mean()),
        "r": _pearson(first[both], second[both]),
        "null": {"r": 0.0, "deviation of r": 1 / math.sqrt(max(int(both.sum()) - 1, 1))},
    }


def _paired_at_random(x: Tensor, y: Tensor) -> float:
    return float(cosine_similarity(x.roll(1, 0), y).mean())


def _pearson(x: Tensor, y: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1])
