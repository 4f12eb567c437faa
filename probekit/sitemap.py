"""Answering addresses: which sites of a model an address means, and which there are."""

from dataclasses import replace
from functools import cached_property
from itertools import groupby

import pandas as pd
from torch import nn

from .errors import ProbekitError, SiteError, unknown
from .hooksite import HookSite, find_sites, hook_points
from .site import PART_AXES, Site


class SiteMap:
    """All sites of one model; ``resolve`` answers an address."""

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise ProbekitError(
                f"{model!r} is no model; give one of pk.load(name) or pk.wrap(hugging_face_model)"
            )
        self.model = model
        self._hooks = hook_points(model)
        self._of_part: dict[str, list[HookSite]] = {}
        if next(find_sites(model, self._hooks), None) is None:
            raise SiteError(
                f"{type(model).__name__} has no TransformerLens hook points under names such as "
                "'blocks.0.attn.hook_pattern'; load it with pk.load(..., hf_model=...) or wrap it "
                "in a TransformerBridge"
            )

    @cached_property
    def sites(self) -> tuple[HookSite, ...]:
        """All of them, in the order of the forward pass."""
        return tuple(find_sites(self.model, self._hooks))

    def resolve(self, site: Site) -> tuple[HookSite, ...]:
        """The hook sites that ``site`` means, in the order of the forward pass.

        Raises:
            SiteError: nothing matches; the message names what there is and what is closest.
        """
        if site.part not in self._of_part:  # all parts of all layers would take milliseconds
            self._of_part[site.part] = [*find_sites(self.model, self._hooks, site.part)]
        found = self._of_part[site.part]
        if not found:
            parts = ", ".join(dict.fromkeys(here.part for here in self.sites))
            raise SiteError(f"site '{site}': this model has no {site.part!r}; it has: {parts}")
        for field in ("stack", "attn"):
            found = self._select(site, field, found)
        found = self._select_layers(site, found)
        if site.head is None:
            return tuple(found)
        return tuple(_with_head(site, here, site.head) for here in found)

    def _select(self, site: Site, field: str, found: list[HookSite]) -> list[HookSite]:
        wanted = getattr(site, field)
        if wanted is None:
            return found
        valid = sorted({getattr(here, field) or "" for here in found} - {""})
        if wanted not in valid:
            why = f"{site.part!r} belongs to no named {field} here; leave it out"
            raise SiteError(f"site '{site}': {unknown(field, wanted, valid) if valid else why}")
        return [here for here in found if getattr(here, field) == wanted]

    def _select_layers(self, site: Site, found: list[HookSite]) -> list[HookSite]:
        if site.layer is None:
            return found
        kept: list[HookSite] = []
        for _, group in groupby(found, key=lambda here: here.stack):
            stack = list(group)
            depth = 1 + max(here.layer for here in stack if here.layer is not None)
            index = site.layer if isinstance(site.layer, slice) else _one(site.layer, depth)
            wanted = range(depth)[index]
            kept += [here for here in stack if here.layer in wanted]
        if not kept:
            depths = ", ".join(
                f"{stack or 'blocks'} has layers 0 to {max(h.layer or 0 for h in group)}"
                for stack, group in groupby(found, key=lambda here: here.stack)
            )
            last = max(here.layer or 0 for here in found)
            near = "" if isinstance(site.layer, slice) else _clamped(site.layer, last)
            raise SiteError(f"site '{site}': no layer matches {site.layer}; {depths}{near}")
        return kept


def list_sites(model: nn.Module) -> pd.DataFrame:
    """Every site of ``model``: address, hook name, dimensions, and whether an edit there is causal.

    Returns:
        a table with columns ``site, stack, layer, part, hook, dims, edit, note``.
    """
    return pd.DataFrame(
        [
            {
                "site": str(here),
                "stack": here.stack,
                "layer": here.layer,
                "part": here.part,
                "hook": here.name,
                "dims": _dims(here),
                "edit": "refused" if here.write == "refused" else "causal",
                "note": here.why_not,
            }
            for here in SiteMap(model).sites
        ]
    ).astype({"layer": "Int64"})


def _with_head(site: Site, here: HookSite, head: int) -> HookSite:
    heads = here.n_heads
    if heads is not None and not 0 <= head < heads:
        raise SiteError(
            f"site '{site}': head {head} does not exist at {here}, which has heads 0 to "
            f"{heads - 1}{_clamped(head, heads - 1)}"
        )
    return replace(here, head=head)


def _clamped(index: int, last: int) -> str:
    return f"; closest: {max(0, min(index, last))}"


def _one(layer: int, depth: int) -> slice:
    index = layer + depth if layer < 0 else layer
    return slice(index, index + 1) if 0 <= index < depth else slice(0, 0)


def _dims(here: HookSite) -> str:
    return " ".join(
        f"head={here.n_heads}" if axis == "head" and here.n_heads else axis
        for axis in PART_AXES[here.part]
    )
