"""What a model is trained on when it learns to name what a definition defines.

``definition_loss``    encoder-decoder, Hugging Face's loss for ``labels=``.
``leaking_loss``       the published form, which needs no encoder: see there.
``masked_lemma_loss``  encoder: the word's id at the mask.

Half of even the repaired loss is the end token, which is always the second: report
:func:`lemma_scores` of the word's own token beside it.

Source: "Geometric Terrain Analysis", S9, and its critique, section B11.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..hooked.model import HookedModel
from .lemma_examples import IGNORED, LemmaExamples

Loss = Callable[[HookedModel, LemmaExamples], Float[Tensor, ""]]
"""Nats a token."""
Logits = Callable[[HookedModel, LemmaExamples], Float[Tensor, "example d_vocab"]]
"""Where the model says the word, a row an example."""


@dataclass(frozen=True)
class Objective:
    """A loss, and where the model that it trains says the word."""

    loss: Loss
    logits: Logits


def definition_loss(model: HookedModel, batch: LemmaExamples) -> Float[Tensor, ""]:
    """Cross-entropy of the target given the input and the target's earlier tokens.

    The decoder reads the target shifted right, behind its start token; a tied head reads the final
    stream times ``d_model ** -0.5``, as T5 v1.0 does. Equal to Hugging Face's loss.
    """
    logits = _decoded(model, batch, shifted_right(batch.labels, model.original_model.config))
    return _cross_entropy(logits, batch.labels)


def leaking_loss(model: HookedModel, batch: LemmaExamples) -> Float[Tensor, ""]:
    """The published form: the decoder reads the very tokens that it is to say, unshifted.

    A position attends to itself, so that copying solves the task, without any encoder. Its head
    also leaves out the factor ``d_model ** -0.5`` of tied embeddings.
    """
    config: Any = model.original_model.config
    said = batch.labels.masked_fill(batch.labels == IGNORED, config.pad_token_id)
    logits = _decoded(model, batch, said)
    if config.scale_decoder_outputs:
        logits = logits * config.d_model**0.5
    return _cross_entropy(logits, batch.labels)


def masked_lemma_loss(model: HookedModel, batch: LemmaExamples) -> Float[Tensor, ""]:
    """Cross-entropy of the word at the mask, read by :func:`masked_lemma_logits`."""
    return F.cross_entropy(masked_lemma_logits(model, batch), batch.lemmas)


def definition_logits(model: HookedModel, batch: LemmaExamples) -> Float[Tensor, "example d_vocab"]:
    """Logits of an encoder-decoder's first token, the word's own."""
    start = shifted_right(batch.labels[:, :1], model.original_model.config)
    return _decoded(model, batch, start)[:, 0]


def masked_lemma_logits(
    model: HookedModel, batch: LemmaExamples
) -> Float[Tensor, "example d_vocab"]:
    """Products of an encoder's final state at the mask with its word embeddings.

    Sentence encoders such as MiniLM come without the head of masked language models, so that the
    embeddings stand in for it: how well they do untrained means little, changes do.
    """
    inner: Any = model.original_model
    found = model(batch.ids, attention_mask=batch.mask)
    states = found if isinstance(found, Tensor) else found.last_hidden_state
    at = (batch.labels != IGNORED).int().argmax(-1)
    return states[torch.arange(len(batch)), at] @ inner.get_input_embeddings().weight.T


def lemma_scores(
    logits: Float[Tensor, "example d_vocab"], lemmas: Int[Tensor, " example"]
) -> tuple[Float[Tensor, " example"], Int[Tensor, " example"]]:
    """The word's negative log likelihood (nats), and its rank: 0 where no token has more."""
    own = logits.gather(1, lemmas[:, None])
    nll = F.cross_entropy(logits.double(), lemmas, reduction="none")
    return nll, (logits > own).sum(-1)


@torch.no_grad()
def held_out_scores(
    model: HookedModel, examples: LemmaExamples, objective: Objective, batch: int = 256
) -> dict[str, float]:
    """Loss as in training and, of the word's own token, NLL (nats) and rank (median, from 0)."""
    losses, nlls, ranks = [], [], []
    for rows in torch.arange(len(examples)).split(batch):
        part = examples.take(rows)
        losses.append(objective.loss(model, part).double() * len(part))
        nll, rank = lemma_scores(objective.logits(model, part), part.lemmas)
        nlls.append(nll)
        ranks.append(rank)
    return {
        "val_loss": float(torch.stack(losses).sum() / len(examples)),
        "lemma_nll": float(torch.cat(nlls).mean()),
        "lemma_rank": float(torch.cat(ranks).double().median()),
    }


def shifted_right(labels: Int[Tensor, "example target"], config: Any) -> Tensor:
    """The start token, and the labels but the last, padding for -100."""
    start = labels.new_full((len(labels), 1), config.decoder_start_token_id)
    said = torch.cat([start, labels[:, :-1]], 1)
    return said.masked_fill(said == IGNORED, config.pad_token_id)


def _decoded(model: HookedModel, batch: LemmaExamples, said: Tensor) -> Tensor:
    # Nothing is generated, so that no keys and values are kept: a sixth of a small forward.
    return model(batch.ids, attention_mask=batch.mask, decoder_input=said, use_cache=False)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


DEFINITION = Objective(definition_loss, definition_logits)
LEAKING = Objective(leaking_loss, definition_logits)
MASKED_LEMMA = Objective(masked_lemma_loss, masked_lemma_logits)
