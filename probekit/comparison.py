"""Comparing two models on one batch: patterns head by head, residuals native and aligned.

Each number has its null, because each is easily above 0 for nothing: position and mask alone make
patterns alike, few vectors make CKA high, and a rotation fits noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .attachment import attach
from .errors import ProbekitError
from .geometry.similarity import cka, cka_null, cosine_of_others, mean_cosine, procrustes
from .hooksite import HookSite
from .items import Firing, Observer
from .measurement import Measurement, stack_by_layer
from .probes.attention_rows import real_queries
from .probes.vectors import vector_site
from .site import Site
from .sitemap import SiteMap

#: The argument of forward that marks padding of a stack; other stacks read ``attention_mask``.
_MASKS = {"decoder": "decoder_attention_mask", "vision": None}
_LEAST = 4  # vectors: two to fit a rotation, two to hold out


def compare(
    model_a: nn.Module,
    model_b: nn.Module,
    *inputs: Any,
    site: str | Site = "resid_post",
    seed: int = 0,
    **kwargs: Any,
) -> dict[str, Measurement]:
    """Run both models on the same batch, and compare patterns and residuals.

    ``pattern_cosine`` (layer, head)
        mean cosine between the rows of both patterns, head h with head h; padding queries are
        left out, and a row with a single visible key reads 1 in any model. Null: the same with
        the patterns of model_b on another example, averaged over all pairs of different examples;
        what exceeds it depends on content. In a batch of 1 there is no other example: the null is
        then uniform attention of model_b under the same mask.
    ``residual_cosine`` (layer)
        mean cosine between the vectors, basis as it stands. Null: the same between different
        vectors (batch element or position), averaged over all such pairs.
    ``cka`` (layer)
        linear CKA. Null: its mean over all permutations of the vectors.
    ``procrustes`` (layer)
        mean cosine after the best rotation, on a random half of the vectors that it was not
        fitted to. Null: the same with the vectors of model_b permuted, once. A copy in
        another basis reads 1 only if the fitted half spans the width.

    The first three nulls are closed forms. They break the pairing of inputs; what two models share
    because both see the same tokens stays in the values: two untrained ones read a CKA of .7 over
    a null of .1. Compare with ``random_twin`` of each before speaking of what was learned. Heads
    are compared by index, which two seeds share by accident only. Both models' activations of
    this one batch are kept while comparing, and ``procrustes`` takes two SVDs of width x width a
    layer. Models in training mode draw the same dropout.

    Args:
        inputs, kwargs: of both forwards. A 2-D ``attention_mask`` (``decoder_attention_mask``
            for a decoder) leaves padding out of the residuals.
        site: the vectors to compare.
        seed: of the split and of the permutation.

    Returns:
        four measurements by name, with a dimension ``stack`` in front if there are several.

    Raises:
        ProbekitError: the models differ in sites or shapes (all differences are named), or fewer
            than 4 vectors remain; SiteError: a model has no patterns or no such site.
    """
    wanted = (Site("pattern"), vector_site("compare", site))
    sites = _shared_sites(model_a, model_b, wanted)
    kept = [_run(model, wanted, inputs, kwargs) for model in (model_a, model_b)]
    pairs = {here: (kept[0][str(here)], kept[1][str(here)]) for here in sites}
    _check_shapes(pairs)
    note = {"probe": "compare", "site": str(wanted[1]), "seed": seed}
    results = [_compare_patterns({h: p for h, p in pairs.items() if h.part == "pattern"}, note)]
    vectors = {
        here: tuple(_vectors(one.value, here, kwargs) for one in pair)
        for here, pair in pairs.items()
        if here.part != "pattern"
    }
    results += _compare_vectors(vectors, seed, note)
    return {result.name: result for result in results}


@dataclass(frozen=True)
class _Kept:
    """What one site held in one forward; of a pattern also the visible keys and real queries."""

    value: Tensor
    visible: Tensor | None = None
    real: Tensor | None = None


@dataclass(frozen=True)
class _Keep(Observer):
    """Keeps the last firing of each site in ``into``, by address."""

    addresses: tuple[Site, ...]
    into: dict[str, _Kept]

    def sites(self) -> tuple[Site, ...]:
        return self.addresses

    def measure(self, x: Tensor, at: Firing) -> None:
        value = at.site.narrow(x).clone()
        if at.site.part != "pattern":
            self.into[str(at.site)] = _Kept(value)
            return
        visible = (x > 0).any(1) if at.attention is None else at.attention.visible()
        real = real_queries(visible, cross=at.site.attn == "cross")
        self.into[str(at.site)] = _Kept(value, visible, real.expand(len(x), -1))

    def combine(self, total: None, new: None) -> None:
        return None

    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        raise ProbekitError("compare reads what was kept, not a result")


def _run(
    model: nn.Module, wanted: tuple[Site, ...], inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, _Kept]:
    devices = list(range(torch.cuda.device_count()))
    kept: dict[str, _Kept] = {}
    with torch.random.fork_rng(devices), torch.no_grad(), attach(model, _Keep(wanted, kept)):
        model(*inputs, **kwargs)
    return kept


def _shared_sites(a: nn.Module, b: nn.Module, wanted: tuple[Site, ...]) -> list[HookSite]:
    """The sites of ``a``, once it is sure that ``b`` has the same."""
    found = [[here for site in wanted for here in SiteMap(m).resolve(site)] for m in (a, b)]
    names = [list(map(str, sites)) for sites in found]
    only = [
        [name for name in mine if name not in set(other)] for mine, other in (names, names[::-1])
    ]
    if any(only):
        told = [
            f"only {model} has {', '.join(some)}"
            for model, some in zip(("model_a", "model_b"), only, strict=True)
            if some
        ]
        raise ProbekitError(f"compare needs models with the same sites; {'; '.join(told)}")
    return found[0]


def _check_shapes(pairs: Mapping[HookSite, tuple[_Kept, _Kept]]) -> None:
    different = [
        f"{here}: {tuple(a.value.shape)} and {tuple(b.value.shape)}"
        for here, (a, b) in pairs.items()
        if a.value.shape != b.value.shape
    ]
    if different:
        raise ProbekitError(
            f"compare needs activations of one shape; different are {'; '.join(different)}. "
            "pk.geometry.cka compares vectors of different width"
        )


def _compare_patterns(
    pairs: Mapping[HookSite, tuple[_Kept, _Kept]], note: Mapping[str, Any]
) -> Measurement:
    alone = any(len(a.value) < 2 for a, _ in pairs.values())
    values, nulls = {}, {}
    for here, (a, b) in pairs.items():
        assert a.real is not None and b.real is not None and a.visible is not None
        real = a.real & b.real.to(a.real.device)
        other = b.value.to(a.value.device)
        values[here] = mean_cosine(a.value, other, real)
        if alone:
            uniform = a.visible / a.visible.sum(-1, keepdim=True).clamp(min=1)
            nulls[here] = mean_cosine(a.value, uniform[:, None].expand_as(a.value), real)
        else:
            nulls[here] = cosine_of_others(a.value, other, real)
    heads = range(max(map(len, values.values())))
    null_name = "uniform attention of model_b under the same mask"
    return _measured(
        "pattern_cosine",
        values,
        nulls,
        null_name if alone else "patterns of model_b on another example, mean over all pairs",
        note,
        {"head": heads},
    )


def _vectors(x: Tensor, here: HookSite, kwargs: Mapping[str, Any]) -> Float[Tensor, "vector dim"]:
    """The vectors of a site without padding, where a 2-D mask of that stack was given."""
    mask = kwargs.get(_MASKS.get(here.stack, "attention_mask") or "")
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape == x.shape[:2]:
        return x[mask.to(x.device).bool()].double()
    return x.flatten(0, -2).double()


def _compare_vectors(
    pairs: Mapping[HookSite, tuple[Tensor, ...]], seed: int, note: Mapping[str, Any]
) -> list[Measurement]:
    small = {str(here): len(a) for here, (a, _) in pairs.items() if len(a) < _LEAST}
    if small:
        raise ProbekitError(
            f"compare needs {_LEAST} vectors or more at each site; there are {small}"
        )
    read: dict[str, dict[HookSite, tuple[float, float]]] = {}
    for here, (a, b) in pairs.items():
        for name, numbers in _similarities(a, b.to(a.device), seed).items():
            read.setdefault(name, {})[here] = numbers
    null_names = {
        "residual_cosine": "different vectors, mean over all pairs",
        "cka": "vectors of model_b permuted, mean over all permutations",
        "procrustes": f"vectors of model_b permuted, seed {seed}",
    }
    return [
        _measured(
            name,
            {
                here: torch.tensor(value, dtype=torch.float64)
                for here, (value, _) in numbers.items()
            },
            {here: torch.tensor(null, dtype=torch.float64) for here, (_, null) in numbers.items()},
            null_names[name],
            note,
            {},
        )
        for name, numbers in read.items()
    ]


def _similarities(a: Tensor, b: Tensor, seed: int) -> dict[str, tuple[float, float]]:
    """Value and null of each similarity of paired vectors."""
    generator = torch.Generator().manual_seed(seed)
    split, other = (torch.randperm(len(a), generator=generator).to(a.device) for _ in range(2))
    directed = (a.norm(dim=-1) > 0) & (b.norm(dim=-1) > 0)
    own, null = _native_cosine(a[directed], b[directed])
    return {
        "residual_cosine": (own, null),
        "cka": (cka(a, b), cka_null(a, b)),
        "procrustes": (
            _held_out_cosine(a[split], b[split]),
            _held_out_cosine(a[split], b[other]),
        ),
    }


def _held_out_cosine(a: Tensor, b: Tensor) -> float:
    cosine = procrustes(a, b, test=0.5).held_out
    assert cosine is not None
    return cosine


def _native_cosine(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Mean cosine of paired vectors, and of all pairs that do not belong together."""
    counted = torch.ones(len(a), 1, dtype=torch.bool, device=a.device)
    return tuple(
        float(mean(a[:, None, None], b[:, None, None], counted))
        for mean in (mean_cosine, cosine_of_others)
    )  # type: ignore[return-value]


def _measured(
    name: str,
    values: Mapping[HookSite, Tensor],
    nulls: Mapping[HookSite, Tensor],
    null_name: str,
    note: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> Measurement:
    stacked, dims, coords = stack_by_layer(values, extra)
    null, _, _ = stack_by_layer(nulls, extra)
    return Measurement(
        name=name,
        values=stacked,
        dims=dims,
        coords=coords,
        units="cosine" if name != "cka" else "CKA",
        null=null,
        null_name=null_name,
        provenance=dict(note),
    )
