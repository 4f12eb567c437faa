"""Tiny random models of every family, with inputs and an untouched eager copy to compare with.

The ``tiny_...`` functions are the one place where a tiny model's size is written.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
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
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

import probekit as pk
from probekit.hooked.adapters import register_adapters

VOCAB = 50


def tiny_native(seed: int | None = 0, **overrides: Any) -> Any:
    sizes: dict[str, Any] = {"n_layers": 2, "n_ctx": 8, "d_vocab": VOCAB}
    return pk.load("grokking", seed=seed, **(sizes | overrides))


def tiny_bert(**overrides: Any) -> BertConfig:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": VOCAB,
        "max_position_embeddings": 16,
    }
    return BertConfig(**(sizes | overrides))


def tiny_t5(**overrides: Any) -> T5Config:
    sizes: dict[str, Any] = {
        "d_model": 32,
        "d_kv": 6,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": VOCAB,
        "decoder_start_token_id": 0,
    }
    return T5Config(**(sizes | overrides))


def tiny_vit(**overrides: Any) -> ViTConfig:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": 16,
        "patch_size": 8,
    }
    return ViTConfig(**(sizes | overrides))


def tiny_dinov2(**overrides: Any) -> Dinov2Config:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 8,
        "layerscale_value": 0.5,
    }
    return Dinov2Config(**(sizes | overrides))


def tiny_gpt2(**overrides: Any) -> GPT2Config:
    sizes: dict[str, Any] = {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": VOCAB,
        "n_positions": 16,
    }
    return GPT2Config(**(sizes | overrides))


def tiny_clip(text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> Any:
    """Towers that differ in depth, heads and width; the overrides go to one each."""
    text_sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": VOCAB,
        "max_position_embeddings": 16,
        "eos_token_id": 49,
        "bos_token_id": 48,
        "pad_token_id": 1,
    }
    vision_sizes: dict[str, Any] = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "image_size": 16,
        "patch_size": 8,
    }
    return CLIPConfig(
        text_config=text_sizes | (text or {}),
        vision_config=vision_sizes | (vision or {}),
        projection_dim=16,
    )


def bridged(model: PreTrainedModel) -> tuple[TransformerBridge, Any]:
    """TransformerLens's bridge of ``model`` and an unwrapped copy, both on eager attention."""
    register_adapters()
    model = model.eval()
    model.set_attn_implementation("eager")
    plain = copy.deepcopy(model)
    name = type(model).__name__
    return build_bridge_from_module(model, name, hf_config=model.config), plain


def late_scores(layers: int) -> TransformerBridge:
    """TransformerLens's own native model, which fires its score hook after the softmax."""
    config = {"n_layers": layers, "n_heads": 2, "d_model": 8, "d_head": 4, "d_mlp": 16}
    config |= {"n_ctx": 6, "d_vocab": 11, "act_fn": "gelu", "normalization_type": "LN", "seed": 0}
    return TransformerBridge.boot_native(config)  # type: ignore[attr-defined]


class LoopedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        return self.hook_resid_pre(x) + 1


class Looped(HookedRootModule):
    """One block, called ``times`` times in a forward: iteration k sees x + k."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.blocks = nn.ModuleList([LoopedBlock()])
        self.setup()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.blocks[0](x)
        return x


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
        return self.output(run(self.model, *self.args, **self.kwargs))

    def reference(self) -> Tensor:
        """The output tensor of the untouched eager model."""
        assert self.eager is not None
        return self.output(run(self.eager, **self.hf_kwargs))


def run(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The answer without gradients."""
    with torch.no_grad():
        return model(*args, **kwargs)


def _logits(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def _hidden(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.last_hidden_state


def token_ids(batch: int = 3, length: int = 7) -> Tensor:
    return torch.randint(3, VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


def padding_mask(batch: int = 3, length: int = 7) -> Tensor:
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
    return Family("native", tiny_native(), None, (token_ids(),), {}, {}, _logits)


def bert() -> Family:
    model, eager = _wrapped("minilm", BertForMaskedLM, tiny_bert())
    hf_kwargs = {"input_ids": token_ids(), "attention_mask": padding_mask()}
    kwargs = {"attention_mask": padding_mask()}
    return Family("bert", model, eager, (token_ids(),), kwargs, hf_kwargs, _logits)


def bert_encoder() -> Family:
    model, eager = _wrapped("minilm", BertModel, tiny_bert())
    hf_kwargs = {"input_ids": token_ids(), "attention_mask": padding_mask()}
    kwargs = {"attention_mask": padding_mask()}
    return Family("bert encoder", model, eager, (token_ids(),), kwargs, hf_kwargs, _hidden)


def t5() -> Family:
    model, eager = _wrapped("t5-small", T5ForConditionalGeneration, tiny_t5())
    decoder = token_ids(3, 5)
    return Family(
        "t5",
        model,
        eager,
        (token_ids(),),
        {"attention_mask": padding_mask(), "decoder_input": decoder},
        {"input_ids": token_ids(), "attention_mask": padding_mask(), "decoder_input_ids": decoder},
        _logits,
        ("encoder.0.pattern", "decoder.0.self.pattern", "decoder.0.cross.pattern"),
    )


def vit() -> Family:
    model, eager = _wrapped("vit-base", ViTModel, tiny_vit())
    return Family("vit", model, eager, (_pixels(),), {}, {"pixel_values": _pixels()}, _hidden)


def clip() -> Family:
    model, eager = _wrapped("clip-vit-b16", CLIPModel, tiny_clip())
    ids = token_ids().clamp(max=47)
    ids[range(3), padding_mask().sum(-1) - 1] = 49  # the text is read at its last position, the EOS
    kwargs = {"input_ids": ids, "pixel_values": _pixels(), "attention_mask": padding_mask()}
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
    model, eager = _wrapped("dinov2-large", Dinov2Model, tiny_dinov2())
    return Family("dinov2", model, eager, (_pixels(),), {}, {"pixel_values": _pixels()}, _hidden)


def gpt2() -> Family:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = GPT2LMHeadModel(tiny_gpt2()).eval()
    eager = copy.deepcopy(hf)
    eager.set_attn_implementation("eager")
    ids = token_ids()
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
