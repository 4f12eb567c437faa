"""The passes of the battery over matrices one at a time: spectra, sparsity, neurons, norms, biases.

Each takes a :class:`~probekit.weights.WeightSource` and gives tidy tables in which a column
``x_null`` stands beside every column ``x``.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pandas as pd
import torch

from .. import geometry
from .input_norms import input_norms
from .names import LAYER_TYPES
from .neurons import importance_cv_null, neuron_importance, wilson
from .norms import norm_scales
from .sources import Entry, WeightSource
from .sparsity import GAUSSIAN, Magnitudes, gaussian_error
from .spectra import SpectrumStats, singular_values, spectrum_row
from .spectrum_nulls import spectrum_null

Item = TypeVar("Item")
#: Wraps what is iterated over, such as in a progress bar, with a word for what it is.
Progress = Callable[[list[Item], str], Iterable[Item]]


def spectra_and_sparsity(
    source: WeightSource, progress: Progress[Entry]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Spectra (of the layers' matrices), sparsity (of all), and sparsity pooled by type.

    Each matrix is read once here, and decomposed once.
    """
    spectra, sparsity = [], []
    pooled: dict[tuple[str, str], Magnitudes] = {}
    for entry in progress([e for e in source.entries if e.is_matrix], "spectra"):
        stored = entry.read()
        where = {"type": entry.type, "stack": entry.stack, "layer": entry.layer}
        small = Magnitudes.of(stored)
        sparsity.append(where | _sparsity_columns(small))
        for key in {(entry.type, entry.stack), (entry.type, "all"), ("all", "all")}:
            pooled[key] = pooled[key] + small if key in pooled else small
        if entry.type in LAYER_TYPES:
            row = spectrum_row(singular_values(stored))
            shape = {"rows": len(stored), "cols": stored.shape[1]}
            spectra.append(where | shape | beside(row, spectrum_null(*stored.shape).value))
    if not len(source.stacks) > 1:  # then a type's only stack is all there is
        pooled = {key: small for key, small in pooled.items() if key[1] == "all"}
    rows = [
        {"type": type, "stack": stack} | _sparsity_columns(small)
        for (type, stack), small in sorted(pooled.items())
    ]
    return pd.DataFrame(spectra), pd.DataFrame(sparsity), pd.DataFrame(rows)


def pooled_spectra(spectra: pd.DataFrame) -> pd.DataFrame:
    """By type and statistic: the published mean over its matrices, beside the median, and nulls."""
    rows = []
    for type, group in spectra.groupby("type", sort=False):
        for field in dataclasses.fields(SpectrumStats):
            values, nulls = group[field.name], group[f"{field.name}_null"]
            rows.append(
                {
                    "type": type,
                    "statistic": field.name,
                    "matrices": len(group),
                    "mean": values.mean(),
                    "median": values.median(),
                    "null": nulls.mean(),
                }
            )
    return pd.DataFrame(rows)


