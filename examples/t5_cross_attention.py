"""Where does a T5 decoder look in its encoder? Attention by head as a page that opens offline."""

import torch
from transformers import T5Config, T5ForConditionalGeneration

import probekit as pk
from probekit.report import Report

# Or T5ForConditionalGeneration.from_pretrained("t5-small").
config = T5Config(
    vocab_size=500, d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, pad_token_id=0
)
config.decoder_start_token_id = 0
model = pk.load("t5-small", hf_model=T5ForConditionalGeneration(config).eval())
ids, said = torch.randint(2, 500, (1, 10)), torch.randint(2, 500, (1, 10))

probes = pk.VDI(site="decoder.cross.pattern"), pk.Record("decoder.0.cross.pattern")
with torch.no_grad(), pk.attach(model, *probes) as run:
    model(ids, attention_mask=torch.ones_like(ids), decoder_input=said)

print(run["vdi"].to_frame())
report = Report("Cross-attention of layer 0").table(run["vdi"].to_frame())
report.attention(
    run["record"].values[0], [str(int(i)) for i in ids[0]], caption="queries say, keys read"
)
report.save("t5_cross_attention.html")
