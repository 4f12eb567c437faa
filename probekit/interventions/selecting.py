"""What the weight interventions share: fields that say which weights."""

from collections.abc import Sequence
from typing import Literal

from ..hooked.selection import Selection
from ..items import WeightIntervention


class SelectsWeights(WeightIntervention):
    """An item with fields parts, layers, heads, stack and attn, checked when it is made."""

    parts: Sequence[str] | Literal["all"]
    layers: Sequence[int] | None
    heads: Sequence[int] | None
    stack: str | None
    attn: str | None

    def __post_init__(self) -> None:
        for name in ("parts", "layers", "heads"):
            value = getattr(self, name, None)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        _ = self.selection

    @property
    def selection(self) -> Selection:
        """Which weights."""
        return Selection(self.parts, self.layers, self.heads, self.stack, self.attn)
