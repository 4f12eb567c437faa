"""Loading: models in memory, folders, and what cannot be loaded."""

from pathlib import Path

import families
import pytest
import torch
from checks import assert_close_to_largest, identity
from families import run, tiny_bert, tiny_t5
from torch import nn
from transformers import (
    BertForMaskedLM,
    BertModel,
    Gemma3nTextConfig,
    PretrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)

import probekit as pk
from probekit.hooked.load import _check_memory

IDS = families.token_ids()


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "minilm",
            {"n_layers": 2, "d_mlp": 4},
            "card 'minilm' has pretrained weights, so n_layers, d_mlp cannot be overridden; build "
            "a Hugging Face model of that size and pass hf_model=",
        ),
        (
            "grokking",
            {"hf_model": nn.Linear(1, 1)},
            "card 'grokking' is a native model; hf_model= needs a Hugging Face card",
        ),
        (
            "grokking",
            {"d_model": -1},
            "card 'grokking': d_model must be a positive whole number, not -1",
        ),
        (
            "grokking",
            {"parallel_attn_mlp": True},
            "native models do not support parallel_attn_mlp=True",
        ),
        (
            "grokking",
            {"attn_scores_soft_cap": 30.0},
            "native models do not support attn_scores_soft_cap=30.0",
        ),
        ("grokking", {"attn_scale": 2.0}, "native models do not support attn_scale=2.0"),
        (
            "grokking",
            {"positional_embedding_type": "rotary"},
            "native models do not support positional_embedding_type='rotary'",
        ),
        (
            "grokking",
            {"n_key_value_heads": 1},
            "native models do not support grouped heads (n_key_value_heads)",
        ),
        (
            "grokking",
            {"checkpoint": "nowhere.safetensors"},
            "cannot read nowhere.safetensors: ",
        ),
        ("minilm", {"checkpoint": "nowhere"}, "checkpoint nowhere: no folder with a config.json"),
    ],
)
def test_what_cannot_be_loaded(name, overrides, message):
    with pytest.raises(pk.CardError) as error:
        pk.load(name, **overrides)
    text = str(error.value)
    assert text.startswith(message) if message.endswith(": ") else text == message


def test_an_unknown_override_is_answered_with_the_closest():
    message = r"^card 'grokking': unknown config key 'n_layer'; .*; closest: 'n_layers'$"
    with pytest.raises(pk.CardError, match=message):
        pk.load("grokking", n_layer=2)


@pytest.mark.parametrize("config", [Gemma3nTextConfig(), PretrainedConfig(), T5Config()])
def test_a_config_without_a_size_or_with_one_a_layer_is_no_enormous_one(config):
    """Gemma 3n's intermediate_size is a list, T5 has none."""
    _check_memory(config)


# Hugging Face models in memory


def test_a_model_that_is_wrapped_already_is_refused():
    family = families.bert()
    with pytest.raises(pk.CardError) as error:
        pk.load("minilm", hf_model=family.model.original_model)
    assert str(error.value) == (
        "hf_model is wrapped already; use that bridge, or load the model afresh"
    )


def test_a_class_without_adapter_is_refused():
    class BertModle(nn.Module):
        config = PretrainedConfig()

    with pytest.raises(pk.CardError) as error:
        pk.load("minilm", hf_model=BertModle())
    assert str(error.value) == (
        "no TransformerLens adapter for BertModle; closest: 'BertModel', 'HubertModel', 'DeiTModel'"
    )


def test_a_model_of_another_family_is_refused():
    with pytest.raises(pk.CardError) as error:
        pk.load("t5-small", hf_model=BertForMaskedLM(tiny_bert()))
    assert str(error.value) == (
        "card 't5-small' describes a t5 model, hf_model is a bert; take a card of that family "
        "(pk.list_models()) or call pk.wrap(hf_model)"
    )


def test_inputs_go_by_name_or_by_position(built):
    family = built("bert")
    by_name = run(family.model, input_ids=family.args[0], **family.kwargs)
    assert torch.equal(by_name, family.run())


def test_a_wrapped_model_is_in_eval_mode():
    model = BertModel(tiny_bert())
    model.train()
    wrapped = pk.wrap(model)
    assert not any(module.training for module in (*wrapped.modules(), *model.modules()))


# Folders


BERT_CARD = """
title = "A tiny BERT"
source = "huggingface"
id = "nobody/tiny-bert"
architecture = "BertModel"
{checkpoint}
[config]
n_layers = 2
n_heads = 4
d_model = 32
d_head = 8
d_mlp = 64
n_ctx = 16
d_vocab = 50
act_fn = "gelu"
attention_dir = "bidirectional"
"""


