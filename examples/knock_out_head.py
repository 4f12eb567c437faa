"""Knock out one head after another and see which of them the answer needs."""

import matplotlib.pyplot as plt
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import probekit as pk

# Or GPT2LMHeadModel.from_pretrained("gpt2").
hf = GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=500, n_positions=32))
model = pk.wrap(hf.eval())
ids = torch.randint(0, 500, (4, 16))

changes = torch.zeros(3, 4)
for layer in range(3):
    for head in range(4):
        receipt = pk.verify(model, pk.HeadScale(layer, head, omega=0), ids)
        changes[layer, head] = receipt.output_change or 0  # the largest change of a logit

print(changes)
plt.imshow(changes, cmap="viridis")
plt.xticks(range(4))
plt.yticks(range(3))
plt.xlabel("head")
plt.ylabel("layer")
plt.colorbar(label="largest change of a logit")
plt.savefig("knock_out_head.png", bbox_inches="tight")
