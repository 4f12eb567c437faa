"""Both towers of CLIP at once: attention entropy of images and of texts."""

import matplotlib.pyplot as plt
import torch
from transformers import CLIPConfig, CLIPModel

import probekit as pk

# Or CLIPModel.from_pretrained("openai/clip-vit-base-patch16").
sizes = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
text = sizes | {"vocab_size": 200, "max_position_embeddings": 16, "eos_token_id": 199}
vision = sizes | {"image_size": 32, "patch_size": 8}
hf = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)).eval()
model = pk.load("clip-vit-b16", hf_model=hf)
ids = torch.randint(1, 198, (2, 8))
ids[:, -1] = 199  # the text is read at its end

with torch.no_grad(), pk.attach(model, pk.VDI()) as run:
    model(
        input_ids=ids, pixel_values=torch.randn(2, 3, 32, 32), attention_mask=torch.ones_like(ids)
    )

frame = run["vdi"].to_frame()
print(frame.groupby(["stack", "layer"])[["value", "null"]].mean())
frame.pivot_table("value", "layer", "stack", "mean").plot(marker="o")
plt.xlabel("layer")
plt.ylabel("VDI, mean over heads (1: uniform)")
plt.savefig("clip_towers.png", bbox_inches="tight")
