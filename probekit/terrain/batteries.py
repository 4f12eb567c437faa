"""What the recipes on weights keep of a battery: its tables, and neurons on text.

Source: the write-up "Geometric Terrain Analysis", its sections on weights.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..attachment import attach
from ..hooked.model import HookedModel
from ..probes import DeadNeurons
from ..runs import json_safe
from ..sitemap import list_sites
from ..training.language import default_corpus
from ..weights import WeightBattery

Readings = dict[str, Any]
TOKENS = 128  # of a window
SPEECHLESS = 1.0  # share of tokens on which a dead neuron is silent


def battery_readings(battery: WeightBattery) -> Readings:
    """The battery's tables as rows, JSON-safe."""
    return json_safe({name: rows.to_dict("records") for name, rows in battery.tables.items()})


def table(readings: Readings, name: str, **where: Any) -> Any:
    """A DataFrame that :func:`battery_readings` kept, or its rows with these values."""
    rows: Any = pd.DataFrame(readings[name])
    for column, value in where.items():
        rows = rows[rows[column] == value] if len(rows) else rows
    return rows


def neurons_on_text(model: HookedModel, tokenizer: Any, windows: int) -> Readings:
    """The share of an encoder's neurons that are silent on all tokens of Python's own reference.

    ``silent`` is the mean share of tokens without an activation above 0, ``bound`` how often such a
    neuron could still speak at 95 %; empty where the model has no MLP of its own to read.
    """
    sites = set(list_sites(model)["site"])
    stack = "encoder." if "encoder.0.mlp_post" in sites else ""
    if f"{stack}0.mlp_post" not in sites or tokenizer is None:
        return {}
    corpus = default_corpus()
    ids = tokenizer(corpus[: 20 * windows * TOKENS], add_special_tokens=False)["input_ids"]
    rows = torch.tensor(ids[: windows * TOKENS]).view(-1, TOKENS)
    decoder = {"decoder_input": rows[:1, :1]} if "decoder.0.resid_pre" in sites else {}
    with attach(model, DeadNeurons(f"{stack}mlp_post", name="neurons")) as run, torch.no_grad():
        for row in tqdm(rows, desc="neurons on text", delay=3):
            model(row[None], attention_mask=torch.ones_like(row[None]), **decoder)
    silent = run["neurons"].values[:, 0]
    return {
        "neurons": silent.numel(),
        "dead": int((silent >= SPEECHLESS).sum()),
        "silent": float(silent.mean()),
        "tokens": rows.numel(),
        "bound": 3 / rows.numel(),
    }


def positive_fractions(readings: Readings, attention: str) -> list[float]:
    """Share of positive eigenvalues of the published product, by layer; none of grouped heads."""
    rows = table(readings, "published_qk", attention=attention)
    return rows["positive_fraction"].tolist() if len(rows) else []


def mean_positive(readings: Readings) -> float:
    """The mean of :func:`positive_fractions` over layers of self-attention; NaN without any."""
    found = positive_fractions(readings, "self")
    return sum(found) / len(found) if found else math.nan


def pooled(readings: Readings, name: str, type: str, column: str) -> float:
    """A number of a pooled table, by type; NaN where the model has no such matrices."""
    rows = table(readings, name, type=type)
    if "stack" in rows and len(rows) > 1:
        rows = rows[rows["stack"] == "all"]
    return float(rows[column].iloc[0]) if len(rows) else math.nan


def spectral(readings: Readings, type: str, statistic: str, column: str) -> float:
    """``mean``, ``median`` or ``null`` of a spectrum's statistic; NaN where there is none."""
    rows = table(readings, "spectra_pooled", type=type, statistic=statistic)
    return float(rows[column].iloc[0]) if len(rows) else math.nan


def scores_beyond(readings: Readings, deviations: float) -> float:
    """The share of heads whose gauge-invariant score lies beyond so many deviations of chance.

    Heads of cross-attention have no score. NaN where there are no others.
    """
    rows = table(readings, "qk")
    if not len(rows):
        return math.nan
    z = ((rows["score"] - rows["score_null"]).abs() / rows["score_null_sd"]).dropna()
    return float((z > deviations).mean())


def bands(readings: Readings, name: str, types: Sequence[str], column: str) -> float:
    """The largest absolute value of a column over types; NaN where there are none."""
    rows = table(readings, name)
    rows = rows[rows["type"].isin(types)] if len(rows) else rows
    return float(np.abs(rows[column]).max()) if len(rows) else math.nan
