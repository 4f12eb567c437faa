"""``Selection``: some of a model's weights, by part, layer, head, stack and attention.

What it finds are live views, one for each parameter or head of one; the parts and how they are
told apart are in :mod:`probekit.hooked.parameters`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ..errors import ProbekitError, SiteError, unknown
from .offloaded import refuse_offloaded
from .parameters import (
    BLOCK_PARTS,
    HEAD_PARTS,
    PARTS,
    Block,
    WeightSlice,
    blocks,
    outside,
    part_of,
)


@dataclass(frozen=True)
class Selection:
    """What is meant: parts, and where. None means all.

    Args:
        parts: of :data:`PARTS`.
        layers: indices; negative ones count from the end.
        heads: true heads, of Q, K, V and O.
        stack, attn: where there are several.

    Raises:
        ProbekitError: no or an unknown part, or heads of parts that have none.
    """

    parts: Sequence[str]
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    stack: str | None = None
    attn: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.parts, str) or not self.parts:
            raise ProbekitError(f"parts is a sequence such as ('Q', 'K'), not {self.parts!r}")
        for part in self.parts:
            if part not in PARTS:
                raise ProbekitError(unknown("part", str(part), PARTS))
        for name in ("layers", "heads"):
            chosen = getattr(self, name)
            if chosen is not None and not (
                isinstance(chosen, Sequence) and chosen and all(type(i) is int for i in chosen)
            ):
                raise ProbekitError(f"{name} is a sequence of whole numbers, not {chosen!r}")
        headless = [part for part in self.parts if part not in HEAD_PARTS]
        if self.heads is not None and headless:
            raise ProbekitError(f"heads= selects in Q, K, V and O; {', '.join(headless)} has none")

    def find(self, model: nn.Module) -> list[WeightSlice]:
        """The selected slices of ``model``, each once, in the order of the forward pass.

        Raises:
            SiteError: no such layer, head, stack or attention.
            ProbekitError: the model lacks one of the parts; the message says which it has. Or the
                selected weights are offloaded.
        """
        found = list(self._in_blocks(model))
        if self.layers is None and self.attn is None:
            found += self._outside_blocks(model)
        missing = [part for part in self.parts if not any(part_of(s) == part for s in found)]
        if missing:
            here = dict.fromkeys(
                part_of(s)
                for s in (*outside(model), *(s for b in blocks(model) for s in b.slices(PARTS)))
            )
            raise ProbekitError(
                f"this model has no {', '.join(missing)} at that place; parts of the model: "
                f"{', '.join(part for part in PARTS if part in here)}"
                + _where(self.layers, self.attn, missing)
            )
        refuse_offloaded((each.address, each.parameter) for each in found)
        return _each_once(found)

    def _in_blocks(self, model: nn.Module) -> Iterator[WeightSlice]:
        every = list(blocks(model))
        if not every:
            raise ProbekitError(
                f"{type(model).__name__} is no TransformerLens bridge, so its weights cannot be "
                "told apart; load it with pk.load or pk.wrap"
            )
        stacks = list(dict.fromkeys(block.stack for block in every))
        if self.stack is not None and self.stack not in stacks:
            raise SiteError(
                unknown("stack", self.stack, [stack or "(unnamed)" for stack in stacks])
            )
        wanted = [block for block in every if self.stack in (None, block.stack)]
        chosen = [block for block in wanted if self._has_layer(block, wanted)]
        for block in chosen:
            yield from block.slices(self.parts, self.heads, self.attn)

    def _has_layer(self, block: Block, blocks: Iterable[Block]) -> bool:
        if self.layers is None:
            return True
        depth = 1 + max(b.layer for b in blocks if b.stack == block.stack)
        outside = [layer for layer in self.layers if not -depth <= layer < depth]
        if outside:
            raise SiteError(
                f"layers={tuple(self.layers)}: {outside} do not exist; "
                f"{block.stack or 'blocks'} has layers 0 to {depth - 1}"
            )
        return block.layer in {layer % depth for layer in self.layers}

    def _outside_blocks(self, model: nn.Module) -> list[WeightSlice]:
        prefix = f"{self.stack}." if self.stack else ""
        return [
            each
            for each in outside(model)
            if part_of(each) in self.parts and each.address.startswith(prefix)
        ]


def _each_once(slices: Iterable[WeightSlice]) -> list[WeightSlice]:
    """Tied parameters share their memory: the first of the same numbers stands for all."""
    seen: dict[tuple, WeightSlice] = {}
    for each in slices:
        view = each.view
        seen.setdefault((view.data_ptr(), view.shape, view.stride()), each)
    return list(seen.values())


def _where(layers: Sequence[int] | None, attn: str | None, missing: Sequence[str]) -> str:
    outside = [part for part in missing if part not in BLOCK_PARTS]
    if outside and (layers is not None or attn is not None):
        return f"; {', '.join(outside)} lies outside the layers, so leave layers and attn out"
    return ""
