"""An intervention of one's own: clip a stream to a ball, and see that it reaches the output."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch

import probekit as pk
from probekit.site import parse_site


@dataclass(frozen=True)
class Ball(pk.Intervention):
    """Vectors longer than ``radius`` are shortened to it."""

    radius: float
    site: str = "resid_post"

    def sites(self):
        return (parse_site(self.site),)

    def edit(self, x, at):
        return x * (self.radius / x.norm(dim=-1, keepdim=True)).clamp(max=1)


model = pk.load("modular-deep-4", seed=0)
tokens = torch.randint(0, model.cfg.d_vocab, (64, model.cfg.n_ctx))
print(pk.verify(model, Ball(1.0), tokens))  # what fired, what changed, and the effect on the output

radii = torch.linspace(0.5, 20, 30).tolist()
effects = [pk.verify(model, Ball(radius), tokens).output_change or 0 for radius in radii]
plt.plot(radii, effects)
plt.xlabel("radius")
plt.ylabel("largest change of a logit")
plt.savefig("write_an_intervention.png", bbox_inches="tight")
