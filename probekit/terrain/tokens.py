"""Words, digits and special tokens in an embedding table, and tokens on their way through layers.

Only words that are one token count: the first piece of several is a bare prefix. Hidden states are
read at hooks, so that the last block's own output is seen where Hugging Face returns it after the
final norm.

Source: the write-up "Geometric Terrain Analysis", its section on T5-small.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..attachment import attach
from ..errors import CardError
from ..geometry.categories import (
    category_lift,
    intra_cosine,
    matched_lift,
    random_sets,
    rank_matched_sets,
)
from ..geometry.layers import LayerEvolution, layer_evolution
from ..geometry.ordering import digit_order, digit_order_null, digit_order_walk
from ..geometry.similarity import cosine_similarity
from ..hooked.model import HookedModel
from ..probes import Record
from ..sitemap import list_sites

Readings = dict[str, Any]
Table = Float[Tensor, "rows dim"]
WORD_STARTS = ("▁", "Ġ")  # what SentencePiece and byte-level vocabularies mark them with
WINDOW = 500  # places of frequency rank to either side of a word
LEAST = 3  # words of one token that a category needs, as published
POSITIONS = 5  # at which encoder and decoder are compared, as published
SPECIALS = 5  # sentinels


def embedding_of(model: HookedModel) -> Table:
    """The rows of a model's input embedding, one a token.

    Raises:
        CardError: a model that embeds no tokens, or two kinds of input.
    """
    inner: Any = model.original_model
    try:
        return inner.get_input_embeddings().weight.detach()
    except (AttributeError, NotImplementedError):
        raise CardError(
            f"{type(inner).__name__} has no one embedding of tokens; take a language model"
        ) from None


def single_token(tokenizer: Any, word: str) -> int | None:
    """The id of a word that is one token, else None."""
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 else None


def whole_words(tokenizer: Any, rows: int) -> Int[Tensor, " token"]:
    """Ids of tokens that are words: ASCII letters, two at least, at the start of a word."""
    tokens = tokenizer.convert_ids_to_tokens(range(min(rows, len(tokenizer))))
    marked = any(token and token.startswith(WORD_STARTS) for token in tokens)
    found = []
    for index, token in enumerate(tokens):
        word = (token or "").lstrip("".join(WORD_STARTS))
        starts = not marked or (token or "").startswith(WORD_STARTS)
        if starts and len(word) > 1 and word.isascii() and word.isalpha():
            found.append(index)
    return torch.tensor(found)


def digits_of(table: Table, tokenizer: Any) -> Readings:
    """Whether digits lie in order, by :func:`probekit.geometry.digit_order`.

    ``one token each`` is False where a digit has several pieces; the first one stands for it, as
    published.
    """
    pieces = [tokenizer(str(i), add_special_tokens=False)["input_ids"] for i in range(10)]
    order = digit_order(table[[each[0] for each in pieces]])
    walk, walk_std = digit_order_walk(10, table.shape[1], 1_000, seed=0)
    return {
        "one token each": all(len(each) == 1 for each in pieces),
        "pearson": order.pearson,
        "spearman": order.spearman,
        "p": order.p,
        "adjacent": order.adjacent,
        "distant": order.distant,
        "gap": order.adjacent - order.distant,
        "null": {
            "pearson": 0.0,
            "deviation": digit_order_null(10),
            "walk": walk,
            "walk's deviation": walk_std,
        },
    }


def categories_of(
    table: Table, tokenizer: Any, words: Mapping[str, str], mean_cosine: float, sets: int
) -> Readings:
    """The published lift of each list of words, and the centred one against other sets.

    ``lift`` and ``z`` compare with all rows and with random whole words, ``matched lift`` and
    ``matched z`` are what sets of the same frequency rank read in their place. Lists with fewer
    than three words of one token are left out.
    """
    pool, rng = whole_words(tokenizer, len(table)), np.random.default_rng(0)
    table = table.double()
    centre = table.mean(0)
    found: Readings = {}
    for name, text in words.items():
        known = [single_token(tokenizer, word) for word in text.split()]
        ids = torch.tensor([each for each in known if each is not None])
        if len(ids) < LEAST:
            continue
        lift = matched_lift(table, ids, random_sets(pool, len(ids), sets, rng))
        ranked = pool if torch.isin(ids, pool).all() else torch.cat([ids, pool]).unique()
        matched = rank_matched_sets(ids, ranked, WINDOW, sets, np.random.default_rng(0))
        centred = intra_cosine(table[matched] - centre)
        found[name] = {
            "words": len(ids),
            "lift": category_lift(table, ids, mean_cosine),
            "matched lift": float(intra_cosine(table[matched]).mean()) - mean_cosine,
            "z": lift.z,
            "matched z": (float(centred.mean()) - lift.null_mean) / lift.null_std,
        }
    return found


def specials_of(table: Table, tokenizer: Any) -> Readings:
    """Norms and mean cosine of special tokens; ``z`` counts deviations of as many random rows."""
    names = list(tokenizer.all_special_tokens)
    sentinels = {f"<extra_id_{number}>" for number in range(SPECIALS)}
    kept = [name for name in names if name in sentinels or not name.startswith("<extra_id_")]
    ids = torch.tensor(sorted({int(tokenizer.convert_tokens_to_ids(name)) for name in kept}))
    ids = ids[ids < len(table)]
    ids = ids[table[ids].norm(dim=-1) > 0]
    found = {
        "tokens": tokenizer.convert_ids_to_tokens(ids.tolist()),
        "norms": table[ids].double().norm(dim=-1).tolist(),
    }
    if len(ids) < 2:
        return {**found, "cosine": None, "random cosine": None, "z": None}
    rng = np.random.default_rng(0)
    intra = float(intra_cosine(table[ids].double()))
    others = torch.arange(len(table))[table.norm(dim=-1) > 0]
    random = intra_cosine(table[random_sets(others, len(ids), 500, rng)].double())
    return {
        **found,
        "cosine": intra,
        "random cosine": float(random.mean()),
        "z": (intra - float(random.mean())) / float(random.std(correction=0)),
    }


def layers_of(model: HookedModel, tokenizer: Any, sentences: Sequence[str]) -> Readings:
    """Norms and cosines of tokens by layer, means over sentences, each encoded alone.

    ``published`` keeps special tokens and ends after the final norm, ``raw`` leaves special tokens
    out and ends with the last block's own output. ``rise`` is the raw cosine of the last layer
    less that of the embedding.
    """
    published, raw = [], []
    for sentence in sentences:
        ids, words = _encoded(tokenizer, sentence)
        states, normed = hidden_states(model, ids)
        published.append(layer_evolution(torch.cat([states[:-1], normed[None]])))
        raw.append(layer_evolution(states[:, words]))
    found = {"published": _averaged(published), "raw": _averaged(raw)}
    cosines = found["raw"]["cosine_mean"]
    return {**found, "rise": cosines[-1] - cosines[0]}


@torch.no_grad()
def hidden_states(
    model: HookedModel, ids: Int[Tensor, "one pos"], stack: str | None = None, **inputs: Tensor
) -> tuple[Float[Tensor, "layer place d_model"], Float[Tensor, "place d_model"]]:
    """The residual stream before each block and after the last, and after any final norm.

    Args:
        stack: ``"encoder"`` or ``"decoder"``; None takes the encoder where there is one.
    """
    sites = set(list_sites(model)["site"])
    chosen = stack or ("encoder" if "encoder.0.resid_pre" in sites else None)
    prefix = f"{chosen}." if chosen else ""
    probes = [
        Record(f"{prefix}resid_pre", name="pre"),
        Record(f"{prefix}-1.resid_post", name="post"),
    ]
    if f"{prefix}ln_final" in sites:
        probes.append(Record(f"{prefix}ln_final", name="final"))
    if "decoder.0.resid_pre" in sites and "decoder_input" not in inputs:
        inputs["decoder_input"] = ids
    with attach(model, *probes) as run:
        model(ids, attention_mask=torch.ones_like(ids), **inputs)
    post = run["post"].values
    states = torch.cat([run["pre"].values[:, 0], post])
    return states, (run["final"].values if len(probes) > 2 else post)[0]


def stacks_of(model: HookedModel, tokenizer: Any, prompt: str, answer: str) -> Readings:
    """Cosines of encoder and decoder at the embedding, half way and at the end; empty without both.

    ``published`` pairs the first positions of a prompt with those of another text, which are other
    tokens even at the embedding, and ends after the final norms. ``identical ids`` gives both
    stacks the prompt, ``random pairs`` its positions in another order; they end before the norms.
    """
    if "decoder.0.resid_pre" not in set(list_sites(model)["site"]):
        return {}
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    other = tokenizer(answer, return_tensors="pt")["input_ids"]
    encoder, normed = hidden_states(model, ids, "encoder")
    half = [0, (len(encoder) - 1) // 2, len(encoder) - 1]
    order = torch.roll(torch.arange(ids.shape[1]), 1)
    found: Readings = {}
    for name, given, places in (
        ("published", other, torch.arange(min(POSITIONS, ids.shape[1], other.shape[1]))),
        ("identical ids", ids, torch.arange(ids.shape[1])),
        ("random pairs", ids, order),
    ):
        decoder, its_normed = hidden_states(model, ids, "decoder", decoder_input=given)
        first, second = encoder[half], decoder[half]
        if name == "published":
            first[-1], second[-1] = normed, its_normed
        first = first[:, : len(places)]
        found[name] = cosine_similarity(first, second[:, places]).mean(-1).tolist()
    return found


def _encoded(tokenizer: Any, text: str) -> tuple[Tensor, Tensor]:
    """Ids with the specials that the tokenizer adds, and which of them are not special."""
    ids = tokenizer(text)["input_ids"]
    special = set(tokenizer.all_special_ids)
    return torch.tensor([ids]), torch.tensor([each not in special for each in ids])


def _averaged(found: Sequence[LayerEvolution]) -> Readings:
    names = ("norm_mean", "norm_std", "cosine_mean", "cosine_std")
    return {
        name: torch.stack([getattr(each, name) for each in found]).mean(0).tolist()
        for name in names
    }
