"""Read the attention entropy of a BERT of your own, head by head, beside uniform attention."""

import matplotlib.pyplot as plt
import torch
from transformers import BertConfig, BertForMaskedLM

import probekit as pk

# Or BertForMaskedLM.from_pretrained("your/bert").
hf = BertForMaskedLM(BertConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4))
model = pk.load("minilm", hf_model=hf.eval())  # any card of the family; sizes are read from hf
ids = torch.randint(1_000, 30_000, (8, 24))

with pk.attach(model, pk.VDI()) as run:
    model(ids, attention_mask=torch.ones_like(ids))

print(run["vdi"].to_frame())
run["vdi"].plot()
plt.savefig("attach_vdi.png", bbox_inches="tight")
