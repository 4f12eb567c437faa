"""Which numbers a selection means, checked on the raw Hugging Face and native parameters."""

import contextlib
from typing import Any

import pytest
import torch
from families import ALL, Family
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3Config, Qwen3ForCausalLM

import probekit as pk
from probekit.hooked.parameters import PARTS
from probekit.hooked.regions import regions
from probekit.hooked.selection import Selection


def _addresses(family: Family, *parts: str, **where) -> list[str]:
    return [each.address for each in Selection(parts, **where).find(family.model)]


def test_a_head_of_q_is_its_rows_and_its_bias(built) -> None:
    family = built("bert")
    raw = family.model.original_model.bert.encoder.layer[1].attention.self.query
    weight, bias = Selection(("Q",), layers=(1,), heads=(2,)).find(family.model)
    torch.testing.assert_close(weight.view, raw.weight[16:24], rtol=0, atol=0)
    torch.testing.assert_close(bias.view, raw.bias[16:24], rtol=0, atol=0)
    assert weight.view.data_ptr() == raw.weight[16:24].data_ptr()


def test_a_head_of_o_is_its_columns_and_no_bias(built) -> None:
    family = built("bert")
    raw = family.model.original_model.bert.encoder.layer[0].attention.output.dense
    (weight,) = Selection(("O",), layers=(0,), heads=(3,)).find(family.model)
    torch.testing.assert_close(weight.view, raw.weight[:, 24:32], rtol=0, atol=0)
    assert _addresses(family, "O", layers=(0,)) == ["0.O.weight", "0.O.bias"]


@pytest.mark.parametrize(("part", "start"), [("Q", 0), ("K", 32), ("V", 64)])
def test_a_fused_projection_is_told_apart(built, part: str, start: int) -> None:
    family = built("gpt2")
    raw = family.model.original_model.transformer.h[1].attn.c_attn
    weight, bias = Selection((part,), layers=(1,), heads=(1,)).find(family.model)
    own = slice(start + 8, start + 16)
    torch.testing.assert_close(weight.view, raw.weight[:, own].T, rtol=0, atol=0)
    torch.testing.assert_close(bias.view, raw.bias[own], rtol=0, atol=0)
    before = raw.weight.detach().clone()
    with torch.no_grad():
        weight.view.add_(1)
        torch.testing.assert_close(weight.view, raw.weight[:, own].T, rtol=0, atol=0)
        raw.weight.copy_(before)


def test_towers_have_heads_of_their_own(built) -> None:
    family = built("clip")
    (weight, _) = Selection(("K",), layers=(2,), heads=(1,), stack="vision").find(family.model)
    raw = family.model.original_model.vision_model.encoder.layers[2].self_attn.k_proj
    torch.testing.assert_close(weight.view, raw.weight[12:24], rtol=0, atol=0)


def test_cross_attention_alone(built) -> None:
    assert _addresses(built("t5"), "V", attn="cross") == [
        "decoder.0.cross.V.weight",
        "decoder.1.cross.V.weight",
    ]


def test_tied_weights_are_one(built) -> None:
    assert _addresses(built("t5"), "EMBED") == ["EMBED.embed.weight"]
    assert _addresses(built("t5"), "EMBED", stack="decoder") == ["decoder.EMBED.embed.weight"]
    assert _addresses(built("t5"), "UNEMBED") == ["decoder.UNEMBED.weight"]
    assert _addresses(built("t5"), "POS", stack="encoder") == ["encoder.POS.pos_embed.weight"]


#: What belongs to no part, in layer 0 of each stack and outside.
REMAINDER: dict[str, list[str]] = {
    "native": [],
    "gpt2": [],
    "bert": [f"cls.predictions.transform.dense.{kind}" for kind in ("weight", "bias")],
    "bert encoder": ["pooler.dense.weight", "pooler.dense.bias"],
    "t5": [],
    "vit": ["pooler.dense.weight", "pooler.dense.bias"],
    "clip": ["logit_scale", "visual_projection.weight", "text_projection.weight"],
    "dinov2": [f"encoder.layer.{n}.layer_scale{i}.lambda1" for n in (0, 1) for i in (1, 2)],
    "mixtral": [],
    "qwen3": [f"model.layers.0.self_attn.{which}_norm.weight" for which in "qk"],
}
#: Parts that hold the same numbers.
TIED = {"gpt2": 1, "bert": 1, "t5": 1}


