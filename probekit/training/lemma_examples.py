"""Definitions and their words as token ids: what modulators and the small T5 are trained on.

``definition_examples``   "summarize: gloss" in, the word out: for encoder-decoders, as published.
``masked_examples``       "[MASK]: gloss", the word at the mask: for encoders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import ProbekitError
from ..lexicon.baselines import PREFIX

IGNORED = -100
"""A label that no loss counts, as in Hugging Face."""
LENGTHS = (128, 16)
"""Tokens of an input and of a target, at most, as published."""


@dataclass(frozen=True, eq=False)
class LemmaExamples:
    """Inputs padded to one length, what is to be said, and the first token of the word.

    ``labels`` are the target's tokens (encoder-decoder) or, column by column, what is to be said at
    the input's positions (encoder), -100 where it is nothing.
    """

    ids: Int[Tensor, "example pos"]
    mask: Int[Tensor, "example pos"]
    labels: Int[Tensor, "example target"]
    lemmas: Int[Tensor, " example"]

    def __len__(self) -> int:
        return len(self.lemmas)

    def take(self, rows: Int[Tensor, " row"]) -> "LemmaExamples":
        """Some of them, without the last columns that hold nothing in any."""
        mask, labels = self.mask[rows], self.labels[rows]
        width = int(mask.sum(-1).max())
        said = int((labels != IGNORED).any(0).nonzero().max()) + 1
        return LemmaExamples(
            self.ids[rows, :width],
            mask[:, :width],
            labels[:, :said].contiguous(),  # Hugging Face's loss views them
            self.lemmas[rows],
        )


def definition_examples(
    tokenizer: Any, glosses: Sequence[str], lemmas: Sequence[str]
) -> LemmaExamples:
    """``PREFIX + gloss`` and the word, each with its end token, of 128 and 16 tokens at most.

    Raises:
        ProbekitError: another number of words than of glosses, or none.
    """
    _check(glosses, lemmas)
    inputs = _padded(tokenizer, [PREFIX + gloss for gloss in glosses], LENGTHS[0])
    targets = _padded(tokenizer, list(lemmas), LENGTHS[1])
    labels = targets[0].masked_fill(targets[1] == 0, IGNORED)
    return LemmaExamples(*inputs, labels, labels[:, 0])


def masked_examples(tokenizer: Any, glosses: Sequence[str], lemmas: Sequence[str]) -> LemmaExamples:
    """``"[MASK]: gloss"``, of 128 tokens at most, and the word's id at the mask.

    Not published: it stands in for the published task on encoders.

    Raises:
        ProbekitError: a tokenizer without a mask, a word of several tokens, or counts as above.
    """
    _check(glosses, lemmas)
    if tokenizer.mask_token is None:
        raise ProbekitError("the tokenizer has no mask token; masked_examples needs one")
    ids, mask = _padded(tokenizer, [f"{tokenizer.mask_token}: {each}" for each in glosses], 128)
    words = tokenizer(list(lemmas), add_special_tokens=False)["input_ids"]
    for lemma, tokens in zip(lemmas, words, strict=True):
        if len(tokens) != 1:
            raise ProbekitError(f"{lemma!r} is {len(tokens)} tokens; a mask holds one")
    targets = torch.tensor(words)
    # The first mask only: a gloss does not hold another, but a tokenizer might read one in it.
    at = (ids == tokenizer.mask_token_id).int().argmax(-1, keepdim=True)
    labels = torch.full_like(ids, IGNORED).scatter(1, at, targets)
    return LemmaExamples(ids, mask, labels, targets[:, 0])


def _padded(tokenizer: Any, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    found = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]


def _check(glosses: Sequence[str], lemmas: Sequence[str]) -> None:
    if len(glosses) != len(lemmas) or not lemmas:
        raise ProbekitError(f"{len(glosses)} glosses for {len(lemmas)} words; give one gloss each")
