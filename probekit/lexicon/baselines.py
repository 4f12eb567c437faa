"""What reads a gloss without understanding it: the nulls of an encoder's alignment.

``bag_of_tokens``    the mean embedding row of the gloss's tokens.
``jaccard``          the share of tokens that two glosses have in common.
``random_encoder``   the same architecture with fresh weights, for :func:`encode_texts`.

Definitions name what the word is a kind of, so shared tokens alone correlate with similarity. The
published comparison is with the embedding row of the word itself, which never saw the gloss.

Source: the write-up "Geometric Terrain Analysis", and its critique, sections B6 and D.
"""

import copy
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..checks import check_sizes
from ..errors import ProbekitError

PREFIX = "summarize: "
"""What the write-up puts before each gloss."""


def bag_of_tokens(
    table: Float[Tensor, "vocab dim"], ids: Sequence[Sequence[int]]
) -> Float[Tensor, "text dim"]:
    """The mean row of the table over each text's tokens, in float64.

    Args:
        table: embeddings.
        ids: of the texts as the encoder sees them, prefix and special tokens included.

    Raises:
        ProbekitError: a text without tokens.
    """
    if not all(map(len, ids)):
        raise ProbekitError("bag_of_tokens needs texts of one token or more; leave empty ones out")
    return torch.stack([table[torch.tensor(each)].double().mean(0) for each in ids])


def jaccard(tokens: Sequence[Collection[int]]) -> Float[Tensor, "text text"]:
    """``|A & B| / |A | B|`` of the texts' sets of tokens; 0 for two empty ones.

    Args:
        tokens: ids of each text, without prefix and special tokens.
    """
    sets = [sorted(set(each)) for each in tokens]
    ends = np.cumsum([0, *map(len, sets)])
    flat = np.array([token for each in sets for token in each], dtype=np.int64)
    shape = (len(sets), int(flat.max(initial=0)) + 1)
    member = sparse.csr_array((np.ones(len(flat)), flat, ends), shape=shape)
    both = (member @ member.T).toarray()
    sizes = np.diff(ends)
    either = sizes[:, None] + sizes - both
    return torch.from_numpy(np.divide(both, either, out=np.zeros_like(both), where=either > 0))


def encode_texts(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    batch: int = 64,
    max_length: int = 128,
) -> Float[Tensor, "text dim"]:
    """Mean of a Hugging Face encoder's last hidden state over real tokens, special ones included.

    The write-up's texts are ``PREFIX + gloss``. Of an encoder-decoder the encoder is used, after
    its final norm. The model is read in evaluation mode and left in its own.

    Args:
        model: whose output has ``last_hidden_state``.
        tokenizer: of that model.
        texts: what to encode.
        batch: texts at once.
        max_length: tokens a text is cut to.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1, no texts, or no padding token.
    """
    check_sizes(batch=batch, max_length=max_length)
    if not texts:
        raise ProbekitError("encode_texts needs a text at least")
    config: Any = model.config
    encoder: Any = getattr(model, "base_model", model)  # without a head
    if config.is_encoder_decoder:
        encoder = model.get_encoder()  # type: ignore[operator]
    if getattr(tokenizer, "pad_token", "") is None:
        raise ProbekitError("the tokenizer has no padding token; set tokenizer.pad_token")
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    # Texts of one length together: padding would double the work.
    order = sorted(range(len(texts)), key=lambda text: len(texts[text]))
    pooled: dict[int, Tensor] = {}
    try:
        for start in tqdm(range(0, len(texts), batch), desc="encoding", delay=3):
            chosen = order[start : start + batch]
            given = tokenizer(
                [texts[text] for text in chosen],
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(device)
            with torch.no_grad():
                hidden = encoder(**given).last_hidden_state
            mask = given["attention_mask"][..., None].to(hidden.dtype)
            means = ((hidden * mask).sum(1) / mask.sum(1)).cpu()
            pooled.update(zip(chosen, means, strict=True))
    finally:
        model.train(training)
    return torch.stack([pooled[text] for text in range(len(texts))])


def random_encoder(model: nn.Module, seed: int) -> nn.Module:
    """A Hugging Face model of the same class and config with fresh weights, in evaluation mode.

    For models in probekit's hooks there is :func:`pk.random_twin`.
    """
    config: Any = copy.deepcopy(model.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model)(config)
    first = next(model.parameters())
    return fresh.to(first.device, first.dtype).eval()
