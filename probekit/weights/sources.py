"""Where matrices come from, read one at a time: a model, a config, or a folder of safetensors.

:func:`read_weights` answers with :class:`WeightSource` for each: entries by type, stack and layer,
every one in the layout of a Linear layer, [out, in], whatever the family keeps. Fused [Q; K; V] are
split into thirds, Conv1D's are transposed, Qwen3.5's queries are separated from their gates.

A folder's tensors are copied out of the file one by one; nothing stays mapped in between.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_sizes, is_whole
from ..errors import ProbekitError
from .folder import HEADS, LAYERS, stored_config, stored_tensors
from .names import LAYER_TYPES, Place, check_complete, place

_CENTRED_NORMS = ("qwen3_5", "qwen3_next", "gemma")  # RMSNorms that scale by 1 + weight
_CONV1D = ("gpt2", "openai-gpt", "GPT2LMHeadModel")  # weights stored [in, out]


@dataclass(frozen=True, eq=False)
class Entry:
    """One matrix, bias, or scale; :meth:`read` gives it anew each time, in its own precision."""

    name: str
    type: str
    stack: str
    layer: int | None
    kind: str
    rest: str
    ndim: int
    load: Callable[[slice], Tensor]  # of the rows that are stored
    pick: Callable[[Tensor], Tensor] | None = None

    def read(self, rows: slice = slice(None)) -> Tensor:
        """The numbers, [out, in] where it is a matrix; or some rows, all that is then loaded."""
        if self.pick is None:
            return self.load(rows).detach()
        return self.pick(self.load(slice(None)).detach())[rows]

    @property
    def is_matrix(self) -> bool:
        """Whether it is a weight of two dimensions: all that the write-up's battery counts."""
        return self.kind == "weight" and self.ndim == 2


@dataclass(frozen=True, eq=False)
class WeightSource:
    """``entries`` in the order of the layers; ``heads`` of each stack, None where unknown.

    ``post_norm`` says whether norms follow the residual sums, ``max_distance`` from how many tokens
    on relative position biases are one.
    """

    name: str
    entries: tuple[Entry, ...]
    heads: Mapping[str, int | None]
    post_norm: bool
    max_distance: int

    def find(self, type: str, stack: str, kind: str = "weight") -> dict[int, Entry]:
        """Entries of one type and stack, by layer."""
        return {
            each.layer: each
            for each in self.entries
            if each.layer is not None and (each.type, each.stack, each.kind) == (type, stack, kind)
        }

    @property
    def stacks(self) -> tuple[str, ...]:
        """Stacks that have layers, in order."""
        return tuple(dict.fromkeys(e.stack for e in self.entries if e.type in LAYER_TYPES))

    def __repr__(self) -> str:
        matrices = sum(each.is_matrix for each in self.entries)
        return f"WeightSource({self.name!r}, {matrices} matrices, stacks {self.stacks})"


def read_weights(source: Any, *, heads: int | None = None, seed: int = 0) -> WeightSource:
    """The weights of a model, of a random model of a config, or of a folder.

    Args:
        source: a model of ``pk.load`` or a Hugging Face model; a Hugging Face config, from which a
            model with random weights is built; or a folder of safetensors files, with its
            config.json (or open_clip_config.json) where there is one.
        heads: query heads of every stack, where no config says.
        seed: of the weights of a config.

    Raises:
        ProbekitError: a folder without safetensors files, names that the rules do not know, or
        layers that lack a matrix (see :func:`probekit.weights.check_complete`).
    """
    if heads is not None:
        check_sizes(heads=heads)
    if isinstance(source, str | Path):
        folder = Path(source)
        return _assembled(folder.name, stored_tensors(folder), stored_config(folder), heads)
    if isinstance(source, nn.Module):
        return _of_module(source, heads)
    if not hasattr(source, "to_dict"):
        raise ProbekitError(
            "source is a model, a Hugging Face config, or a folder of safetensors files, not "
            f"{type(source).__name__}"
        )
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _of_module(AutoModel.from_config(source), heads)


def _of_module(module: nn.Module, heads: int | None) -> WeightSource:
    inner = getattr(module, "original_model", None)
    config = getattr(module if inner is None else inner, "config", None)
    if inner is None:
        named: Mapping[str, Tensor] = dict(module.named_parameters())
    else:
        from ..hooked.model import weights

        named = weights(module)  # type: ignore[arg-type]
        config = config or getattr(module, "cfg", None)
    tensors = {
        n: (t.ndim, lambda rows, t=t: t.detach()[rows])
        for n, t in named.items()
        if t.is_floating_point()
    }
    plain = getattr(config, "to_dict", None)
    facts = plain() if plain else {} if config is None else vars(config)
    return _assembled(type(inner or module).__name__, tensors, facts, heads)


