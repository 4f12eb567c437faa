"""``talk``: what an encoder-decoder says, original and modulated side by side.

Looking at strings is how "coherence is kept" was published. Beside them stand how far the words
moved (edit distance of tokens) and how strange the new ones are to the original model: their
negative log likelihood, and the divergence of the two models' next-token distributions along them.

Source: "Geometric Terrain Analysis", S11, and its critique, section B11.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from .attachment import attach
from .checks import check_sizes
from .errors import ProbekitError
from .hooked.model import HookedModel
from .interventions import Lerp
from .items import Intervention
from .pretrained import tokenizer_of

_WIDTH = 60  # characters of a text in a terminal's table


@dataclass(frozen=True)
class Said:
    """One prompt's answers. Distances count tokens, the end token too; the rest is nats a token."""

    prompt: str
    alpha: float | int | None
    """Of all layers; None where the modulator has its own."""
    original: str
    modulated: str
    hamming: int
    """As published: tokens that differ, place by place, and the difference of lengths."""
    levenshtein: int
    """Least insertions, deletions and substitutions."""
    kl: float
    """Of the modulated model's next token from the original's, along the modulated text."""
    nll: float
    """Of the modulated text under the original model."""
    original_nll: float
    """Of the original text under the original model: what ``nll`` is to be held against."""


@dataclass(frozen=True)
class Talk:
    """Answers to several prompts at several alphas; a table in IPython."""

    said: tuple[Said, ...]

    def to_frame(self) -> pd.DataFrame:
        """A row a prompt and alpha."""
        return pd.DataFrame([vars(each) for each in self.said])

    def __repr__(self) -> str:
        with pd.option_context("display.max_colwidth", _WIDTH, "display.width", None):
            return self.to_frame().round(3).to_string(index=False)

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return self.to_frame().round(3).to_html(index=False)


def talk(
    model: HookedModel,
    prompts: str | Sequence[str],
    item: Intervention,
    *,
    alphas: Sequence[float | int] | None = None,
    tokenizer: Any = None,
    max_new_tokens: int = 128,
) -> Talk:
    """Greedy answers without and with ``item``.

    Example::

        model = pk.load("t5-wordnet")
        lerp = pk.Lerp(module, site="encoder.resid_pre")
        pk.talk(model, "summarize: a young dog", lerp, alphas=(0.01, 0.1, 0.5))

    Args:
        prompts: one or several.
        item: what modulates, such as :class:`probekit.Lerp`.
        alphas: to sweep, of a Lerp; None takes the item as it is.
        tokenizer: None takes the one that lies beside the model's weights.
        max_new_tokens: as published.

    Raises:
        ProbekitError: no encoder-decoder, no prompt, no alpha, or alphas of what has none.
            CardError: no tokenizer beside the weights.
    """
    inner: Any = model.original_model
    if not getattr(inner.config, "is_encoder_decoder", False):
        raise ProbekitError(f"talk needs an encoder-decoder, not {type(inner).__name__}")
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise ProbekitError("talk needs a prompt")
    check_sizes(max_new_tokens=max_new_tokens)
    settings = _settings(item, alphas)
    tokenizer = tokenizer or tokenizer_of(model)
    said = [
        each
        for text in tqdm(texts, "talking", delay=3)
        for each in _answers(model, tokenizer, text, settings, max_new_tokens)
    ]
    return Talk(tuple(said))


def hamming(first: Sequence[int], second: Sequence[int]) -> int:
    """Places of the common length that differ, and the difference of lengths."""
    differ = sum(a != b for a, b in zip(first, second, strict=False))
    return differ + abs(len(first) - len(second))


def levenshtein(first: Sequence[int], second: Sequence[int]) -> int:
    """The least number of insertions, deletions and substitutions that turn one into the other."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def divergence(
    p: Float[Tensor, "pos d_vocab"], q: Float[Tensor, "pos d_vocab"]
) -> Float[Tensor, ""]:
    """KL(p || q) of two models' next tokens, given their logits: nats, the mean over positions."""
    p, q = p.double().log_softmax(-1), q.double().log_softmax(-1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean()


def _settings(
    item: Intervention, alphas: Sequence[float | int] | None
) -> list[tuple[float | int | None, Intervention]]:
    if alphas is None:
        return [(item.alpha if isinstance(item, Lerp) else None, item)]
    if not alphas:
        raise ProbekitError("talk sweeps no alpha; give one at least, or alphas=None")
    if not isinstance(item, Lerp):
        raise ProbekitError(f"{type(item).__name__} has no alpha to sweep; leave alphas out")
    return [(alpha, replace(item, alpha=alpha)) for alpha in alphas]


@torch.no_grad()
def _answers(
    model: HookedModel,
    tokenizer: Any,
    text: str,
    settings: Sequence[tuple[float | int | None, Intervention]],
    most: int,
) -> list[Said]:
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    original = _greedy(model, ids, most)
    own_nll = float(_nll(_logits(model, ids, original), original))
    found = []
    for alpha, item in settings:
        with attach(model, item):
            tokens = _greedy(model, ids, most)
            modulated = _logits(model, ids, tokens)
        unedited = _logits(model, ids, tokens)
        found.append(
            Said(
                text,
                alpha,
                tokenizer.decode(original[0], skip_special_tokens=True),
                tokenizer.decode(tokens[0], skip_special_tokens=True),
                hamming(original[0].tolist(), tokens[0].tolist()),
                levenshtein(original[0].tolist(), tokens[0].tolist()),
                float(divergence(modulated, unedited)),
                float(_nll(unedited, tokens)),
                own_nll,
            )
        )
    return found


def _greedy(model: HookedModel, ids: Tensor, most: int) -> Tensor:
    """What is said after the start token, the end token included."""
    inner: Any = model.original_model
    return inner.generate(ids, max_new_tokens=most, do_sample=False, num_beams=1)[:, 1:]


def _logits(model: HookedModel, ids: Tensor, tokens: Tensor) -> Tensor:
    """Logits of each of ``tokens``, the earlier ones being given."""
    config: Any = model.original_model.config
    start = tokens.new_full((1, 1), config.decoder_start_token_id)
    return model(ids, decoder_input=torch.cat([start, tokens[:, :-1]], 1))[0]


def _nll(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits.double(), tokens[0])
