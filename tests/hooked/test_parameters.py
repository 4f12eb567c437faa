"""Which numbers a selection means, checked on the raw Hugging Face and native parameters."""

import pytest
import torch
from families import ALL, Family

import probekit as pk
from probekit.hooked.parameters import PARTS, Selection


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
    with torch.no_grad():
        weight.view.add_(1)
        torch.testing.assert_close(weight.view, raw.weight[:, own].T, rtol=0, atol=0)
        weight.view.sub_(1)


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


@pytest.mark.parametrize("name", ALL)
def test_all_parts_together_are_nearly_the_whole_model(built, name: str) -> None:
    """What is left has no name among the parts: poolers, layer scales, heads of other kinds."""
    family = built(name)
    parts = [part for part in PARTS if part != "UNEMBED" or _has_unembedding(name)]
    found = {
        each.parameter.untyped_storage().data_ptr() for each in Selection(parts).find(family.model)
    }
    left = [
        parameter_name.replace("_original_component.", "")
        for parameter_name, parameter in family.model.named_parameters()
        if parameter.untyped_storage().data_ptr() not in found
    ]
    known = ("pooler", "lambda1", "projection", "logit_scale", "mlm_head", "transform.dense")
    assert [n for n in left if not any(word in n for word in known)] == []


def _has_unembedding(name: str) -> bool:
    return name in ("native", "gpt2", "bert", "t5")


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
