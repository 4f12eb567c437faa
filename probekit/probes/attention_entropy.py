"""Attention entropy in nats per layer and head: VDI without its normaliser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..entropy import uniform_entropy
from ..hooksite import HookSite
from ..items import Firing, Observer
from ..measurement import Measurement
from ..site import Site
from .attention_rows import (
    RowMeans,
    attention_measurement,
    pattern_site,
    read_rows,
)
from .positions import checked_positions


@dataclass(frozen=True)
class AttentionEntropy(Observer):
    """Mean Shannon entropy of a head's attention rows, in nats.

    ``exp`` of it is the effective number of keys attended to. Padding queries are left out.

    Args:
        queries: positions to average over; None means all.
        site: which patterns.

    Returns (as a Measurement):
        ``(layer, head)``, or ``(stack, layer, head)`` if several stacks; ``rows`` by query. The
        null is uniform attention under the same mask: the mean of ln(visible keys).
    """

    queries: Sequence[int] | None = None
    site: str | Site = "pattern"

    source: ClassVar[str] = "Shannon entropy of the attention distribution"
    null_name: ClassVar[str] = "uniform attention under the same mask"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "queries", checked_positions(self.queries, "queries"))
        object.__setattr__(self, "site", str(pattern_site("AttentionEntropy", self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (pattern_site("AttentionEntropy", self.site),)

    def measure(self, x: Tensor, at: Firing) -> RowMeans:
        rows = read_rows(x, at, self.queries)
        return RowMeans.of(rows.entropy, uniform_entropy(rows.visible), rows.chosen)

    def combine(self, total: RowMeans, new: RowMeans) -> RowMeans:
        return total + new

    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        return attention_measurement(self, "nats", totals)
