"""Modular addition as the write-up "Homeostatic Crystallization" ran it, leak included.

The published layout is ``[a, a, b, b, 0, c]`` with ``c = (a + b) mod p``, read at position 5: the
label is the input token at the read-out position, so that the task is an identity copy. The
leak-free layout puts an '=' token there. Source: the write-up's code, sections 1 of the facts.
"""

import random
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

MODULUS = 113


def modular_split(
    modulus: int = MODULUS, fraction: float = 0.9, seed: int = 42
) -> tuple[Int[Tensor, "train 2"], Int[Tensor, "test 2"]]:
    """All ordered pairs (a, b), shuffled by Python's ``random`` and split as published.

    Example:
        >>> train, test = modular_split()
        >>> len(train), len(test), test[0].tolist()
        (11492, 1277, [91, 100])
    """
    pairs = [(a, b) for a in range(modulus) for b in range(modulus)]
    random.Random(seed).shuffle(pairs)
    cut = int(fraction * len(pairs))
    return torch.tensor(pairs[:cut]), torch.tensor(pairs[cut:])


def modular_tokens(
    pairs: Int[Tensor, "batch 2"],
    layout: Literal["published", "leak-free"] = "published",
    modulus: int = MODULUS,
) -> tuple[Int[Tensor, "batch 6"], Int[Tensor, " batch"]]:
    """Tokens and labels. The separator is id 0, the number 0's own; '=' is id ``modulus``."""
    a, b = pairs.unbind(-1)
    label = (a + b) % modulus
    last = label if layout == "published" else torch.full_like(label, modulus)
    return torch.stack([a, a, b, b, torch.zeros_like(a), last], dim=-1), label
