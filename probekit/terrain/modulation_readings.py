"""What a modulator's table is, how far it moves tokens, and the bands of a comparison.

Source: the write-up "Geometric Terrain Analysis", its sections on the residual modulator (health,
impact) and on its pipeline (alignment, reconstruction, bands), and its critique, section B11.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..attachment import attach
from ..geometry.cosines import pair_cosines
from ..geometry.similarity import cosine_similarity
from ..interventions import Lerp
from ..lexicon import band_cosines, cosine_table
from ..modulators import LerpModulator, reconstruction, reconstruction_null
from .modulation import Modulation
from .tokens import hidden_states

Readings = dict[str, Any]
#: Of path similarity, as published in the modulator's section; other than those of the encoder's.
BANDS = ((0.5, 1.0 + 1e-9), (0.25, 0.5), (0.1, 0.25), (0.05, 0.1), (0.0, 0.05))
LEAST = 5  # pairs of a band that is shown


def geometry_readings(found: Modulation) -> Readings:
    """The table's health, its size, the fit to the encoder, and the similarity that it gives back.

    ``start`` is the table before it was given geometry.
    """
    start = copy.deepcopy(found.module)
    start.set_geometry(
        torch.randn(start.geometry.shape, generator=torch.Generator().manual_seed(0))
    )
    null, deviation = reconstruction_null(found.relations, found.anchor_rows.shape[1])
    fit = found.alignment
    names = ("cosine", "shuffled", "centred", "null", "held_out", "held_out_shuffled", "scale")
    return {
        "parameters": sum(p.numel() for p in found.module.parameters()),
        "published parameters": sum(p.numel() for p in LerpModulator().parameters()),
        "matched": len(found.matches),
        "health": {"start": start.health(), "with geometry": found.module.health()},
        "alignment": {name: getattr(fit, name) for name in names},
        "reconstruction": {
            "r": reconstruction(found.relations, found.anchor_rows),
            "null": null,
            "deviation": deviation,
        },
        "stream norms": found.stream_norms().tolist(),
        "length": fit.length,
    }


def impact_readings(found: Modulation, item: Lerp, prompts: Sequence[str]) -> Readings:
    """Tokens with and without an item, after the encoder's end, averaged over prompts.

    Returns:
        ``cosine`` of each token with itself, ``norm ratio``, and by how much the cosines of a
        prompt's pairs of tokens move: ``pair shift`` and ``pair shift's deviation``.
    """
    rows = [_impact(found, item, prompt) for prompt in prompts]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _impact(found: Modulation, item: Lerp, prompt: str) -> dict[str, float]:
    ids = found.tokenizer(prompt, return_tensors="pt")["input_ids"]
    plain = hidden_states(found.model, ids)[1]
    with attach(found.model, item):
        changed = hidden_states(found.model, ids)[1]
    moved = pair_cosines(changed) - pair_cosines(plain)
    ratio = changed.norm(dim=-1) / plain.norm(dim=-1)
    return {
        "cosine": float(cosine_similarity(plain, changed).mean()),
        "norm ratio": float(ratio.mean()),
        "pair shift": float(moved.mean()),
        "pair shift's deviation": float(moved.std(correction=0)),
    }


def band_readings(found: Modulation, encodings: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Mean cosine by band of path similarity, a row a band of five pairs or more."""
    bands = {
        name: band_cosines(found.similarity, found.sample.of(cosine_table(x, found.sample)), BANDS)
        for name, x in encodings.items()
    }
    return [
        {"from": here[0].low, "pairs": here[0].pairs}
        | {name: band.mean for name, band in zip(bands, here, strict=True)}
        for here in zip(*bands.values(), strict=True)
        if here[0].pairs >= LEAST
    ]
