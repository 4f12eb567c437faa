"""Next-token prediction on a text: characters, or byte pairs learned from it.

The default text is the reference that ships with Python itself (`pydoc_data.topics`, about half a
million characters of English and code), so that the task needs no download.
"""

import pydoc_data.topics
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import ProbekitError, unknown
from ..files import read_text

LEVELS = ("characters", "bpe")


@dataclass(frozen=True)
class LanguageTask:
    """Windows of a text; every position predicts the next token.

    Args:
        file: a UTF-8 text; None is Python's own reference.
        level: tokens are characters, or byte pairs learned on the training part.
        vocab: size of the byte-pair vocabulary.
        length: tokens a window.
        held_out: windows in :meth:`validation`, from the last tenth of the text.

    Raises:
        ProbekitError: an unknown level, a file that cannot be read, or a text too short.
    """

    file: str | None = None
    level: Literal["characters", "bpe"] = "bpe"
    vocab: int = 512
    length: int = 64
    held_out: int = 200

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ProbekitError(unknown("level", self.level, LEVELS))
        parts = _encoded(self.file, self.level, self.vocab)[:2]
        if min(map(len, parts)) <= self.length:
            raise ProbekitError(
                f"the text has {len(parts[1])} tokens in its last tenth, fewer than a window of "
                f"{self.length} needs; give a longer text or a smaller length"
            )

    @property
    def config(self) -> dict[str, Any]:
        """Sizes of a model's input and vocabulary."""
        return {
            "n_ctx": self.length,
            "d_vocab": len(_encoded(self.file, self.level, self.vocab)[2]),
        }

    @property
    def ceiling(self) -> None:
        """None: nobody knows how well English can be predicted."""
        return None

    def words(self) -> list[str]:
        """The vocabulary, by token id."""
        return list(_encoded(self.file, self.level, self.vocab)[2])

    def text(self) -> Int[Tensor, " token"]:
        """The training part, the first nine tenths, as token ids."""
        return torch.from_numpy(_encoded(self.file, self.level, self.vocab)[0])

    def batch(
        self, generator: np.random.Generator, size: int
    ) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
        """Windows at random places of the first nine tenths."""
        train = _encoded(self.file, self.level, self.vocab)[0]
        return self._windows(train, generator.integers(0, len(train) - self.length, size))

    def validation(self) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
        """Windows at even distances in the last tenth."""
        rest = _encoded(self.file, self.level, self.vocab)[1]
        starts = np.linspace(0, len(rest) - self.length - 1, self.held_out).astype(int)
        return self._windows(rest, starts)

    def _windows(self, ids: np.ndarray, starts: np.ndarray) -> tuple[Tensor, Tensor]:
        windows = torch.from_numpy(ids[starts[:, None] + np.arange(self.length + 1)])
        return windows[:, :-1], windows[:, 1:]


def default_corpus() -> str:
    """Python's language reference as ``help()`` shows it; it differs a little by version."""
    return "\n".join(pydoc_data.topics.topics.values())


@lru_cache(maxsize=8)
def _encoded(
    file: str | None, level: str, vocab: int
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Token ids of the first nine tenths and of the rest, and the vocabulary."""
    text = default_corpus() if file is None else read_text(file, "give a UTF-8 text")
    cut = int(0.9 * len(text))
    parts = text[:cut], text[cut:]
    if level == "characters":
        words = tuple(sorted(set(text)))
        place = {character: index for index, character in enumerate(words)}
        first, rest = (np.array([place[c] for c in part], dtype=np.int64) for part in parts)
        return first, rest, words
    import tokenizers

    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([parts[0]], vocab_size=vocab, show_progress=False)
    words = tuple(tokenizer.id_to_token(index) or "" for index in range(tokenizer.get_vocab_size()))
    first, rest = (np.array(tokenizer.encode(part).ids, dtype=np.int64) for part in parts)
    return first, rest, words
