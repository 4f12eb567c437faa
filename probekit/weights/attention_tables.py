"""The passes of the battery over pairs of matrices: query-key circuits, and layers with layers."""

import math
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from .input_norms import InputNorm, input_norms
from .layers import LayerCosines, Read, circuit_cosines, layer_cosines
from .names import LAYER_TYPES
from .published_qk import published_qk, published_qk_null
from .qk import circuit_null, fold_norm, head_circuits, split_heads
from .sources import Entry, WeightSource
from .tables import Progress

_NUMBERS = ("score", "positive_energy", "stable_rank", "norm")


def qk_tables(
    source: WeightSource, progress: Progress[tuple[str, str, int]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Circuits of each head (none where the number of heads is unknown); the published products.

    ``score`` and its neighbours include biases and the scales of the norm before; ``score_raw``
    and its are of the weights alone. Of cross-attention there is a stable rank only: its queries
    and keys live in two residual streams. Key scales there are those of the encoder's last norm,
    which is not folded.
    """
    places = [
        (stack, attn, layer)
        for stack in source.stacks
        for attn in ("", "cross_")
        for layer in sorted(source.find(f"{attn}q", stack))
    ]
    circuits, published = [], []
    for stack, attn, layer in progress(places, "query-key circuits"):
        part = _Part(source, stack, attn, layer)
        where = {"stack": stack, "attention": "cross" if attn else "self", "layer": layer}
        heads = source.heads[stack]
        if heads is not None:
            circuits += [where | row for row in _circuit_rows(part, heads)]
        W_q, W_k = (part.weight(side) for side in "qk")
        if W_q.shape == W_k.shape:
            published.append(where | _published_row(W_q, W_k))
    return pd.DataFrame(circuits), pd.DataFrame(published)


class _Part:
    """One attention's weights and biases."""

    def __init__(self, source: WeightSource, stack: str, attn: str, layer: int) -> None:
        self.attn, self.layer = attn, layer
        self._weights = {side: source.find(f"{attn}{side}", stack) for side in "qk"}
        self._biases = {side: source.find(f"{attn}{side}", stack, "bias") for side in "qk"}
        norms = input_norms(source, stack)
        self.norm: InputNorm | None = norms.get((layer, "cross" if attn else "attention"))

    def weight(self, side: str) -> Tensor:
        return self._weights[side][self.layer].read()

    def bias(self, side: str) -> Tensor | None:
        entry = self._biases[side].get(self.layer)
        return None if entry is None else entry.read()


def _circuit_rows(part: _Part, heads: int) -> list[dict[str, Any]]:
    W_q, W_k = part.weight("q").double(), part.weight("k").double()
    d_head = len(W_q) // heads
    groups = {"q": heads, "k": max(1, len(W_k) // d_head)}
    W = {"q": split_heads(W_q, heads), "k": split_heads(W_k, groups["k"])}
    raw = whole = head_circuits(W["q"], W["k"])
    folded: dict[str, tuple[Tensor, Tensor | None]] = {}
    for side in "qk":
        bias = part.bias(side)
        b = None if bias is None else bias.double().unflatten(0, (groups[side], -1))
        folded[side] = W[side], b
        if part.norm is not None and not (part.attn and side == "k"):
            beta = None if part.norm.beta is None else part.norm.beta.read()
            folded[side] = fold_norm(W[side], b, part.norm.gamma.read(), beta)
    if any(folded[side][0] is not W[side] or folded[side][1] is not None for side in "qk"):
        whole = head_circuits(folded["q"][0], folded["k"][0], folded["q"][1], folded["k"][1])
    null = circuit_null(W_q.shape[1], d_head)
    rows = []
    for head in range(heads):
        row: dict[str, Any] = {"head": head, "key_head": head * groups["k"] // heads}
        for name in _NUMBERS:
            meaningless = part.attn and name in ("score", "positive_energy")
            row[name] = math.nan if meaningless else float(getattr(whole, name)[head])
            row[f"{name}_raw"] = math.nan if meaningless else float(getattr(raw, name)[head])
        row |= {
            "score_null": null.score,
            "score_null_sd": null.score_sd,
            "positive_energy_null": null.positive_energy,
            "positive_energy_null_sd": null.positive_energy_sd,
            "stable_rank_null": null.stable_rank,
        }
        rows.append(row)
    return rows


def _published_row(W_q: Tensor, W_k: Tensor) -> dict[str, Any]:
    found, null = published_qk(W_q, W_k), published_qk_null(*W_q.shape)
    row: dict[str, Any] = {"inner": found.inner}
    for name in ("stable_rank", "participation", "symmetry_deviation", "positive_fraction"):
        row[name] = getattr(found, name)
        row[f"{name}_null"] = getattr(null, name)
        row[f"{name}_null_sd"] = getattr(null, f"{name}_sd")
    row |= {"n_positive": found.n_positive, "n_negative": found.n_negative}
    return row | {f"top_{i}": value for i, value in enumerate(found.top, 1)}


def layer_tables(
    source: WeightSource, progress: Progress[tuple[str, str]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cosines of all pairs of layers, and of neighbours their mean and range, by stack and type.

    Types are those of the matrices, and "circuit" and "cross_circuit" for the head-summed
    ``W_Q^T W_K``.
    """
    places = [
        (stack, type)
        for stack in source.stacks
        for type in (*LAYER_TYPES, "circuit", "cross_circuit")
        if len(source.find(type.replace("circuit", "q"), stack)) > 1
    ]
    pairs, neighbours = [], []
    for stack, type in progress(places, "layers"):
        found = _cosines(source, stack, type)
        if found is None:
            continue
        at = sorted(source.find(type.replace("circuit", "q"), stack))
        where = {"type": type, "stack": stack}
        for i in range(len(at)):
            for j in range(i + 1, len(at)):
                cosine = {"layer": at[i], "other_layer": at[j], "cosine": found.cosines[i, j]}
                cosine |= {"cosine_null": 0.0, "cosine_null_sd": found.null_sd}
                pairs.append(where | cosine | {"z": found.z[i, j]})
        neighbours.append(
            where
            | {
                "adjacent_mean": found.adjacent.mean(),
                "adjacent_mean_null": 0.0,
                "adjacent_mean_null_sd": found.adjacent_mean_sd,
                "adjacent_min": found.adjacent.min(),
                "adjacent_max": found.adjacent.max(),
                "largest_z": found.z.triu(1).abs().max(),
            }
        )
    return _numbers(pairs), _numbers(neighbours)


def _cosines(source: WeightSource, stack: str, type: str) -> LayerCosines | None:
    if not type.endswith("circuit"):
        return layer_cosines(_reads(source.find(type, stack)))
    heads = source.heads[stack]
    if heads is None:
        return None
    queries, keys = (source.find(type.replace("circuit", side), stack) for side in "qk")
    return circuit_cosines(_reads(queries), _reads(keys), heads)


def _reads(entries: dict[int, Entry]) -> list[Read]:
    def read(entry: Entry, rows: slice) -> Tensor:
        numbers = entry.read(rows)
        return numbers if numbers.dtype == torch.float64 else numbers.float()

    return [partial(read, entries[layer]) for layer in sorted(entries)]


def _numbers(rows: list[dict]) -> pd.DataFrame:
    plain = [{k: float(v) if isinstance(v, Tensor) else v for k, v in r.items()} for r in rows]
    return pd.DataFrame(plain)
