"""Hybrids: a network that runs with other weights in some places, and how alike two networks are.

What is put in, and from where, are the two axes of a table of accuracies; a swap of interest means
nothing without its neighbours there (another part of the same donor, the same part of fresh random
weights or of zeros, the same network in another basis).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...attachment import attach
from ...geometry import cka, flattened_cosine
from ...hooked.load import random_twin
from ...hooked.model import HookedModel
from ...interventions import SwapPackedRows, SwapWeights
from ...interventions.swap_weights import Donor
from ...items import Item
from ...probes import Record
from ..fit import scores

#: From a donor to the item that puts its weights in.
Swap = Callable[[Donor], SwapWeights | SwapPackedRows]
_PARTS = {
    "QK": ("Q", "K"),
    "Q": ("Q",),
    "K": ("K",),
    "V": ("V",),
    "O": ("O",),
    "MLP": ("MLP",),
    "norms": ("LN",),
    "tokens": ("EMBED",),
    "positions": ("POS",),
    "unembedding": ("UNEMBED",),
}


def weight_swaps(model: HookedModel, seed: int) -> dict[str, Swap]:
    """Swaps of every part of a model, by name, in all layers.

    ``published, k of n`` takes the leading rows of [Q; K; V] that the write-up calls the QK of k
    heads (a quarter, half and all), ``QK, k of n`` the true queries and keys of as many.

    Args:
        seed: of ``"random"`` as a donor.
    """
    n_heads, width = model.cfg.n_heads, model.cfg.d_model
    counts = tuple(dict.fromkeys(max(1, n_heads // share) for share in (4, 2, 1)))

    def rows(heads: int) -> Swap:
        count = heads * 3 * width // n_heads
        return lambda donor: SwapPackedRows(donor, count, seed=seed)

    def weights_of(parts: tuple[str, ...], heads: tuple[int, ...] | None = None) -> Swap:
        return lambda donor: SwapWeights(donor, parts, heads=heads, seed=seed)

    return {
        **{f"published, {k} of {n_heads}": rows(k) for k in counts},
        **{f"QK, {k} of {n_heads}": weights_of(("Q", "K"), tuple(range(k))) for k in counts[:-1]},
        **{name: weights_of(parts) for name, parts in _PARTS.items()},
    }


def accuracy(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch read"],
    *items: Item,
) -> float:
    """The share of labels predicted while ``items`` are attached."""
    with attach(model, *items):
        return float(scores(model, tokens, labels)["accuracy"])


def swap_accuracies(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch read"],
    donors: Mapping[str, Mapping[str, Donor]],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Accuracy of ``model`` by swap and donor.

    Args:
        donors: of each swap of :func:`weight_swaps`, by name.
        seed: of ``"random"`` as a donor.
    """
    swaps = weight_swaps(model, seed)
    return {
        name: {donor: accuracy(model, tokens, labels, swaps[name](w)) for donor, w in own.items()}
        for name, own in donors.items()
    }


@dataclass(frozen=True, eq=False)
class Activations:
    """Attention patterns of a layer, and the residual stream that leaves it."""

    pattern: Float[Tensor, "batch head query key"]
    residual: Float[Tensor, "batch pos d_model"]


def read_activations(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], *items: Item, layer: int = 0
) -> Activations:
    """What ``layer`` does while ``items`` are attached."""
    names = ("pattern", "resid_post")
    records = [Record(f"{layer}.{name}", name=name) for name in names]
    with torch.no_grad(), attach(model, *items, *records) as run:
        model(tokens)
    return Activations(*(run[name].values for name in names))


def similarity(one: Activations, other: Activations) -> dict[str, float]:
    """Cosines of patterns and residuals, as published and with what each forgets put back.

    ``attention`` is of patterns averaged over heads, as published, which forgets which head
    attends where; ``attention by head`` is not. ``residual`` is in the native basis, where
    unrelated bases read 0; ``linear CKA`` needs no basis.
    """
    return {
        "attention": flattened_cosine(one.pattern.mean(1), other.pattern.mean(1)),
        "attention by head": flattened_cosine(one.pattern, other.pattern),
        "residual": flattened_cosine(one.residual, other.residual),
        "linear CKA": cka(one.residual.flatten(0, 1), other.residual.flatten(0, 1)),
    }


def similarities(
    model: HookedModel,
    others: Mapping[str, HookedModel],
    tokens: Int[Tensor, "batch pos"],
    hybrid: Item,
    seed: int,
) -> dict[str, dict[str, float]]:
    """:func:`similarity` of ``model`` with each other, and with what they are to be held against.

    Beside the others: ``hybrid``, the model itself while that item is attached; ``untrained``,
    fresh weights; ``other inputs``, the model itself on the next example's tokens, which reads high
    where it does the same whatever the input.

    Args:
        seed: of the fresh weights.
    """
    there = {name: read_activations(other, tokens) for name, other in others.items()}
    there["hybrid"] = read_activations(model, tokens, hybrid)
    # Not the seed itself: the model may have started from it.
    there["untrained"] = read_activations(random_twin(model, 2**31 + seed), tokens)
    there["other inputs"] = read_activations(model, tokens.roll(1, 0))
    own = read_activations(model, tokens)
    return {name: similarity(own, other) for name, other in there.items()}
