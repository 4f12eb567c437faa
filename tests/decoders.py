"""Families of decoders that no card is of."""

import copy
from typing import Any

import torch
from families import VOCAB, Family, token_ids
from families import _logits as logits
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CodeGenConfig,
    Gemma2Config,
    GPTJConfig,
    GPTNeoConfig,
    LlamaConfig,
    MptConfig,
    Qwen3Config,
    XGLMConfig,
)

import probekit as pk


def decoder(kind: str) -> Family:
    """A decoder of an architecture that none of the cards is of, in float32 with large weights."""
    config, sizes = DECODERS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(config(vocab_size=VOCAB, **sizes)).eval()
        for parameter in hf.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    plain, ids = copy.deepcopy(hf), token_ids()
    return Family(kind, pk.wrap(hf), plain, (ids,), {}, {"input_ids": ids}, logits)


_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}
#: TransformerLens computes the attention of some itself; of others Hugging Face's module does, by
#: no function of others.
DECODERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, _LLAMA),
    "qwen3": (Qwen3Config, {**_LLAMA, "head_dim": 8}),
    "gemma2": (Gemma2Config, {**_LLAMA, "head_dim": 8}),
    "bloom": (BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mpt": (MptConfig, {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 16}),
    "codegen": (CodeGenConfig, {**_GPT, "rotary_dim": 4}),
    "gptj": (GPTJConfig, {**_GPT, "rotary_dim": 4}),
    "gpt neo": (
        GPTNeoConfig,
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
    ),
    "xglm": (XGLMConfig, {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4}),
}
