"""A package that adds a probe and an intervention to probekit: this file and its pyproject.toml.

    pip install ./examples/plugin

The entry points in pyproject.toml are all that probekit needs: `pk.list_probes()` now names
PositiveShare, `pk.list_interventions()` names Negate, and `pk.save_items` stores both.

    from probekit_signs import Negate, PositiveShare

    with pk.attach(model, Negate("0.mlp_post"), PositiveShare()) as run:
        model(tokens)
    run["positive_share"]

To write your own, copy the folder and change the names; one that is taken is refused.
"""

from dataclasses import dataclass

import torch

import probekit as pk
from probekit.measurement import stack_by_layer
from probekit.site import parse_site


@dataclass(frozen=True)
class PositiveShare(pk.Observer):
    """Share of an activation's numbers that are above 0, by layer."""

    site: str = "mlp_post"

    source = "elementary"
    null_name = "any distribution symmetric about 0"

    def sites(self):
        return (parse_site(self.site),)

    def measure(self, x, at):
        here = at.site.narrow(x)  # the head's slice, where the site names a head
        return torch.tensor([int((here > 0).sum()), here.numel()], dtype=torch.float64)

    def combine(self, total, new):
        return total + new

    def finish(self, totals):
        shares = {site: positive / numbers for site, (positive, numbers) in totals.items()}
        values, dims, coords = stack_by_layer(shares, {})
        null = torch.full_like(values, 0.5)
        return pk.Measurement(
            self.key, values, dims, coords, "fraction of numbers", null, self.null_name
        )


@dataclass(frozen=True)
class Negate(pk.Intervention):
    """Turns the sign of an activation."""

    site: str

    source = "elementary"

    def sites(self):
        return (parse_site(self.site),)

    def edit(self, x, at):
        return -x
