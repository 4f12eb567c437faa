"""VDI: normalised attention entropy per layer and head, beside what uniform attention reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..entropy import row_entropy, uniform_entropy
from ..errors import ProbekitError, unknown
from ..hooksite import HookSite
from ..items import Firing, Observer
from ..measurement import Measurement
from ..site import Site
from .attention_rows import (
    RowMeans,
    Rows,
    attention_measurement,
    grown,
    pattern_site,
    read_rows,
)
from .positions import checked_positions


@dataclass(frozen=True)
class VDI(Observer):
    """Normalised attention entropy; the write-up's "Vector Disorder Index".

    ``VDI = mean over queries of H(query) / ln T``, H the Shannon entropy of the query's pattern in
    nats. The standard term is normalised attention entropy. Padding keys do not count towards T
    and padding queries are left out, so that padding does not move the number.

    Args:
        normaliser: ``"length"`` divides by ln T, T the number of keys of the example (as
            published: a causal pattern cannot reach 1); ``"visible"`` by ln of the number of keys
            that the query may attend to (rows with a single visible key carry no information and
            are left out; uniform attention then reads exactly 1).
        order: ``"entropy-first"`` takes the entropy and averages over the batch;
            ``"pattern-first"`` averages the pattern over the batch first, which by Jensen's
            inequality reads at least as much.
        queries: positions to average over; None means all.
        site: which patterns, such as ``"encoder.pattern"`` or ``"0.pattern:1"``.

    Returns (as a Measurement):
        ``(layer, head)``, or ``(stack, layer, head)`` if several stacks, in fractions of the
        normaliser; ``rows`` holds the same by query. The null is uniform attention under the
        same mask and options, in closed form: 0.611992 for six causal positions.

    Source: "Homeostatic Crystallization in Transformers", metric definitions 4.1 (entropy-first)
    and 4.2 (pattern-first).
    """

    normaliser: Literal["length", "visible"] = "length"
    order: Literal["entropy-first", "pattern-first"] = "entropy-first"
    queries: Sequence[int] | None = None
    site: str | Site = "pattern"

    source: ClassVar[str] = "Homeostatic Crystallization, 4.1-4.2; Shannon entropy"
    null_name: ClassVar[str] = "uniform attention under the same mask"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, valid in (
            ("normaliser", ("length", "visible")),
            ("order", ("entropy-first", "pattern-first")),
        ):
            if getattr(self, field) not in valid:
                raise ProbekitError(unknown(field, str(getattr(self, field)), valid))
        object.__setattr__(self, "queries", checked_positions(self.queries, "queries"))
        object.__setattr__(self, "site", str(pattern_site("VDI", self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (pattern_site("VDI", self.site),)

    def measure(self, x: Tensor, at: Firing) -> "RowMeans | _MeanPattern":
        rows = read_rows(x, at, self.queries)
        if self.order == "pattern-first":
            return _MeanPattern.of(rows)
        scale = self._scale(rows.visible, rows.length)
        counted = rows.chosen & (scale > 0)
        scale = torch.where(counted, scale, 1)  # no division by 0, whose gradient would be NaN
        null = uniform_entropy(rows.visible) / scale
        return RowMeans.of(rows.entropy / scale[:, None], null, counted)

    def combine(self, total: Any, new: Any) -> Any:
        return total + new

    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        sums = {
            site: total if isinstance(total, RowMeans) else self._rows_of_mean(total)
            for site, total in totals.items()
        }
        unit = "ln T" if self.normaliser == "length" else "ln(visible keys)"
        return attention_measurement(self, f"fraction of {unit}", sums)

    def _scale(self, visible: Tensor, length: Tensor) -> Tensor:
        """What each row's entropy is divided by; 0 where a row must be left out."""
        if self.normaliser == "visible":
            return uniform_entropy(visible)
        return length.clamp(min=1).log().expand(visible.shape[:-1])

    def _rows_of_mean(self, total: "_MeanPattern") -> RowMeans:
        seen = total.count > 0
        visible = total.uniform > 0
        pattern = total.pattern / total.count.clamp(min=1)[:, None]
        uniform = total.uniform / total.count.clamp(min=1)[:, None]
        length = (total.keys > 0).sum(-1, keepdim=True).to(pattern.dtype)
        scale = self._scale(visible, length)
        counted = seen & (scale > 0)
        scale = torch.where(counted, scale, 1)
        return RowMeans.of(
            (row_entropy(pattern) / scale)[None],
            (row_entropy(uniform) / scale)[None],
            counted[None],
        )


@dataclass(frozen=True)
class _MeanPattern:
    """Sums over the batch: of the pattern and the uniform pattern of the chosen queries, of these
    queries, and of the keys that any real query may attend to.
    """

    pattern: Tensor
    uniform: Tensor
    count: Tensor
    keys: Tensor

    @classmethod
    def of(cls, rows: Rows) -> "_MeanPattern":
        chosen = rows.chosen.expand(len(rows.pattern), -1)
        uniform = rows.visible / rows.visible.sum(-1, keepdim=True).clamp(min=1)
        return cls(
            torch.where(chosen[:, None, :, None], rows.pattern, 0).sum(0, dtype=torch.float64),
            torch.where(chosen[..., None], uniform, 0).sum(0, dtype=torch.float64),
            chosen.sum(0, dtype=torch.float64),
            (rows.visible & rows.real[..., None]).sum((0, 1), dtype=torch.float64),
        )

    def __add__(self, other: "_MeanPattern") -> "_MeanPattern":
        queries = max(len(self.count), len(other.count))
        keys = max(self.pattern.shape[-1], other.pattern.shape[-1])
        return _MeanPattern(
            grown(self.pattern, queries, keys) + grown(other.pattern, queries, keys),
            grown(self.uniform, queries, keys) + grown(other.uniform, queries, keys),
            grown(self.count, queries) + grown(other.count, queries),
            grown(self.keys, keys) + grown(other.keys, keys),
        )
