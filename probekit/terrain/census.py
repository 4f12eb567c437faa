"""What a model's parameters are: how many, which are tied, which rows are unused.

Source: the write-up "Geometric Terrain Analysis", sections on T5-small (census, tying) and on
Qwen3.5-0.8B (embedding against head, ranges of ids).
"""

import re
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..geometry.categories import intra_cosine, random_sets
from ..geometry.similarity import cosine_similarity
from ..geometry.spectrum import (
    covariance_eigenvalues,
    debiased_participation,
    participation_ratio,
)
from ..hooked.model import HookedModel, weights
from .tokens import Table, embedding_of, single_token

Readings = dict[str, Any]
#: By name the ids, last excluded, in which the write-up expects a kind of character, and which.
ID_RANGES = {
    "digits": (48, 58, "0123456789"),
    "capitals": (65, 91, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "small letters": (97, 123, "abcdefghijklmnopqrstuvwxyz"),
}
LAST = 100
SETS = 500  # of random rows
_UNUSED = re.compile(r"\[unused\d+\]$")


def census_of(model: HookedModel) -> Readings:
    """Numbers of parameters by the first two parts of their names, and which tables are one.

    ``tied`` has for the head and for each stack's own embedding whether it equals the input
    embedding; ``head`` compares it with that, row by row: of a tied one cosine 1 and distance 0 say
    nothing more.
    """
    inner: Any = model.original_model
    once = {tensor.data_ptr(): (name, tensor) for name, tensor in reversed(weights(model).items())}
    groups: Counter[str] = Counter()
    for name, tensor in once.values():
        groups[".".join(name.split(".")[:2])] += tensor.numel()
    table = embedding_of(model)
    others = {
        stack: getattr(inner, stack).get_input_embeddings().weight.detach()
        for stack in ("encoder", "decoder")
        if hasattr(getattr(inner, stack, None), "get_input_embeddings")
    }
    head = getattr(inner, "get_output_embeddings", lambda: None)()
    if head is not None:
        others["head"] = head.weight.detach()
    return {
        "parameters": dict(groups),
        "total": sum(groups.values()),
        "tied": {name: _same(table, other) for name, other in others.items()},
        "head": None if head is None else _against(table, others["head"]),
    }


def used_rows_of(table: Table, tokenizer: Any) -> Readings:
    """The participation ratio without rows that no text uses: beyond the tokenizer, or "unused".

    An embedding is padded to a round number of rows, and BERT keeps a thousand for later: as they
    came from the initialisation they fill all dimensions.
    """
    number = min(len(table), len(tokenizer))
    names = tokenizer.convert_ids_to_tokens(range(number))
    used = torch.tensor([i for i, name in enumerate(names) if not _UNUSED.match(name or "")])
    ratio = participation_ratio(covariance_eigenvalues(table[used].double()))
    return {
        "unused": len(table) - len(used),
        "participation / dim": float(ratio) / table.shape[1],
        "debiased": float(debiased_participation(ratio, len(used))) / table.shape[1],
    }


def id_ranges_of(table: Table, tokenizer: Any, seed: int = 0) -> Readings:
    """Mean cosines of the published ranges of ids beside those of the characters that they mean.

    ``z`` is in deviations of as many random rows. ``share`` is how many ids of a range are such a
    character: ids are ASCII codes in few vocabularies.
    """
    table, rng = table.double(), np.random.default_rng(seed)
    rows = torch.arange(min(len(table), len(tokenizer)))
    found: Readings = {}
    for name, (first, last, characters) in ID_RANGES.items():
        ids = rows[first:last]
        own = [single_token(tokenizer, character) for character in characters]
        meant = torch.tensor([each for each in own if each is not None])
        share = float(torch.isin(ids, meant).double().mean())
        found[name] = {"share": share, **_spread(table, ids, rows, rng)}
        found[f"{name}, by text"] = {"share": 1.0, **_spread(table, meant, rows, rng)}
    found[f"last {LAST}"] = {"share": None, **_spread(table, rows[-LAST:], rows, rng)}
    return found


def _spread(table: Tensor, ids: Tensor, rows: Tensor, rng: np.random.Generator) -> Readings:
    if len(ids) < 2:
        return {"ids": len(ids), "cosine": None, "z": None}
    random = intra_cosine(table[random_sets(rows, len(ids), SETS, rng)])
    cosine = float(intra_cosine(table[ids]))
    z = (cosine - float(random.mean())) / float(random.std(correction=0))
    return {"ids": len(ids), "cosine": cosine, "z": z}


def _same(table: Tensor, other: Tensor) -> bool:
    return table.shape == other.shape and torch.allclose(table, other)


def _against(table: Tensor, head: Tensor) -> Readings | None:
    if table.shape != head.shape:
        return None
    table, head = table.double(), head.double()
    return {
        "cosine": float(cosine_similarity(table, head).nanmean()),
        "distance": float((table - head).norm() / table.norm()),
    }
