"""The weight battery over a folder of safetensors, each number beside what iid weights read."""

import matplotlib.pyplot as plt
from transformers import LlamaConfig, LlamaForCausalLM

import probekit as pk

# Any folder of a model that save_pretrained wrote; matrices are read one at a time.
config = LlamaConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    vocab_size=100,
)
LlamaForCausalLM(config).save_pretrained("my-model")

battery = pk.weights.weight_battery("my-model")
print(battery)
spectra = battery.spectra
print(spectra[["type", "layer", "stable_rank", "stable_rank_null"]])

plt.scatter(spectra["stable_rank_null"], spectra["stable_rank"])
ends = [0, spectra["stable_rank_null"].max()]
plt.plot(ends, ends, color="grey", linewidth=0.8)
plt.xlabel("stable rank of an iid matrix of the shape")
plt.ylabel("stable rank")
plt.savefig("weight_battery_folder.png", bbox_inches="tight")
