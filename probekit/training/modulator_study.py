"""What a modulator becomes under a schedule, from several starts: the parts of ``lerp-training``.

Source: "Geometric Terrain Analysis", S9, and its critique, section B11.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..attachment import attach
from ..checks import check_sizes
from ..errors import ProbekitError
from ..hooked.model import HookedModel
from ..interventions import Edit
from ..items import Item
from ..lexicon import WordNet, eta_squared, wu_palmer
from ..modulators import LerpModulator, alpha_reach, from_relations
from .lemma_examples import LemmaExamples
from .modulator_fit import EVERY, ModulatorTrace, ModulatorTraining
from .objectives import DEFINITION, LEAKING, Objective

RELATED = 600  # words of the table that get a row from WordNet; the others' rows are 0
FORMS = {"published": LEAKING, "repaired": DEFINITION}
_BLOCK = 4096


def draw_senses(
    wordnet: WordNet, tokenizer: Any, count: int, seed: int = 42
) -> tuple[list[str], list[str], list[int]]:
    """Glosses, words of one token and their synsets, ``count`` at random or all there are.

    Every sense of a word counts, where the write-up takes one: a small vocabulary has too few
    words for its 9,362 examples.

    Raises:
        ProbekitError: a count below 1, or no word is one token.
    """
    check_sizes(count=count)
    pairs = [(index, lemma) for index, each in enumerate(wordnet.lemmas) for lemma in each]
    order = np.random.default_rng(seed).permutation(len(pairs))
    found: list[tuple[int, str]] = []
    for start in range(0, len(order), _BLOCK):
        block = [pairs[place] for place in order[start : start + _BLOCK]]
        texts = [lemma.replace("_", " ") for _, lemma in block]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        found += [
            (synset, text)
            for (synset, _), text, each in zip(block, texts, ids, strict=True)
            if len(each) == 1 and each[0] != tokenizer.unk_token_id
        ]
        if len(found) >= count:
            break
    if not found:
        raise ProbekitError(
            f"of WordNet's words none is one token of {type(tokenizer).__name__}; give a tokenizer "
            "of English words"
        )
    synsets, words = zip(*found[:count], strict=True)
    return [wordnet.glosses[synset] for synset in synsets], list(words), list(synsets)


def start_module(
    model: HookedModel,
    wordnet: WordNet,
    examples: LemmaExamples,
    synsets: Sequence[int],
    alpha: float,
    seed: int,
) -> LerpModulator:
    """A modulator whose first words have rows of their Wu-Palmer similarity, the rest 0.

    ``synsets`` are those of the examples; of several senses of a word the last one counts. The
    projection is drawn by ``seed``, as published.
    """
    inner: Any = model.original_model
    vocab, width = inner.get_input_embeddings().weight.shape
    module = LerpModulator(
        d_model=width, n_layers=model.cfg.n_layers, vocab=vocab, alpha=alpha, seed=seed
    )
    sense = dict(zip(examples.lemmas.tolist(), synsets, strict=True))
    tokens = list(sense)[:RELATED]
    similarity = wu_palmer(wordnet, torch.tensor([sense[token] for token in tokens])).nan_to_num(0)
    similarity = (similarity + similarity.T) / 2
    similarity.fill_diagonal_(1.0)
    width = min(len(tokens), module.geometry.shape[1])
    rows = F.pad(from_relations(similarity, width), (0, module.geometry.shape[1] - width))
    module.set_geometry(rows.float(), tokens, zero_others=True)
    return module


def silenced() -> Item:
    """What an encoder says, replaced by zeros."""
    return Edit("encoder.ln_final", torch.zeros_like)


@torch.no_grad()
def leak_losses(model: HookedModel, batch: LemmaExamples) -> dict[str, dict[str, float]]:
    """The published and the repaired loss, with the encoder and with it silenced (nats)."""
    found = {}
    for form, objective in FORMS.items():
        plain = float(objective.loss(model, batch))
        with attach(model, silenced()):
            found[form] = {"encoder": plain, "silenced": float(objective.loss(model, batch))}
    return found


def train_silenced(
    model: HookedModel,
    examples: LemmaExamples,
    objective: Objective,
    training: ModulatorTraining,
    steps: int,
) -> list[float]:
    """Train the whole ``model`` in place without its encoder; the loss of each batch (nats)."""
    rows, _, _ = training.split(len(examples))
    rng = np.random.default_rng(training.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, fused=True)
    losses = []
    with attach(model, silenced()):
        for _ in range(steps):
            batch = rows[torch.from_numpy(rng.permutation(len(rows))[: training.batch])]
            loss = objective.loss(model, examples.take(batch))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def trace_readings(
    trace: ModulatorTrace, training: ModulatorTraining, start: float, examples: int
) -> dict[str, Any]:
    """Alpha as published, at the start and at the end, beside what the schedule reaches by then."""
    batches, rates = training.batches(examples), training.rates(examples)
    read = [step + 1 for step in range(len(rates)) if step % batches % EVERY == 0]
    at = sorted({0, *read, len(rates)})
    band = [alpha_reach(start, rates[:step], training.weight_decay) for step in at]
    return {
        "at": at,
        "alpha": trace.alpha[at].tolist(),
        "band": [[each.low, each.high] for each in band],
        "largest": float(trace.alpha.max()),
        "sum of rates": math.fsum(rates),
        "epochs": trace.epochs,
    }


def start_share(ends: Mapping[float, Sequence[Sequence[float]]]) -> float:
    """Share of the variance of final logits that lies between starts: 1 where these decide all.

    Args:
        ends: final alphas by start, of each run its layers.
    """
    values = torch.tensor([each for runs in ends.values() for each in runs], dtype=torch.float64)
    starts = torch.tensor([index for index, runs in enumerate(ends.values()) for _ in runs])
    logits = torch.logit(values)
    return eta_squared(logits.flatten(), starts.repeat_interleave(logits.shape[1]))


def seed_share(ends: Mapping[float, Sequence[Sequence[float]]]) -> float:
    """The same between runs of one place in each list: seeds."""
    turned = enumerate(zip(*ends.values(), strict=True))
    return start_share({float(place): runs for place, runs in turned})