def neuron_tables(
    source: WeightSource, progress: Progress[tuple[str, int]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Dead and weak neurons a layer, and pooled over the layers of each stack."""
    ups = {stack: source.find("mlp_up", stack) for stack in source.stacks}
    rows = []
    for stack, layer in progress([(s, i) for s in ups for i in sorted(ups[s])], "neurons"):
        down, gate = (source.find(t, stack).get(layer) for t in ("mlp_down", "mlp_gate"))
        if down is None:
            continue
        norm = input_norms(source, stack).get((layer, "mlp"))
        weights = ups[stack][layer].read(), down.read(), None if gate is None else gate.read()
        found = neuron_importance(*weights)
        folded = None if norm is None else neuron_importance(*weights, norm.gamma.read())
        rows.append(
            {"stack": stack, "layer": layer, "neurons": found.n_neurons}
            | _counts("dead", found.n_dead, found.n_neurons)
            | _counts("weak", found.n_weak, found.n_neurons)
            | {
                "cv": found.cv,
                "cv_null": importance_cv_null(weights[0].shape[1], gated=gate is not None),
                "dead_folded": math.nan if folded is None else folded.n_dead,
                "weak_folded": math.nan if folded is None else folded.n_weak,
            }
        )
    pooled = []
    for stack in dict.fromkeys(row["stack"] for row in rows):
        own = [row for row in rows if row["stack"] == stack]
        neurons, dead, weak = (sum(row[k] for row in own) for k in ("neurons", "dead", "weak"))
        counts = _counts("dead", dead, neurons) | _counts("weak", weak, neurons)
        pooled.append({"stack": stack, "neurons": neurons} | counts)
    return pd.DataFrame(rows), pd.DataFrame(pooled)


def norm_table(source: WeightSource) -> pd.DataFrame:
    """Scales of every norm; at initialisation the mean is 1 and the deviation 0."""
    rows = []
    for entry in source.entries:
        if entry.type == "norm" and entry.kind == "weight":
            scales = norm_scales(entry.read())
            null = {"mean_null": 1.0, "std_null": 0.0, "cv_null": 0.0}
            null |= {"n_above_1_5_null": 0, "n_below_0_5_null": 0, "n_near_1_null": scales.number}
            where = {"name": entry.name, "stack": entry.stack, "layer": entry.layer}
            rows.append(where | dataclasses.asdict(scales) | null)
    return pd.DataFrame(rows)


def position_bias_table(source: WeightSource) -> pd.DataFrame:
    """A row for each head of each relative position bias: the published numbers, and by distance.

    ``kind`` is what the heads' curves are together, for each direction: see
    :func:`probekit.geometry.curve_kind`.
    """
    rows = []
    for entry in source.entries:
        if entry.type == "position_bias" and entry.is_matrix:
            rows += _bias_rows(entry, source.max_distance)
    return pd.DataFrame(rows)


def _bias_rows(entry: Entry, max_distance: int, length: int = 128) -> list[dict[str, Any]]:
    bias = entry.read().double()
    two_sided = entry.stack != "decoder"
    profile = geometry.bias_profile(
        bias, bidirectional=two_sided, max_distance=max_distance, length=length
    )
    kinds = geometry.published_head_kinds(bias)
    half = bias[: len(bias) // 2].diff(dim=0)
    numbered = torch.cat([torch.arange(len(bias))[:, None], bias], 1)
    correlations = torch.corrcoef(numbered.mT)[0, 1:]
    rows = []
    for head in range(bias.shape[1]):
        row: dict[str, Any] = {
            "stack": entry.stack,
            "head": head,
            "min": float(bias[:, head].min()),
            "max": float(bias[:, head].max()),
            "argmax_bucket": int(bias[:, head].argmax()),
            "published_kind": kinds[head],
            "mixed_null": geometry.published_mixed_null(len(bias))[0],
            "falling_first_half": float((half[:, head] <= 0).double().mean()),
            "falling_first_half_null": 0.5,
            "bucket_correlation": float(correlations[head]),
            "bucket_correlation_null": 0.0,
            "attended_distance": float(profile.attended_distance[head]),
            "attended_distance_null": geometry.uniform_distance(length, bidirectional=two_sided),
            "entropy": float(profile.entropy[head]),
            "entropy_null": geometry.uniform_entropy(length, bidirectional=two_sided),
        }
        for at, direction in enumerate(profile.directions):
            row[f"slope_{direction}"] = float(profile.slope[at, head])
            row[f"slope_{direction}_null"] = 0.0
            row[f"kind_{direction}"] = profile.kind[at]
        rows.append(row)
    return rows


def beside(stats: Any, null: Any) -> dict[str, Any]:
    """The fields of a result, each followed by that of its null as ``x_null``."""
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(stats):
        columns[field.name] = getattr(stats, field.name)
        columns[f"{field.name}_null"] = getattr(null, field.name)
    return columns


def _sparsity_columns(small: Magnitudes) -> dict[str, Any]:
    columns: dict[str, Any] = {"number": small.number, "rms": small.rms}
    for threshold, share, null in zip(
        small.thresholds, small.shares, small.shares_null, strict=True
    ):
        columns[f"below_{threshold:g}"] = share
        columns[f"below_{threshold:g}_null"] = null
    columns |= beside(small.stats, GAUSSIAN)
    errors = dataclasses.asdict(gaussian_error(small.number))
    return columns | {f"{name}_null_sd": error for name, error in errors.items()}


def _counts(name: str, count: int, number: int) -> dict[str, Any]:
    low, high = wilson(count, number)
    return {name: count, f"{name}_null": 0, f"{name}_share_low": low, f"{name}_share_high": high}
