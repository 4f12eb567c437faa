"""Checkpoints in shards, and models that accelerate spread: in memory, and in part on disk."""

import json
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from checks import assert_close_to_largest
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM, BertForMaskedLM
from transformers import T5ForConditionalGeneration as T5

import probekit as pk
from probekit.hooked.model import weights

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
IDS = families.token_ids()
CARD = """title = "tiny"
source = "huggingface"
architecture = "{}"
id = "nobody/tiny"
[config]
n_layers = 2
n_heads = 4
d_model = 32
"""
#: Layer 1 lies on the disk between forwards, the rest in memory.
PARTS = {"bert.embeddings": "cpu", "bert.encoder.layer.0": "cpu", "bert.encoder.layer.1": "disk"}
PARTS |= {"cls": "cpu"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[type, Path]:
    """A BERT and a T5, each in several files with an index, with a card beside it."""
    found: dict[type, Path] = {}
    for model in (BertForMaskedLM(families.tiny_bert()), T5(families.tiny_t5())):
        found[cls := type(model)] = folder = tmp_path_factory.mktemp("sharded")
        model.save_pretrained(folder, max_shard_size="20KB")
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert len(set(index["weight_map"].values())) >= 3
        (folder / "tiny.toml").write_text(CARD.format(cls.__name__))
    return found


@pytest.mark.parametrize("cls", [BertForMaskedLM, T5])
def test_a_card_loads_shards(folders, cls) -> None:
    model = pk.load(folders[cls] / "tiny.toml", checkpoint=folders[cls])
    plain = cls.from_pretrained(folders[cls], attn_implementation="eager").eval()
    with torch.no_grad():
        if cls is T5:
            expected = plain(input_ids=IDS, decoder_input_ids=IDS).logits
            assert_close_to_largest(model(IDS, decoder_input=IDS), expected)
        else:
            assert_close_to_largest(model(IDS), plain(IDS).logits)
    own = {n.removesuffix(".weight") for n, _ in plain.named_parameters()}
    entries = {entry.name for entry in pk.weights.read_weights(folders[cls]).entries}
    assert {name.removesuffix(".weight") for name in entries} == own


@pytest.fixture
def spread(folders: dict[type, Path], tmp_path: Path) -> Any:
    """The BERT with its layer 1 on the disk."""
    return pk.wrap(
        AutoModelForMaskedLM.from_pretrained(
            folders[BertForMaskedLM], device_map=PARTS, offload_folder=tmp_path
        )
    )


@pytest.fixture
def whole(folders: dict[type, Path]) -> Any:
    """The same in memory."""
    return pk.wrap(BertForMaskedLM.from_pretrained(folders[BertForMaskedLM]))


def reading(model: Any, *items: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """VDI and logits under ``items``."""
    with torch.no_grad(), pk.attach(model, *items, pk.VDI()) as run:
        logits = model(IDS)
    return run["vdi"].values, logits


ITEMS = {
    "nothing": (),
    "a head of a layer on disk": (pk.HeadScale(layer=1, head=2, omega=0.0),),
    "a pattern": (pk.SetPattern(lambda pattern: 0.5 * pattern),),
    "weights in memory": (pk.SwapWeights("random", layers=(0,)),),
    "weights held still": (pk.FreezeWeights(("Q",), layers=(0,)),),
}


@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
def test_items_act_where_a_layer_is_on_disk(spread, whole, items) -> None:
    before = reading(spread)
    for found, expected in zip(reading(spread, *items), reading(whole, *items), strict=True):
        assert torch.equal(found, expected)
    assert all(map(torch.equal, reading(spread), before))


@pytest.mark.parametrize(
    ("use", "first"),
    [
        (lambda model: pk.attach(model, pk.SwapWeights("zero", layers=(1,))), "1.Q.weight"),
        (lambda model: pk.attach(model, pk.SwapWeights(model)), "1.Q.weight"),
        (lambda model: pk.attach(model, pk.FreezeWeights("all")), ""),
        (weights, "bert.encoder.layer.1."),
        (lambda model: pk.weights.weight_battery(model, progress=False), "bert.encoder.layer.1."),
    ],
    ids=["swap", "donor", "freeze", "weights", "battery"],
)
def test_weights_on_disk_are_refused(spread, use, first) -> None:
    with pytest.raises(pk.ProbekitError, match=r"device_map=\{'': 'cpu'\}") as error:
        use(spread)
    assert f" of these weights are offloaded, {first}" in str(error.value)
    with torch.no_grad():
        assert spread(IDS).isfinite().all()


@pytest.mark.parametrize("cls", [BertForMaskedLM, T5])
@pytest.mark.parametrize("place", ["cpu", pytest.param("cuda", marks=GPU)])
def test_a_device_map_of_one_device(folders, cls, place) -> None:
    auto = AutoModelForSeq2SeqLM if cls is T5 else AutoModelForMaskedLM
    model = pk.wrap(auto.from_pretrained(folders[cls], device_map={"": place}))
    other = pk.wrap(cls.from_pretrained(folders[cls]))
    items = (pk.HeadScale(layer=0, head=0, omega=0.5), pk.SwapWeights("zero", layers=(1,)))
    found = []
    for each in (model, other):
        ids = IDS.to(next(each.parameters()).device)
        decoder = {"decoder_input": ids} if cls is T5 else {}
        with torch.no_grad(), pk.attach(each, *items, pk.VDI()) as run:
            logits = each(ids, **decoder)
        found.append((run["vdi"].values.cpu(), logits.cpu()))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)
