"""What the terrain write-up reads off an embedding table, drawn as it draws, nulls beside it.

One generator is consumed in the published order: 5,000 rows for cosines; then, a thousand times,
five rows and five Gaussian points of the table's one standard deviation; then 2,000 rows for
distances. Smaller tables give all their rows.

All numbers are computed in float64.

Source: the write-up "Geometric Terrain Analysis", its section on T5-small's embedding.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.cosines import (
    PERCENTILES,
    cosine_null,
    cosine_stats,
    density_ratio,
    mean_cosine_prediction,
    pair_cosines,
    window_share,
)
from ..geometry.simplex import simplex_volume
from ..geometry.spectrum import (
    covariance_eigenvalues,
    debiased_participation,
    dims_for_variance,
    dims_for_variance_null,
    participation_null,
    participation_ratio,
)
from ..geometry.spread import distance_cv, norm_cv, norm_cv_null, simplex_cv_prediction
from ..geometry.volume_nulls import (
    gaussian_volume_cv,
    gaussian_volumes,
    norms_shuffled,
    unit_centred,
)
from ..geometry.volumes import simplex_volumes, volume_stats

FRACTIONS = (0.8, 0.9, 0.95, 0.99)
COSINE_ROWS, SIMPLICES, DISTANCE_ROWS = 5000, 1000, 2000
WINDOW = 0.01  # to either side of a constant that cosines are said to crowd at
BINS = 80
Readings = dict[str, Any]


def table_readings(
    table: Float[Tensor, "rows dim"], constants: Sequence[float] = (), seed: int = 42
) -> Readings:
    """Norms, cosines, spectrum, pentachora and distances of a table's rows.

    Args:
        table: an embedding, one row a token.
        constants: cosines at which pairs are said to crowd: the share within .01 of each, its
            density over the neighbourhood's, and the nearest pair.
        seed: of NumPy's generator.

    Returns:
        groups of numbers by name, JSON-safe; ``null`` in a group holds what its readings are for
        isotropic rows, or what two other readings predict. ``histograms`` holds bins for pictures.

    Raises:
        ProbekitError: fewer than 5 rows or 4 dimensions.
    """
    table = table.detach().double().cpu()
    rng = np.random.default_rng(seed)
    sample = table[_choice(rng, len(table), COSINE_ROWS)]
    simplices, points = _draws(rng, table)
    distances = table[_choice(rng, len(table), DISTANCE_ROWS)]
    sample = sample[sample.norm(dim=-1) > 0]  # an untrained padding row has no direction
    cosines = pair_cosines(sample)
    eigenvalues = covariance_eigenvalues(table)
    volumes = simplex_volumes(table, simplices)
    return {
        "norms": _norms(table, eigenvalues),
        "cosines": _cosines(cosines, sample, constants),
        "spectrum": _spectrum(eigenvalues, len(table)),
        "volumes": _volumes(table, eigenvalues, simplices, volumes, points, seed),
        "distances": _distances(distances, eigenvalues, table),
        "histograms": {
            "norm": _histogram(table.norm(dim=-1)),
            "cosine": _histogram(cosines),
            "volume over Gaussian mean": _histogram(volumes / simplex_volume(points).mean()),
            "eigenvalues": eigenvalues[:200].tolist(),
        },
    }


def _choice(rng: np.random.Generator, rows: int, number: int) -> Tensor:
    return torch.from_numpy(rng.choice(rows, min(number, rows), replace=False))


def _draws(rng: np.random.Generator, table: Tensor) -> tuple[Tensor, Tensor]:
    """Row indices of pentachora, and Gaussian ones, in the order in which they were published."""
    std = float(table.std(correction=0))
    simplices, points = [], []
    for _ in range(SIMPLICES):
        simplices.append(rng.choice(len(table), 5, replace=False))
        points.append(rng.normal(0, std, (5, table.shape[1])).astype(np.float32))
    return torch.from_numpy(np.stack(simplices)), torch.from_numpy(np.stack(points)).double()


def _norms(table: Tensor, eigenvalues: Tensor) -> Readings:
    norms = table.norm(dim=-1)
    ratio = float(participation_ratio(eigenvalues))
    return {
        "mean": float(norms.mean()),
        "std": float(norms.std(correction=0)),
        "least": float(norms.min()),
        "largest": float(norms.max()),
        "least token": int(norms.argmin()),
        "largest token": int(norms.argmax()),
        "quantiles": np.quantile(norms.numpy(), PERCENTILES).tolist(),
        "below 1e-6": int((norms < 1e-6).sum()),
        "mean of dimensions": float(table.mean(0).mean()),
        "deviation of dimensions": float(table.std(0, correction=0).mean()),
        "centred cv": float(norm_cv(table)),
        "null": {"centred cv": norm_cv_null(ratio)},
    }


def _cosines(cosines: Tensor, sample: Tensor, constants: Sequence[float]) -> Readings:
    stats = cosine_stats(cosines)
    return {
        "mean": stats.mean,
        "std": stats.std,
        "quantiles": list(stats.quantiles.values()),
        "constants": {
            str(constant): {
                "share": window_share(cosines, constant, WINDOW),
                "density ratio": density_ratio(cosines, constant, WINDOW),
                "nearest": float((cosines - constant).abs().min()),
            }
            for constant in constants
        },
        "null": {
            "mean": float(mean_cosine_prediction(sample)),
            "std": cosine_null(sample.shape[1]),
            "density ratio": 1.0,
        },
    }


def _spectrum(eigenvalues: Tensor, rows: int) -> Readings:
    dim, ratio = len(eigenvalues), participation_ratio(eigenvalues)
    return {
        "total variance": float(eigenvalues.sum()),
        "top share": float(eigenvalues[0] / eigenvalues.sum()),
        "participation": float(ratio),
        "participation / dim": float(ratio) / dim,
        "dims": dims_for_variance(eigenvalues, FRACTIONS).tolist(),
        "null": {
            "participation / dim": participation_null(dim, rows) / dim,
            "dims": dims_for_variance_null(dim, rows, FRACTIONS),
        },
    }


def _volumes(
    table: Tensor,
    eigenvalues: Tensor,
    simplices: Tensor,
    volumes: Tensor,
    points: Tensor,
    seed: int,
) -> Readings:
    stats, gaussian = volume_stats(volumes), volume_stats(simplex_volume(points))
    surrogate = volume_stats(gaussian_volumes(eigenvalues, 4, SIMPLICES, seed))
    unit = volume_stats(simplex_volumes(unit_centred(table), simplices))
    shuffled = volume_stats(simplex_volumes(norms_shuffled(table, seed), simplices))
    ratio = float(debiased_participation(participation_ratio(eigenvalues), len(table)))
    return {
        "cv": stats.cv,
        "mean": stats.mean,
        "std of ln": stats.log_std,
        "kept": stats.kept,
        "ratio": stats.mean / gaussian.mean,
        "unit-centred cv": unit.cv,
        "null": {
            "cv": gaussian_volume_cv(table.shape[1]),
            "cv by PR and norms": simplex_cv_prediction(ratio, float(norm_cv(table))),
            "same-covariance cv": surrogate.cv,
            "norms-shuffled cv": shuffled.cv,
            "same-covariance ratio": surrogate.mean / gaussian.mean,
            "ratio": 1.0,
        },
    }


def _distances(sample: Tensor, eigenvalues: Tensor, table: Tensor) -> Readings:
    distances = torch.nn.functional.pdist(sample)
    ratio = float(debiased_participation(participation_ratio(eigenvalues), len(table)))
    return {
        "mean": float(distances.mean()),
        "std": float(distances.std(correction=0)),
        "cv": distance_cv(sample),
        "quantiles": np.quantile(distances.numpy(), PERCENTILES).tolist(),
        "null": {"cv": simplex_cv_prediction(ratio, float(norm_cv(table)), k=1)},
    }


def _histogram(values: Tensor) -> dict[str, list[float]]:
    density, edges = np.histogram(values.numpy(), BINS, density=True)
    return {"density": density.tolist(), "edges": edges.tolist()}
