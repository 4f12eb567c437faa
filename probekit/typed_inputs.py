"""What a person types at a terminal, read as a model would read it: ids, texts, image files."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from .errors import CardError, ProbekitError, unknown
from .hooked.load import hub_answers

_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def one_or_several(inputs: Sequence[str]) -> list[str]:
    """Numbers one by one, `--input 3 3 7 10`, are one input."""
    numbers = inputs and all(map(str.isdecimal, inputs))
    return [" ".join(inputs)] if numbers else list(inputs)


def _ids(text: str) -> list[int] | None:
    """The numbers in `3 7 10` or `3,7,10`; None where it is anything else."""
    words = text.replace(",", " ").split()
    return [_id(word) for word in words] if words and all(map(str.isdecimal, words)) else None


def _id(word: str) -> int:
    if len(word) > 18:  # no tensor holds it
        raise ProbekitError(f"no model has a token or class {word[:18]}...; give smaller ids")
    return int(word)


@dataclasses.dataclass(frozen=True)
class TypedInputs:
    """Reads what a person types, as a model of some kind would read it."""

    kind: str
    where: str | None  # the folder or hub id of a Hugging Face model
    hub: bool

    def tensor(self, text: str) -> Tensor:
        """Token ids, or the pixels of an image file.

        Raises:
            ProbekitError: the image cannot be read, or there is nothing to read it or a text with.
        """
        if not self.is_image(text):
            ids = _ids(text)
            return torch.tensor(self.tokens(text) if ids is None else ids)
        from PIL import Image

        try:
            with Image.open(text) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ProbekitError(f"no image can be read from {text!r}: {error}") from error
        return self.part("AutoImageProcessor")(image, return_tensors="pt")["pixel_values"][0]

    def is_image(self, text: str) -> bool:
        """Whether it names an image file, to such a model."""
        picture = Path(text).suffix.lower() in _PICTURES
        return self.kind == "pixels" or (self.kind == "both" and picture)

    def tokens(self, text: str, special: bool = True) -> list[int]:
        """A text's token ids."""
        return self.part("AutoTokenizer")(text, add_special_tokens=special)["input_ids"]

    def said(self, text: str) -> list[int]:
        """What a decoder has said: ids as they are, a text after the start token."""
        ids = _ids(text)
        if ids is not None:
            return ids
        start = self.part("AutoConfig").decoder_start_token_id or 0
        return [start, *self.tokens(text, special=False)]

    def label(self, text: str, inputs: list[str]) -> int:
        """An id as it is, a text of one token, or the name of a class or of a text input.

        Raises:
            ProbekitError: it is none of these.
        """
        if text.isdecimal():
            return _id(text)
        if self.kind == "tokens":
            ids = self.tokens(text, special=False)
            if len(ids) != 1:
                raise ProbekitError(f"label {text!r} is {len(ids)} tokens, {ids}; give one id")
            return ids[0]
        texts = [each for each in inputs if not self.is_image(each)]
        names = texts if self.kind == "both" else list(self.part("AutoConfig").id2label.values())
        if text not in names:
            raise ProbekitError(unknown("label", text, names))
        return names.index(text)

    def tokenizer(self) -> Any:
        """To spell tokens with; None where there is none."""
        with contextlib.suppress(CardError):
            return self.part("AutoTokenizer")

    def part(self, name: str) -> Any:
        """What comes with the weights, such as "AutoTokenizer".

        Raises:
            CardError: there is none.
        """
        if self.where is None:
            raise CardError("a native model has no tokenizer; give token ids, such as '3 7 10'")
        return _pretrained(name, self.where, self.hub)


@functools.cache
def _pretrained(name: str, where: str, hub: bool) -> Any:
    """What comes with a model's weights; offline first, as nobody waits for a missing network."""
    problem: Exception | None = None
    for offline in (True, False):
        if offline or (hub and hub_answers()):
            try:
                return getattr(transformers, name).from_pretrained(where, local_files_only=offline)
            except (OSError, ValueError) as error:
                problem = error
    raise CardError(
        f"{where} offers no {name} here; save it in a folder with the weights and give that with "
        "--checkpoint, fill the hub cache where there is a network, or give token ids"
    ) from problem
