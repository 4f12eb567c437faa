"""What a toy model is trained on: batches, a validation set, and the best that is possible.

Labels stand for the last positions read: ``[batch, 1]`` where only the last position is trained and
scored, ``[batch, pos]`` where every position predicts. ``ceiling`` is the accuracy of the best
predictor that sees no later token than the one it reads at (its own token may hold the answer:
see :func:`~probekit.training.find_leak`).
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import ProbekitError, unknown

Tokens = Int[Tensor, "batch pos"]
Labels = Int[Tensor, "batch read"]
FORMS = ("two-token", "sequence", "separate")
_LENGTH = 16  # of a sequence, padding included


@runtime_checkable
class Task(Protocol):
    """Modular addition, interleaved streams, or a text."""

    @property
    def config(self) -> dict[str, Any]:
        """What a model's config takes from the task: ``n_ctx`` and ``d_vocab``."""
        ...

    @property
    def ceiling(self) -> float | None:
        """The accuracy that a causal predictor can reach (fraction); None where unknown."""
        ...

    def batch(self, generator: np.random.Generator, size: int) -> tuple[Tokens, Labels]:
        """Training examples, drawn from ``generator`` alone."""
        ...

    def validation(self) -> tuple[Tokens, Labels]:
        """Examples that are not trained on; always the same."""
        ...


@dataclass(frozen=True)
class ModularTask:
    """``(a + b) mod p``, in the three forms of the write-up "Conservation of Separability".

    ``two-token``: ``[a, b]``, read at the last position. ``separate``: ``[a, +, b]`` with ids of
    their own for the second addend, read at the last position. ``sequence``:
    ``[a, +, b, =, c, PAD, ...]``, 16 tokens, of which every position predicts the next (without a
    causal mask the answer is visible; the last label is always PAD).

    Args:
        fraction: of all ordered pairs, in training.
        seed: of NumPy's legacy generator, which shuffles the pairs as published.
        held_out: at most so many pairs in :meth:`validation`.

    Raises:
        ProbekitError: an unknown form, or a fraction that leaves no pair to train or validate on.
    """

    form: Literal["two-token", "sequence", "separate"] = "two-token"
    modulus: int = 113
    fraction: float = 0.3
    seed: int = 42
    held_out: int = 2_000

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ProbekitError(unknown("form", self.form, FORMS))
        if not 0 < int(self.fraction * self.modulus**2) < self.modulus**2:
            raise ProbekitError(
                f"fraction must leave pairs on both sides, given {self.fraction} of "
                f"{self.modulus**2}"
            )

    @property
    def config(self) -> dict[str, Any]:
        """Sizes of a model's input and vocabulary."""
        p = self.modulus
        if self.form == "two-token":
            return {"n_ctx": 2, "d_vocab": p}
        if self.form == "separate":
            return {"n_ctx": 3, "d_vocab": 2 * p + 1}
        return {"n_ctx": _LENGTH - 1, "d_vocab": 1 << (p + 2).bit_length()}

    @property
    def ceiling(self) -> float:
        """1, less the second addend where that has to be guessed."""
        if self.form != "sequence":
            return 1.0
        return (_LENGTH - 2 + 1 / self.modulus) / (_LENGTH - 1)

    def pairs(self) -> tuple[Int[Tensor, "train 2"], Int[Tensor, "held_out 2"]]:
        """All ordered pairs, shuffled and split as published (every held-out pair)."""
        order = np.arange(self.modulus**2)
        np.random.RandomState(self.seed).shuffle(order)
        pairs = torch.from_numpy(np.stack([order // self.modulus, order % self.modulus], axis=-1))
        cut = int(self.fraction * len(order))
        return pairs[:cut], pairs[cut:]

    def encode(self, pairs: Int[Tensor, "batch 2"]) -> tuple[Tokens, Labels]:
        """Tokens and labels of pairs."""
        a, b = pairs.unbind(-1)
        p, c = self.modulus, (a + b) % self.modulus
        if self.form == "two-token":
            return pairs, c[:, None]
        if self.form == "separate":
            return torch.stack([a, torch.full_like(a, p), b + p + 1], dim=-1), c[:, None]
        plus, equals, pad = (torch.full_like(a, p + i) for i in range(3))
        padding = [pad] * (_LENGTH - 5)
        sequence = torch.stack([a, plus, b, equals, c, *padding], dim=-1)
        return sequence[:, :-1], sequence[:, 1:]

    def batch(self, generator: np.random.Generator, size: int) -> tuple[Tokens, Labels]:
        """Training pairs, drawn with replacement."""
        train, _ = _split(self)
        return self.encode(train[generator.integers(0, len(train), size)])

    def validation(self) -> tuple[Tokens, Labels]:
        """The first held-out pairs."""
        return self.encode(_split(self)[1][: self.held_out])


_splits: dict[ModularTask, tuple[Tensor, Tensor]] = {}


def _split(task: ModularTask) -> tuple[Tensor, Tensor]:
    if task not in _splits:
        _splits[task] = task.pairs()
    return _splits[task]
