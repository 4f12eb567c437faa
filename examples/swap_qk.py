"""Give a model the queries and keys of another seed, beside its own, random ones and none."""

import matplotlib.pyplot as plt
import torch

import probekit as pk
from probekit.runs import RunDir
from probekit.training import InterleavedTask, Optimisation, Stack, fit

# Or models of your own: pk.load(card, checkpoint=...).
task = InterleavedTask(vocab=32, length=16)
sizes = {"d_model": 32, "d_head": 8, "d_mlp": 32, **task.config}
models = [pk.load("interleaved", seed=seed, **sizes) for seed in (0, 1)]
stack = Stack(models)
how = Optimisation(steps=600, batch=32, lr=3e-3)
fit(RunDir("runs/swap"), stack, task, how, seeds=[0, 1], title="two seeds", position=0)
for seed, trained in enumerate(models):
    stack.copy_to(seed, trained)
model, donor = models

tokens, labels = task.validation()
accuracy = {}
for name, given in {"its own": model, "donor": donor, "random": "random", "zero": "zero"}.items():
    with torch.no_grad(), pk.attach(model, pk.SwapQK(given)):
        said = model(tokens)[:, -labels.shape[1] :].argmax(-1)
    accuracy[name] = float((said == labels).double().mean())

print(accuracy)
plt.bar(list(accuracy), list(accuracy.values()))
plt.axhline(1 / 32, color="grey", linestyle="--", label="chance")
plt.ylabel("accuracy")
plt.xlabel("queries and keys from")
plt.legend()
plt.savefig("swap_qk.png", bbox_inches="tight")