def _assembled(
    name: str,
    tensors: Mapping[str, tuple[int, Callable[[slice], Tensor]]],
    config: Mapping[str, Any],
    heads: int | None,
) -> WeightSource:
    placed = {each: place(each) for each in tensors}
    names = _stack_names([p for p in placed.values() if p.type != "other"])
    stacks = list(dict.fromkeys(names.values()))
    facts = {stack: _stack_config(config, stack) for stack in stacks}
    known = {stack: heads or _first(facts[stack], HEADS) for stack in stacks}
    entries = []
    for each, (ndim, load) in tensors.items():
        where = placed[each]
        stack = names.get(where.stack, where.stack)
        plain = Entry(each, where.type, stack, where.layer, where.kind, where.rest, ndim, load)
        entries += _split(plain, config, facts.get(stack, config))
    entries.sort(key=_order)
    depths = {s: depth for s in stacks if (depth := _depth(facts[s], s)) is not None}
    mixed = {s: kinds for s in stacks if (kinds := facts[s].get("layer_types"))}
    attention = {s: k.count("full_attention") for s, k in mixed.items() if "linear_attention" in k}
    places = [Place(e.type, e.stack, e.layer, e.kind, e.rest) for e in entries]
    check_complete(places, depths, attention)
    bert = any(e.rest == "attention.output.LayerNorm" for e in entries)
    far = config.get("relative_attention_max_distance") or 128
    return WeightSource(name, tuple(entries), known, bert or bool(config.get("post_norm")), far)


def _order(entry: Entry) -> tuple[int, int, str]:
    """By layer, type and name: files and modules keep their own orders."""
    layer = -1 if entry.layer is None else entry.layer
    known = LAYER_TYPES.index(entry.type) if entry.type in LAYER_TYPES else len(LAYER_TYPES)
    return layer, known, entry.name


def _stack_names(places: list[Place]) -> dict[str, str]:
    """Public names of the stacks found: "" where there is one alone, as in sites."""
    found = list(dict.fromkeys(p.stack for p in places if p.layer is not None))
    if len(found) <= 1:
        return {p.stack: "" for p in places}
    # open_clip's text tower has no name of its own
    return {stack: stack or ("text" if "vision" in found else "") for stack in found}


def _stack_config(config: Mapping[str, Any], stack: str) -> Mapping[str, Any]:
    own = config.get(f"{stack}_config")
    if own is None and _first(config, HEADS) is None:
        own = config.get("text_config")
    return config if own is None else own


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((config[key] for key in keys if isinstance(config.get(key), int)), None)


def _depth(config: Mapping[str, Any], stack: str) -> int | None:
    decoder = config.get("num_decoder_layers") if stack == "decoder" else None
    return decoder or _first(config, LAYERS)


def _split(entry: Entry, config: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[Entry]:
    """The entries that one stored tensor holds, each with its way to pick them out."""
    family = str(facts.get("model_type") or config.get("model_type") or "")
    if entry.type == "norm" and entry.kind == "weight" and family.startswith(_CENTRED_NORMS):
        yield replace(entry, pick=lambda w: w + 1)
    elif entry.type in ("qkv", "mlp_gate_up"):
        parts = ("q", "k", "v") if entry.type == "qkv" else ("mlp_gate", "mlp_up")
        for at, part in enumerate(parts):
            yield replace(entry, type=part, pick=_Rows(at, len(parts), _transposed(entry, family)))
    elif entry.type == "q" and _gated_queries(facts):
        if not is_whole(facts.get("head_dim")):
            raise ProbekitError("the config gives no head_dim, by which queries and gates are told")
        for at, part in enumerate(("q", "q_gate")):
            yield replace(entry, type=part, pick=_HalfHeads(at, facts["head_dim"]))
    elif entry.is_matrix and entry.type in LAYER_TYPES and _transposed(entry, family):
        yield replace(entry, pick=_Rows(0, 1, True))
    else:
        yield entry


def _transposed(entry: Entry, family: str) -> bool:
    return family in _CONV1D and entry.is_matrix and bool(re.search(r"c_\w+$", entry.rest))


def _gated_queries(facts: Mapping[str, Any]) -> bool:
    return str(facts.get("model_type", "")).startswith(("qwen3_5", "qwen3_next"))


@dataclass(frozen=True)
class _Rows:
    """The at-th of ``parts`` equal parts of the rows."""

    at: int
    parts: int
    transposed: bool

    def __call__(self, stored: Tensor) -> Tensor:
        rows = stored.mT if self.transposed else stored
        if len(rows) % self.parts:
            raise ProbekitError(f"{len(rows)} fused rows do not split into {self.parts} parts")
        return rows.chunk(self.parts)[self.at].contiguous()


@dataclass(frozen=True)
class _HalfHeads:
    """Of rows [head, (query, gate), d_head] one of the two."""

    at: int
    d_head: int

    def __call__(self, stored: Tensor) -> Tensor:
        if len(stored) % (2 * self.d_head):
            raise ProbekitError(
                f"{len(stored)} rows of queries and gates do not split into heads of {self.d_head}"
            )
        return stored.unflatten(0, (-1, 2, self.d_head))[:, self.at].flatten(0, 1).contiguous()
