"""Statistics of attention rows that the entropy probes share: entropies, masks, running sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..entropy import row_entropy, softmax_entropy
from ..errors import ProbekitError
from ..hooksite import HookSite
from ..items import Firing, Observer, describe
from ..measurement import Measurement, stack_by_layer
from ..site import Site, parse_site
from .positions import chosen_positions


@dataclass(frozen=True)
class Rows:
    """One firing of a pattern: its entropies and what its mask allowed.

    ``real`` marks the queries that are not padding, ``chosen`` those of them to average over,
    ``visible`` the keys each may attend to; their batch is 1 where all examples share one mask.
    """

    entropy: Float[Tensor, "batch head query"]
    pattern: Float[Tensor, "batch head query key"]
    visible: Bool[Tensor, "#batch query key"]
    real: Bool[Tensor, "#batch query"]
    chosen: Bool[Tensor, "#batch query"]

    @property
    def length(self) -> Float[Tensor, "#batch 1"]:
        """T: the number of keys that any real query of the example may attend to."""
        used = (self.visible & self.real[..., None]).any(-2)
        return used.sum(-1, keepdim=True).to(self.entropy.dtype)


def read_rows(pattern: Tensor, at: Firing, queries: Sequence[int] | None) -> Rows:
    """Entropies and masks of a firing pattern, restricted to ``queries`` and to the site's head."""
    context = at.attention
    head = slice(None) if at.site.head is None else slice(at.site.head, at.site.head + 1)
    narrowed = pattern[:, head]
    if context is not None and context.scores is not None and context.untouched(pattern):
        entropy = softmax_entropy(context.scores[:, head], narrowed)
    else:
        entropy = row_entropy(narrowed)
    visible = (pattern > 0).any(1) if context is None else context.visible()
    real = real_queries(visible, cross=at.site.attn == "cross")
    chosen = real
    if queries is not None:
        chosen = real & chosen_positions(queries, real.shape[-1], real.device, "queries")
    return Rows(entropy, narrowed, visible, real, chosen)


def real_queries(visible: Tensor, cross: bool) -> Tensor:
    """Queries that are not padding: in self-attention those that may attend to themselves."""
    queries, keys = visible.shape[-2:]
    if cross or keys < queries:
        return visible.any(-1)
    return visible.diagonal(offset=keys - queries, dim1=-2, dim2=-1)


@dataclass(frozen=True)
class RowMeans:
    """Running sums over batch and real queries: of each head's rows, of the null, and counts."""

    value: Float[Tensor, "head query"]
    null: Float[Tensor, " query"]
    count: Float[Tensor, " query"]

    @classmethod
    def of(
        cls,
        values: Float[Tensor, "batch head query"],
        null: Float[Tensor, "#batch query"],
        counted: Bool[Tensor, "#batch query"],
    ) -> "RowMeans":
        """Sums of one firing, in float64; rows that are not counted add nothing."""
        null, counted = (row.expand(len(values), -1) for row in (null, counted))
        return cls(
            torch.where(counted[:, None], values, 0).sum(0, dtype=torch.float64),
            torch.where(counted, null, 0).sum(0, dtype=torch.float64),
            counted.sum(0, dtype=torch.float64),
        )

    def __add__(self, other: "RowMeans") -> "RowMeans":
        length = max(len(self.count), len(other.count))
        return RowMeans(
            grown(self.value, length) + grown(other.value, length),
            grown(self.null, length) + grown(other.null, length),
            grown(self.count, length) + grown(other.count, length),
        )


def grown(tensor: Tensor, *shape: int) -> Tensor:
    """``tensor`` padded with zeros so that its last axes have ``shape``."""
    last = tensor.shape[tensor.ndim - len(shape) :]
    if last == shape:
        return tensor
    missing = [size - got for size, got in zip(shape, last, strict=True)]
    return torch.nn.functional.pad(tensor, [n for m in reversed(missing) for n in (0, m)])


def attention_measurement(
    probe: Observer, units: str, totals: Mapping[HookSite, RowMeans]
) -> Measurement:
    """The means over heads as a Measurement whose ``rows`` holds the same resolved by query."""
    head = next(iter(totals)).head
    n_heads = max(len(total.value) for total in totals.values())
    heads = list(range(n_heads)) if head is None else [head]
    queries = list(range(max(len(total.count) for total in totals.values())))
    over_rows = {
        site: (total.value.sum(-1) / total.count.sum(), total.null.sum() / total.count.sum())
        for site, total in totals.items()
    }
    by_row = {site: (t.value / t.count, t.null / t.count) for site, t in totals.items()}
    rows = _assembled(probe, f"{probe.key}.rows", units, by_row, {"head": heads, "query": queries})
    return replace(_assembled(probe, probe.key, units, over_rows, {"head": heads}), rows=rows)


def _assembled(
    probe: Observer,
    name: str,
    units: str,
    results: Mapping[HookSite, tuple[Tensor, Tensor]],
    extra: Mapping[str, list[int]],
) -> Measurement:
    values, dims, coords = stack_by_layer({s: value for s, (value, _) in results.items()}, extra)
    null, _, _ = stack_by_layer({s: n.expand_as(v) for s, (v, n) in results.items()}, extra)
    return Measurement(
        name=name,
        values=values,
        dims=dims,
        coords=coords,
        units=units,
        null=null,
        null_name=probe.null_name,
        provenance={"probe": describe(probe)},
    )


def pattern_site(probe: str, site: str | Site) -> Site:
    """``site`` read as an address of attention patterns.

    Raises:
        SiteError: it is not an address; ProbekitError: it is not a pattern.
    """
    parsed = parse_site(site)
    if parsed.part != "pattern":
        raise ProbekitError(f"{probe} reads a pattern, not {str(site)!r}")
    return parsed
