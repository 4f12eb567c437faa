"""Cards and checkpoints that are not what they should be."""

import json
from pathlib import Path
from typing import Any

import families
import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import (
    as_json,
    as_toml,
    changed_bytes,
    changed_tensors,
    changed_trees,
    examples,
    nodes,
    only_reads,
    refused_well,
)
from safetensors.torch import save
from transformers import BertModel

import probekit as pk
from probekit.hooked.cards import config_fields, read_card
from probekit.hooked.model import weights

SIZES = {"n_layers": 1, "n_heads": 2, "d_model": 4, "d_head": 2, "d_mlp": 3, "n_ctx": 5}
NATIVE: dict[str, Any] = {
    "title": "A toy",
    "source": "native",
    "config": {**SIZES, "d_vocab": 7, "act_fn": "relu", "normalization_type": "LN", "eps": 1e-5},
}
EQUILIBRIUM: dict[str, Any] = {
    "title": "A toy",
    "source": "equilibrium",
    "config": {
        **NATIVE["config"],
        "act_fn": "gelu",
        "parallel_attn_mlp": True,
        "damping": 1.0,
        "step_size": 0.1,
        "n_steps": 3,
    },
}
HUGGING_FACE: dict[str, Any] = {
    "title": "A tiny BERT",
    "source": "huggingface",
    "id": "nobody/tiny-bert",
    "architecture": "BertModel",
    "config": {"n_layers": 2, "n_heads": 4, "d_model": 32, "vision": {"d_model": 3}},
}
CARDS = [NATIVE, EQUILIBRIUM, HUGGING_FACE]


def toy(folder: Path, card: Any = NATIVE) -> Path:
    path = folder / "toy.toml"
    path.write_bytes(card if isinstance(card, bytes) else as_toml(card))
    return path


def load_here(path: Path, **more: Any) -> Any:
    """Never from the hub, and of models that load only small ones: nothing here asks for more."""
    return pk.load(path, seed=0, local_files_only=True, **more)


def test_the_cards_themselves_are_read(tmp_path):
    for card in CARDS:
        assert read_card(toy(tmp_path, card)).title == card["title"]
    for card in (NATIVE, EQUILIBRIUM):
        load_here(toy(tmp_path, card))


@given(st.sampled_from(CARDS).flatmap(lambda card: changed_bytes(as_toml(card))))
@examples(20)
def test_a_card_whose_bytes_changed(tmp_path, content):
    path = toy(tmp_path, content)
    only_reads(tmp_path, lambda: read_card(path), path, "'toy")


@given(st.sampled_from(CARDS).flatmap(changed_trees))
@examples(30)
def test_a_card_of_other_values(tmp_path, card):
    path = toy(tmp_path, card)
    only_reads(tmp_path, lambda: load_here(path), path, "'toy", tmp_path)


@given(st.sampled_from(sorted(config_fields())), nodes, st.sampled_from([NATIVE, EQUILIBRIUM]))
@examples(30)
def test_any_value_of_any_field(tmp_path, field, value, card):
    path = toy(tmp_path, {**card, "config": {**card["config"], field: value}})
    only_reads(tmp_path, lambda: load_here(path), path, "'toy", field)


@pytest.mark.parametrize(
    "name", ["a\0b", "y" * 5000, "../models/grokking", "", "/", "x.toml/y.toml"]
)
def test_names_that_no_card_has(name):
    for given_name in (name, f"{name}.toml"):
        with pytest.raises(pk.CardError):
            read_card(given_name)


@pytest.mark.parametrize("field", ["n_ctx", "n_layers", "d_mlp", "d_vocab", "d_head"])
def test_an_enormous_model_is_refused_before_memory_is_asked_for(tmp_path, field):
    card = {**NATIVE, "config": {**NATIVE["config"], field: 10**12}}
    with pytest.raises(pk.CardError, match=r"'toy': the model takes [0-9,]+ GiB of memory, and "):
        load_here(toy(tmp_path, card))


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> list[bytes]:
    """Checkpoints of the toys."""
    folder = tmp_path_factory.mktemp("toys")
    models = [pk.load(toy(folder, card)) for card in (NATIVE, EQUILIBRIUM)]
    return [save({n: w.detach() for n, w in weights(model).items()}) for model in models]


@given(st.sampled_from([NATIVE, EQUILIBRIUM]), st.data())
@examples(16)
def test_a_checkpoint_of_a_toy_that_was_tampered_with(tmp_path, toys, card, data):
    toy(tmp_path, card)
    file = tmp_path / "toy.safetensors"
    file.write_bytes(data.draw(changed_tensors(toys[CARDS.index(card)])))
    only_reads(tmp_path, lambda: load_here(tmp_path / "toy.toml", checkpoint=file), file)


# Hugging Face folders

BERT = """
title = "A tiny BERT"
source = "huggingface"
architecture = "BertModel"
checkpoint = "bert"
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> dict[str, bytes]:
    """The files of a saved tiny BERT."""
    folder = tmp_path_factory.mktemp("saved")
    BertModel(families.tiny_bert()).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def saved(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """The card of a model in a folder beside it."""
    (tmp_path / "bert").mkdir(exist_ok=True)
    for name, content in files.items():
        (tmp_path / "bert" / name).write_bytes(content)
    return toy(tmp_path, BERT.encode())


@given(st.data())
@examples(10)
def test_a_config_of_other_values(tmp_path, bert, data):
    config = json.loads(bert["config.json"])
    content = as_json(data.draw(changed_trees(config)))
    path = saved(tmp_path, bert | {"config.json": content})
    only_reads(tmp_path, lambda: load_here(path), tmp_path / "bert", "'toy'")


@given(st.data())
@examples(10)
def test_weights_that_were_tampered_with(tmp_path, bert, data):
    content = data.draw(changed_tensors(bert["model.safetensors"]))
    path = saved(tmp_path, bert | {"model.safetensors": content})
    only_reads(tmp_path, lambda: load_here(path), tmp_path / "bert")


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "intermediate_size"])
def test_an_enormous_config_is_refused_before_memory_is_asked_for(tmp_path, bert, field):
    config = json.loads(bert["config.json"]) | {field: 4 * 10**12}
    path = saved(tmp_path, bert | {"config.json": json.dumps(config).encode()})
    with pytest.raises(pk.CardError, match=r"bert cannot be loaded .*takes [0-9,]+ GiB of memory"):
        load_here(path)


@pytest.mark.parametrize("architecture", ["pipeline", "BertConfig", "__name__"])
def test_what_is_no_model_class(tmp_path, bert, architecture):
    path = saved(tmp_path, bert)
    path.write_text(BERT.replace("BertModel", architecture))
    with pytest.raises(pk.CardError, match="'toy'"):
        load_here(path)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a b", "a\0b", "y" * 300, "a/b/c", "é"])
def test_ids_that_name_no_model(tmp_path, name):
    path = toy(tmp_path, {**HUGGING_FACE, "id": name})
    with refused_well("'toy'"):
        load_here(path)
    with pytest.raises(pk.CardError):
        load_here(path)
