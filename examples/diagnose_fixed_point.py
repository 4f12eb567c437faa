"""Relax an equilibrium block, find its fixed point, and say whether it is stable, and why."""

import matplotlib.pyplot as plt
import torch

import probekit as pk

model = pk.load("equilibrium", seed=0, dtype=torch.float64)
tokens = torch.randint(0, 96, (1, 8))

force = pk.dynamics.force_of(model, tokens)
z = pk.dynamics.find_fixed_point(force).require()  # token by token, stable or not
diagnosis = pk.dynamics.classify(force, z)[0]
print(diagnosis.to_dict())

spectrum = pk.dynamics.spectrum(force, z).flatten()  # exact: that of small diagonal blocks
plt.scatter(spectrum.real, spectrum.imag, s=8)
plt.axvline(0, color="grey", linewidth=0.8)
plt.xlabel("real part: left of 0 the flow is stable")
plt.ylabel("imaginary part")
plt.savefig("diagnose_fixed_point.png", bbox_inches="tight")
