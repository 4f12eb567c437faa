"""Tiny random models of every family, with inputs and an untouched eager copy to compare with."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

import probekit as pk

VOCAB = 50


@dataclass
class Family:
    """A wrapped model, the arguments of its forward, and what eager Hugging Face answers.

    ``attentions`` names each attention by the address of its pattern, with its key of the mask.
    """

    name: str
    model: Any
    eager: nn.Module | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    hf_kwargs: dict[str, Any]
    output: Callable[[Any], Tensor]
    attentions: tuple[str, ...] = ("0.pattern",)
    extra: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Tensor:
        """The output tensor of the wrapped model."""
        with torch.no_grad():
            return self.output(self.model(*self.args, **self.kwargs))

    def reference(self) -> Tensor:
        """The output tensor of the untouched eager model."""
        assert self.eager is not None
        with torch.no_grad():
            return self.output(self.eager(**self.hf_kwargs))


def _logits(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def _hidden(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.last_hidden_state


def _ids(batch: int = 3, length: int = 7) -> Tensor:
    return torch.randint(3, VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


def _mask(batch: int = 3, length: int = 7) -> Tensor:
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1, 4:] = 0
    mask[2, 6:] = 0
    return mask


def _pixels() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def _wrapped(card: str, cls: type, config: Any) -> tuple[Any, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = cls(config).eval()
    eager = copy.deepcopy(hf)
    eager.set_attn_implementation("eager")
    return pk.load(card, hf_model=hf), eager


def native() -> Family:
    model = pk.load("grokking", seed=0, n_layers=2, n_ctx=8, d_vocab=VOCAB)
    return Family("native", model, None, (_ids(),), {}, {}, _logits)


def bert(layers: int = 2) -> Family:
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=VOCAB,
        max_position_embeddings=16,
    )
    model, eager = _wrapped("minilm", BertForMaskedLM, config)
    hf_kwargs = {"input_ids": _ids(), "attention_mask": _mask()}
    return Family("bert", model, eager, (_ids(),), {"attention_mask": _mask()}, hf_kwargs, _logits)


def bert_encoder() -> Family:
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=VOCAB,
        max_position_embeddings=16,
    )
    model, eager = _wrapped("minilm", BertModel, config)
    hf_kwargs = {"input_ids": _ids(), "attention_mask": _mask()}
    kwargs = {"attention_mask": _mask()}
    return Family("bert encoder", model, eager, (_ids(),), kwargs, hf_kwargs, _hidden)


def t5() -> Family:
    config = T5Config(
        d_model=32,
        d_kv=6,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        vocab_size=VOCAB,
        decoder_start_token_id=0,
    )
    model, eager = _wrapped("t5-small", T5ForConditionalGeneration, config)
    decoder = _ids(3, 5)
    return Family(
        "t5",
        model,
        eager,
        (_ids(),),
        {"attention_mask": _mask(), "decoder_input": decoder},
        {"input_ids": _ids(), "attention_mask": _mask(), "decoder_input_ids": decoder},
        _logits,
        ("encoder.0.pattern", "decoder.0.self.pattern", "decoder.0.cross.pattern"),
    )


def vit() -> Family:
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=16,
        patch_size=8,
    )
    model, eager = _wrapped("vit-base", ViTModel, config)
    return Family("vit", model, eager, (_pixels(),), {}, {"pixel_values": _pixels()}, _hidden)


def clip() -> Family:
    config = CLIPConfig(
        text_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "vocab_size": VOCAB,
            "max_position_embeddings": 16,
            "eos_token_id": 49,
            "bos_token_id": 48,
            "pad_token_id": 1,
        },
        vision_config={
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "image_size": 16,
            "patch_size": 8,
        },
        projection_dim=16,
    )
    model, eager = _wrapped("clip-vit-b16", CLIPModel, config)
    ids = _ids().clamp(max=47)
    ids[range(3), _mask().sum(-1) - 1] = 49  # the text is read at its last position, the EOS
    kwargs = {"input_ids": ids, "pixel_values": _pixels(), "attention_mask": _mask()}
    return Family(
        "clip",
        model,
        eager,
        (),
        kwargs,
        kwargs,
        lambda output: output.logits_per_image,
        ("text.0.pattern", "vision.0.pattern"),
    )


def dinov2() -> Family:
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
        layerscale_value=0.5,
    )
    model, eager = _wrapped("dinov2-large", Dinov2Model, config)
    return Family("dinov2", model, eager, (_pixels(),), {}, {"pixel_values": _pixels()}, _hidden)


def gpt2() -> Family:
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=VOCAB, n_positions=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = GPT2LMHeadModel(config).eval()
    eager = copy.deepcopy(hf)
    eager.set_attn_implementation("eager")
    ids = _ids()
    return Family("gpt2", pk.wrap(hf), eager, (ids,), {}, {"input_ids": ids}, _logits)


SEAM: dict[str, Callable[[], Family]] = {
    "bert": bert,
    "bert encoder": bert_encoder,
    "t5": t5,
    "vit": vit,
    "clip": clip,
    "dinov2": dinov2,
}
ALL: dict[str, Callable[[], Family]] = {"native": native, "gpt2": gpt2, **SEAM}
