"""Addresses, folders of weights, texts and dictionaries that are not what they should be."""

import json
from pathlib import Path
from typing import Any

import families
import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import (
    WORDS,
    as_json,
    changed_bytes,
    changed_tensors,
    changed_trees,
    examples,
    only_reads,
    refused_well,
)
from transformers import BertModel, CLIPModel, Qwen3_5ForCausalLM, Qwen3_5TextConfig
from unchecked import unchecked

import probekit as pk
from probekit.paths import data_dir
from probekit.site import PARTS, parse_site
from probekit.sitemap import SiteMap
from probekit.training.language import LanguageTask
from probekit.weights import read_weights

# Addresses

PIECES = ["0", "-1", "9" * 5000, ":", "0:2", "::0", "::-1", "*", "self", "cross", "encoder", "²"]
PIECES += [".", "", "z", "pattern", "resid_pre", "logits", "x", "a\0b", "é", ":1", ":9", ":-1"]


@given(st.one_of(st.lists(st.sampled_from(PIECES)).map("".join), st.text()))
@examples(60)
def test_any_text_as_an_address(built, text):
    sites = SiteMap(built("native").model)
    with refused_well(text[:40], repr(text[:20])[1:-1]):
        site = parse_site(text)
        assert parse_site(str(site)) == site
        assert sites.resolve(site)


@given(
    st.sampled_from([*PARTS, 3, None, [], "x"]),
    st.sampled_from([None, 0, -1, 10**400, 0.5, "0", slice(0, 1, 0), slice("a"), slice(None)]),
    st.sampled_from([None, 0, -1, 10**400, True, "0"]),
    st.sampled_from([None, "encoder", 3, [], ""]),
    st.sampled_from([None, "self", "both", 3, []]),
)
@examples(60)
def test_any_parts_of_an_address(built, part, layer, head, stack, attn):
    sites = SiteMap(built("native").model)
    with refused_well("part", "layer", "head", "stack", "attn", "slice", "site '"):
        site = unchecked(pk.Site, part, layer, head, stack, attn)
        assert sites.resolve(site)


# Folders of weights


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """The files of some saved models."""
    linear: dict[str, Any] = {"linear_num_value_heads": 2, "linear_num_key_heads": 2}
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    qwen = Qwen3_5TextConfig(
        num_hidden_layers=4, intermediate_size=8, vocab_size=20, **sizes, **linear
    )
    models = {
        "bert": BertModel(families.tiny_bert()),
        "clip": CLIPModel(families.tiny_clip()),
        "qwen": Qwen3_5ForCausalLM(qwen),
    }
    saved: dict[str, dict[str, bytes]] = {}
    for name, model in models.items():
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder, max_shard_size="20KB" if name == "bert" else "1GB")
        saved[name] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return saved


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def read_all(folder: Path) -> None:
    for entry in read_weights(folder).entries:
        entry.read()


@given(st.sampled_from(["bert", "clip", "qwen"]), st.data())
@examples(20)
def test_a_config_of_other_values(tmp_path, folders, name, data):
    files = folders[name]
    content = as_json(data.draw(changed_trees(json.loads(files["config.json"]))))
    folder = put(tmp_path / "folder", files | {"config.json": content})
    only_reads(tmp_path, lambda: read_all(folder), folder, "every layer", "head_dim", "heads")


INDEX = "model.safetensors.index.json"


@given(st.data())
@examples(16)
def test_an_index_of_other_values(tmp_path, folders, data):
    files = folders["bert"]
    index = json.loads(files[INDEX])
    content = as_json(data.draw(changed_trees(index)))
    folder = put(tmp_path / "folder", files | {INDEX: content})
    only_reads(tmp_path, lambda: read_all(folder), folder, "every layer")


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "..", "", "a\0b", 3, None]
)
def test_an_index_does_not_lead_out_of_the_folder(tmp_path, folders, name):
    files = folders["bert"]
    shard = next(name for name in files if name.endswith(".safetensors"))
    (tmp_path / "outside.safetensors").write_bytes(files[shard])
    index = json.loads(files[INDEX])
    index["weight_map"] |= {key: name for key, to in index["weight_map"].items() if to == shard}
    folder = put(tmp_path / "folder", files | {INDEX: json.dumps(index).encode()})
    with pytest.raises(pk.ProbekitError) as error:
        read_weights(folder)
    assert str(error.value) == (
        f"{folder / INDEX}: weight_map gives {name!r}, which is no file beside it; "
        "give a folder that save_pretrained wrote"
    )


@given(st.sampled_from(["bert", "qwen"]), st.data())
@examples(20)
def test_files_that_were_tampered_with(tmp_path, folders, name, data):
    files = folders[name]
    file = data.draw(st.sampled_from(sorted(f for f in files if f.endswith(".safetensors"))))
    folder = put(tmp_path / "folder", files | {file: data.draw(changed_tensors(files[file]))})
    only_reads(tmp_path, lambda: read_all(folder), folder, "every layer", "rows", "no query")


CLIP = {
    "model_cfg": {
        "embed_dim": 4,
        "vision_cfg": {"width": 12, "head_width": 4, "layers": 2},
        "text_cfg": {"width": 12, "heads": 3, "layers": 2},
    }
}


@given(changed_trees(CLIP))
@examples(16)
def test_an_open_clip_config_of_other_values(tmp_path, folders, tree):
    files = {name: data for name, data in folders["clip"].items() if name != "config.json"}
    folder = put(tmp_path / "folder", files | {"open_clip_config.json": as_json(tree)})
    only_reads(tmp_path, lambda: read_all(folder), folder, "every layer")


# Texts

TEXT = b"one two three\nfour five six\n" * 40


@given(st.one_of(changed_bytes(TEXT), st.binary(max_size=50)))
@examples(12)
def test_a_text_whose_bytes_changed(tmp_path, content):
    file = tmp_path / "text"
    file.write_bytes(content)
    only_reads(tmp_path, lambda: LanguageTask(str(file), "characters", length=4), file, "the text")


@pytest.fixture(scope="module")
def talk() -> Any:
    from probekit import recipes

    return recipes.load(data_dir("recipes") / "talk.py")


@given(st.one_of(changed_bytes(TEXT), st.binary(max_size=50)))
@examples(12)
def test_prompts_whose_bytes_changed(tmp_path, talk, content):
    file = tmp_path / "prompts"
    file.write_bytes(content)
    texts = only_reads(tmp_path, lambda: talk.Config(prompts=str(file)).texts([]), file)
    assert texts is None or all(text.strip() for text in texts)


@pytest.mark.parametrize(
    "place", [word for word in WORDS if word not in ("", "/etc/passwd", "@half")]
)
def test_texts_that_are_not_there(talk, place):
    with pytest.raises(pk.ProbekitError):
        talk.Config(prompts=place).texts([])
    with pytest.raises(pk.ProbekitError):
        LanguageTask(place)
