"""Scale a head by omega from 0 to 2, all settings in one forward, with error bars over seeds."""

import matplotlib.pyplot as plt
import torch

import probekit as pk

omegas = torch.linspace(0, 2, 9).tolist()
tokens = torch.randint(0, 113, (256, 6))
settings = [pk.HeadScale(0, 0, omega) for omega in omegas]

rows = []
for seed in range(5):
    model = pk.load("grokking", seed=seed)
    with torch.no_grad():
        plain = model(tokens)
        branches = pk.sweep(model, settings, tokens)
    rows.append([float((branch.output - plain).norm() / plain.norm()) for branch in branches])

changes = torch.tensor(rows)
print(changes.mean(0))
plt.errorbar(omegas, changes.mean(0), changes.std(0), marker="o", capsize=3)
plt.xlabel("omega of head 0 (1: as it is)")
plt.ylabel("relative change of the logits, mean and deviation of 5 seeds")
plt.savefig("sweep_omega.png", bbox_inches="tight")
