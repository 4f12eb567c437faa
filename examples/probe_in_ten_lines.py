"""A probe of one's own: how sparse are MLP activations? Ten lines beside what every file needs."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch

import probekit as pk
from probekit.measurement import stack_by_layer
from probekit.site import parse_site


@dataclass(frozen=True)
class ActiveShare(pk.Observer):
    """Share of MLP activations above 0, over as many forwards as one makes."""

    def sites(self):
        return (parse_site("mlp_post"),)

    def measure(self, x, at):
        return torch.tensor([int((x > 0).sum()), x.numel()], dtype=torch.float64)

    def combine(self, total, new):
        return total + new

    def finish(self, totals):
        shares = {site: active / number for site, (active, number) in totals.items()}
        values, dims, coords = stack_by_layer(shares, {})
        half = torch.full_like(values, 0.5)
        return pk.Measurement(self.key, values, dims, coords, "fraction", half, "signs at random")


model = pk.load("modular-deep-4", seed=0)
with torch.no_grad(), pk.attach(model, ActiveShare()) as run:
    for _ in range(10):
        model(torch.randint(0, model.cfg.d_vocab, (64, model.cfg.n_ctx)))

print(run["active_share"].to_frame())
run["active_share"].plot()
plt.savefig("probe_in_ten_lines.png", bbox_inches="tight")
