"""Dual-timescale optimisation: the first block fast, the rest slow, clipped apart.

The standard terms are layer-wise learning rates and per-group gradient clipping. As published the
slow group holds later blocks and embeddings, and the wrapper looks for attributes that the model
does not have: the unembedding and the final norm are in no optimizer and stay at their random
start. Source: "Homeostatic Crystallization", section 5.
"""

from collections.abc import Iterable

#: AdamW's second coefficients: (fast, slow), as published.
BETAS = ((0.9, 0.95), (0.9, 0.99))


def published_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Parameter names of the fast and slow groups, and ``"left out"``: those in no optimizer."""
    groups: dict[str, list[str]] = {"fast": [], "slow": [], "left out": []}
    for name in names:
        if name.startswith("layers.0."):
            groups["fast"].append(name)
        elif name.startswith(("layers.", "tok_embed.", "pos.")):
            groups["slow"].append(name)
        else:
            groups["left out"].append(name)
    return groups


def complete_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """The same with nothing left out: unembedding and final norm join the slow group."""
    groups = published_groups(names)
    return {"fast": groups["fast"], "slow": groups["slow"] + groups["left out"]}