@pytest.fixture
def bert_folder(tmp_path) -> tuple[Path, BertModel]:
    """A saved tiny BERT and the model itself, on eager attention."""
    model = BertModel(tiny_bert()).eval()
    model.save_pretrained(tmp_path / "bert")
    model.set_attn_implementation("eager")
    return tmp_path / "bert", model


def bert_card(tmp_path: Path, text: str = BERT_CARD, checkpoint: str = "") -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(text.format(checkpoint=checkpoint))
    return path


@pytest.mark.parametrize("named_in", ["the call", "the card"])
def test_a_bert_from_a_folder(tmp_path, bert_folder, named_in):
    folder, eager = bert_folder
    if named_in == "the call":
        model = pk.load(bert_card(tmp_path), checkpoint=folder)
    else:
        model = pk.load(bert_card(tmp_path, checkpoint=f'checkpoint = "{folder}"'))
    expected = run(eager, IDS).last_hidden_state
    torch.testing.assert_close(run(model, IDS), expected, rtol=0, atol=1e-5)
    with pk.attach(model, pk.SetPattern(identity)):
        assert torch.equal(run(model, IDS), expected)


def test_a_t5_from_a_folder(tmp_path):
    hf = T5ForConditionalGeneration(tiny_t5()).eval()
    hf.save_pretrained(tmp_path / "t5")
    hf.set_attn_implementation("eager")
    card = tmp_path / "tiny-t5.toml"
    card.write_text(
        'title = "A tiny T5"\nsource = "huggingface"\nid = "nobody/t5"\n'
        'architecture = "T5ForConditionalGeneration"\n'
        "[config]\nn_layers = 2\nn_heads = 4\nd_model = 32\nd_head = 6\nd_vocab = 50\n"
    )
    model = pk.load(card, checkpoint=tmp_path / "t5")
    expected = run(hf, input_ids=IDS, decoder_input_ids=IDS[:, :4]).logits
    ours = run(model, IDS, decoder_input=IDS[:, :4])
    assert_close_to_largest(ours, expected)
    with pk.attach(model, pk.SetPattern(identity)):
        assert torch.equal(run(model, IDS, decoder_input=IDS[:, :4]), expected)


def test_a_card_that_does_not_fit_lists_every_difference(tmp_path, bert_folder):
    text = BERT_CARD.replace("n_layers = 2", "n_layers = 3").replace("d_mlp = 64", "d_mlp = 65")
    with pytest.raises(pk.CardError) as error:
        pk.load(bert_card(tmp_path, text), checkpoint=bert_folder[0])
    assert str(error.value) == (
        "card 'tiny' does not fit nobody/tiny-bert: n_layers is 2, the card says 3; d_mlp is 64, "
        "the card says 65"
    )


def test_a_checkpoint_that_lacks_weights_is_refused_rather_than_filled_at_random(tmp_path):
    """A folder of another kind of model: transformers itself only notes that it draws the rest."""
    hf = T5ForConditionalGeneration(tiny_t5())
    hf.save_pretrained(tmp_path / "t5")
    with pytest.raises(pk.CardError) as error:
        pk.load(bert_card(tmp_path), checkpoint=tmp_path / "t5")
    assert str(error.value) == (
        f"{tmp_path / 't5'} lacks 197 weights of BertModel: embeddings.LayerNorm.bias, "
        "embeddings.LayerNorm.weight, embeddings.position_embeddings.weight, ..."
    )


def test_a_missing_pooler_is_no_fault(tmp_path):
    model = BertModel(tiny_bert(), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "bert")
    ours = run(pk.load(bert_card(tmp_path), checkpoint=tmp_path / "bert"), IDS)
    torch.testing.assert_close(ours, run(model, IDS).last_hidden_state, rtol=0, atol=1e-5)


def test_a_damaged_folder_names_the_folder(tmp_path, bert_folder):
    folder, _ = bert_folder
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(pk.CardError, match=rf"^checkpoint {folder} cannot be loaded \("):
        pk.load(bert_card(tmp_path), checkpoint=folder)


def test_an_unknown_architecture_is_answered_with_the_closest(tmp_path, bert_folder):
    card = bert_card(tmp_path, BERT_CARD.replace("BertModel", "BertModl"))
    with pytest.raises(
        pk.CardError,
        match=r"^card 'tiny': transformers has no model 'BertModl'; closest: .*'BertModel'",
    ):
        pk.load(card, checkpoint=bert_folder[0])
