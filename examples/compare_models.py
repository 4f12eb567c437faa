"""How alike are two models inside? Beside each number stands what it reads for unrelated ones."""

import matplotlib.pyplot as plt
import torch

import probekit as pk

first, second = (pk.load("modular-deep-4", seed=seed) for seed in (0, 1))
tokens = torch.randint(0, first.cfg.d_vocab, (256, first.cfg.n_ctx))

found = pk.compare(first, second, tokens)
for name, measurement in found.items():
    print(name, measurement, sep="\n")
found["cka"].plot()
plt.savefig("compare_models.png", bbox_inches="tight")
