"""Two periodic streams, interleaved: a task whose best causal accuracy is known in closed form.

Stream A is a random pattern of 2 to 7 tokens, repeated; stream B another; A stands at even
positions, B at odd ones, and every position predicts the next token. Source: "Conservation of
Separability", the interleaved task.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import ProbekitError

PERIODS = range(2, 8)  # lengths of a pattern, all equally likely


@dataclass(frozen=True)
class InterleavedTask:
    """Interleaved streams of ``length`` tokens over a vocabulary of ``vocab``.

    Args:
        held_out: sequences in :meth:`validation`, drawn from a generator of their own.

    Raises:
        ProbekitError: sizes below 2.
    """

    vocab: int = 4096
    length: int = 128
    held_out: int = 500

    def __post_init__(self) -> None:
        if min(self.vocab, self.length) < 2:
            raise ProbekitError(
                f"vocab and length must be at least 2, given {self.vocab} and {self.length}"
            )

    @property
    def config(self) -> dict[str, Any]:
        """Sizes of a model's input and vocabulary."""
        return {"n_ctx": self.length, "d_vocab": self.vocab}

    @property
    def ceiling(self) -> float:
        """What a causal predictor can reach, as an upper bound: new tokens have to be guessed.

        Of ``length`` predictions ``l_A - 1 + l_B`` are of a pattern's tokens at their first
        occurrence (8 on average, less where the sequence is shorter than that), each right with
        probability 1 / vocab. For 128 tokens of 4,096 that is the write-up's 93.75 %.
        """
        of_a, of_b = (self.length + 2) // 2, (self.length + 1) // 2
        new_a = np.mean([min(period, of_a) for period in PERIODS])
        new_b = np.mean([min(period, of_b) for period in PERIODS])
        return float(1 - (new_a - 1 + new_b) * (1 - 1 / self.vocab) / self.length)

    def batch(
        self, generator: np.random.Generator, size: int
    ) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
        """Fresh sequences: all tokens but the last, and all but the first."""
        patterns = generator.integers(0, self.vocab, (size, 2, PERIODS[-1]))
        periods = generator.integers(PERIODS[0], PERIODS[-1] + 1, (size, 2, 1))
        times = np.arange(self.length // 2 + 1)
        streams = np.take_along_axis(patterns, times % periods, axis=2)
        sequences = torch.from_numpy(streams.transpose(0, 2, 1).reshape(size, -1))
        return sequences[:, : self.length], sequences[:, 1 : self.length + 1]

    def validation(self) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
        """Sequences that training does not draw."""
        return self.batch(np.random.default_rng([self.vocab, self.length]), self.held_out)
