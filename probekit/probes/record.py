"""Record: keep the raw activations of a site."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ProbekitError
from ..hooksite import HookSite
from ..items import Firing, Observer, describe
from ..measurement import Measurement, stack_name
from ..site import PART_AXES, Site, parse_site


@dataclass(frozen=True)
class Record(Observer):
    """Keeps the activations of ``site`` of all forwards, concatenated along the batch.

    The only observer that keeps activations: memory grows with the number of forwards. It keeps
    copies, so that later edits in place do not rewrite what was recorded.

    Args:
        site: an address; with several layers (or stacks) the result gains those dimensions,
            and all of them must have one shape.

    Returns (as a Measurement):
        the raw tensor, in the activation's own units. It has no null: compare it with a record
        of :func:`probekit.random_twin`.
    """

    site: str | Site

    source: ClassVar[str] = "TransformerLens run_with_cache"
    null_name: ClassVar[str] = "none; record probekit.random_twin(model) beside it"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "site", str(parse_site(self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (parse_site(self.site),)

    def measure(self, x: Tensor, at: Firing) -> list[Tensor]:
        return [at.site.narrow(x).clone()]

    def combine(self, total: list[Tensor], new: list[Tensor]) -> list[Tensor]:
        return total + new

    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        kept = {site: _concatenated(site, tensors) for site, tensors in totals.items()}
        shapes = {tuple(tensor.shape) for tensor in kept.values()}
        if len(shapes) > 1:
            raise ProbekitError(
                f"{describe(self)}: its sites hold tensors of different shapes, {sorted(shapes)}; "
                "record one stack or one layer at a time"
            )
        axes = list(_axes(next(iter(kept)), len(next(iter(shapes)))))
        values, coords = _arranged(kept)
        coords |= {axis: range(n) for axis, n in zip(axes, next(iter(shapes)), strict=True)}
        return Measurement(
            name=self.key,
            values=values,
            dims=tuple(coords),
            coords=coords,
            units="activation",
            null=None,
            null_reason="raw activations; record probekit.random_twin(model, seed) beside them",
            provenance={"probe": describe(self)},
        )


def _concatenated(site: HookSite, tensors: list[Tensor]) -> Tensor:
    try:
        return torch.cat(tensors)
    except RuntimeError:
        shapes = sorted({tuple(tensor.shape) for tensor in tensors})
        raise ProbekitError(
            f"recordings at {site} have different shapes, {shapes}, and cannot be concatenated "
            "along the batch; pad the inputs to one length or attach a Record for each"
        ) from None


def _axes(site: HookSite, ndim: int) -> tuple[str, ...]:
    axes = PART_AXES[site.part]
    if site.head is not None:
        axes = tuple(axis for axis in axes if axis != "head")
    return axes if len(axes) == ndim else tuple(f"axis{i}" for i in range(ndim))


def _arranged(kept: dict[HookSite, Tensor]) -> tuple[Tensor, dict[str, Any]]:
    """One tensor for all sites, with the coordinates that tell them apart."""
    if len(kept) == 1:
        return next(iter(kept.values())), {}
    stacks = list(dict.fromkeys(map(stack_name, kept)))
    layers = sorted({site.layer or 0 for site in kept})
    placed = {(stack_name(site), site.layer or 0): tensor for site, tensor in kept.items()}
    if len(placed) != len(stacks) * len(layers):
        raise ProbekitError("the stacks have different depths; record one stack at a time")
    rows = [torch.stack([placed[stack, layer] for layer in layers]) for stack in stacks]
    if len(stacks) == 1:
        return rows[0], {"layer": layers}
    return torch.stack(rows), {"stack": stacks, "layer": layers}