def _model(name: str, built) -> Any:
    if name in ALL:
        return built(name).model
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50}
    if name == "mixtral":
        return pk.wrap(MixtralForCausalLM(MixtralConfig(**sizes, num_local_experts=2)))
    return pk.wrap(Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=8)))


@pytest.mark.parametrize("name", REMAINDER)
def test_the_parts_divide_the_parameters_but_for_a_known_remainder(built, name: str) -> None:
    """Counted number by number: each lies in one part, tied ones in two."""
    model = _model(name, built)
    parameters = dict(model.named_parameters())
    own = {key: parameter.detach().clone() for key, parameter in parameters.items()}
    try:
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.zero_()
            for part in PARTS:
                with contextlib.suppress(pk.ProbekitError):
                    for each in Selection((part,)).find(model):
                        each.view.add_(1)
        count = {
            key.replace("_original_component.", ""): parameter.detach().unique().tolist()
            for key, parameter in parameters.items()
        }
    finally:
        with torch.no_grad():
            for key, parameter in parameters.items():
                parameter.copy_(own[key])
    assert sorted(key for key, seen in count.items() if 0 in seen) == sorted(REMAINDER[name])
    twice = [key for key, seen in count.items() if max(seen) > 1]
    assert len(twice) == TIED.get(name, 0), twice


def test_the_experts_of_a_mixture_are_its_mlp(built) -> None:
    assert [each.address for each in Selection(("MLP",)).find(_model("mixtral", built))] == [
        "0.MLP.gate.weight",
        "0.MLP.experts.gate_up_proj",
        "0.MLP.experts.down_proj",
    ]


@pytest.mark.parametrize("heads", [None, (0, 2), (1,)])
@pytest.mark.parametrize("part", ["Q", "O", "MLP", "LN"])
def test_regions_hold_the_numbers_of_the_slices_in_every_parameter(built, part, heads) -> None:
    """Against NaNs written through the slices, where GPT-2's fused projection has them too."""
    if heads and part not in "QO":
        return
    model = built("gpt2").model
    slices = Selection((part,), heads=heads).find(model)
    places = regions(model, slices)
    own = {p: p.detach().clone() for p in model.parameters()}
    with torch.no_grad():
        for each in slices:
            each.view.fill_(torch.nan)
        marked = {p: p.isnan() for p in own if p.isnan().any()}
        for parameter, value in own.items():
            parameter.copy_(value)
    assert {place.parameter for place in places} == set(marked)
    for place in places:
        mask = torch.zeros(place.parameter.shape)
        for view in place.views(mask):
            view.add_(1)
        assert torch.equal(mask, marked[place.parameter].float())


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"parts": ("R",)}, "unknown part 'R'"),
        ({"parts": ()}, "parts is a sequence"),
        ({"parts": "Q"}, "parts is a sequence"),
        ({"parts": ("Q",), "layers": (2,)}, r"layers=\(2,\): \[2\] do not exist; blocks has"),
        ({"parts": ("Q",), "heads": (4,)}, r"heads=\(4,\): \[4\] do not exist at 0"),
        ({"parts": ("Q",), "heads": ()}, "heads is a sequence of whole numbers"),
        ({"parts": ("MLP",), "heads": (0,)}, "heads= selects in Q, K, V and O; MLP has none"),
        ({"parts": ("EMBED",), "layers": (0,)}, "EMBED lies outside the layers"),
        ({"parts": ("Q",), "stack": "encoder"}, "unknown stack 'encoder'"),
        ({"parts": ("Q",), "attn": "cross"}, "this model has no Q at that place"),
    ],
)
def test_a_wrong_selection_names_what_there_is(built, where: dict, message: str) -> None:
    with pytest.raises(pk.ProbekitError, match=message):
        Selection(**where).find(built("bert").model)


def test_a_missing_part_is_named(built) -> None:
    with pytest.raises(pk.ProbekitError, match="no UNEMBED at that place; parts of the model: Q,"):
        Selection(("UNEMBED",)).find(built("vit").model)


def test_shared_key_heads_cannot_be_taken_apart() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
    )
    model = pk.wrap(LlamaForCausalLM(config))
    (weight,) = Selection(("Q",), heads=(3,)).find(model)
    assert weight.view.shape == (8, 32)
    with pytest.raises(pk.ProbekitError, match=r"0\.K is shared by groups of heads"):
        Selection(("K",), heads=(3,)).find(model)
    assert Selection(("K",)).find(model)[0].view.shape == (16, 32)
