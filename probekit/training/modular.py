"""Modular addition as the write-up "Homeostatic Crystallization" ran it, leak included.

The published layout is ``[a, a, b, b, 0, c]`` with ``c = (a + b) mod p``, read at position 5: the
label is the input token at the read-out position, so that the task is an identity copy. The
leak-free layout puts an '=' token there. Source: the write-up's code, sections 1 of the facts.
"""

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

MODULUS = 113
Layout = Literal["published", "leak-free"]


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
    layout: Layout = "published",
    modulus: int = MODULUS,
) -> tuple[Int[Tensor, "batch 6"], Int[Tensor, " batch"]]:
    """Tokens and labels. The separator is id 0, the number 0's own; '=' is id ``modulus``."""
    a, b = pairs.unbind(-1)
    label = (a + b) % modulus
    last = label if layout == "published" else torch.full_like(label, modulus)
    return torch.stack([a, a, b, b, torch.zeros_like(a), last], dim=-1), label


@dataclass(frozen=True)
class ModularData:
    """What one seed trains on and is read on.

    Args:
        seed: of the batches.
        train, test: tokens and labels; of the test pairs the first 1,000.
        monitored: tokens of 128 test pairs, drawn by the seed, that the monitor sees.
    """

    seed: int
    train: tuple[Int[Tensor, "train 6"], Int[Tensor, " train"]]
    test: tuple[Int[Tensor, "test 6"], Int[Tensor, " test"]]
    monitored: Int[Tensor, "monitored 6"]

    @classmethod
    def of(cls, seed: int, layout: Layout = "published") -> "ModularData":
        """The published split, as this seed sees it."""
        train, test = modular_split()
        chosen = np.random.default_rng([seed, 1]).choice(len(test), 128, replace=False)
        return cls(
            seed,
            modular_tokens(train, layout),
            modular_tokens(test[:1000], layout),
            modular_tokens(test[torch.from_numpy(chosen)], layout)[0],
        )

    def batch(self, step: int, size: int) -> tuple[Int[Tensor, "batch 6"], Int[Tensor, " batch"]]:
        """The examples of one step, drawn with replacement."""
        tokens, labels = self.train
        # A generator a step, so that a resumed run draws what an uninterrupted one would.
        draw = np.random.default_rng([self.seed, 0, step]).integers(0, len(tokens), size)
        return tokens[draw], labels[draw]
