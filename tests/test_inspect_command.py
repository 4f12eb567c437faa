"""`probekit inspect`: what is typed, what is printed, what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import torch
from families import run
from PIL import Image
from predictions import check_label, close
from transformers import (
    AutoImageProcessor,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    CLIPModel,
    T5ForConditionalGeneration,
    ViTForImageClassification,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import probekit as pk
from probekit import cli

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "##s"]
CLS, SEP, MASK, THE, CAT, SAT, ON, MAT = 2, 3, 4, 5, 6, 7, 8, 9


def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})


def saved(folder: Path, model: Any, *parts: Any) -> tuple[str, Any]:
    """A card of a tiny model whose folder holds ``parts`` too, and the model."""
    name = type(model).__name__
    for part in (model.eval(), *parts):
        part.save_pretrained(folder / name)
    card = folder / f"{name}.toml"
    lines = {"title": f"Tiny {name}", "source": "huggingface", "id": "tiny/model"}
    lines |= {"architecture": name, "checkpoint": str(folder / name)}
    card.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))
    model.set_attn_implementation("eager")
    return str(card), model


def photo(folder: Path, name: str) -> str:
    pixels = np.random.default_rng(len(name)).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return str(folder / name)


def table(printed: str) -> list[list[str]]:
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


@pytest.mark.parametrize(
    "given", [["3 3 7 7 0 10"], ["3,3,7,7,0,10"], ["3, 3, 7, 7, 0, 10"], [*"33770", "10"]]
)
def test_token_ids_on_the_command_line(given, capsys):
    assert cli.main(["inspect", "grokking", "--seed", "0", "--input", *given, "--label", "5"]) == 0
    printed = capsys.readouterr().out
    logits = run(pk.load("grokking", seed=0), torch.tensor([[3, 3, 7, 7, 0, 10]]))[0, -1]
    rows = table(printed)
    position, token, label, loss, margin, *_ = rows[0]
    assert (position, token, label) == ("5", "10", "5")
    check_label({"loss": float(loss), "margin": float(margin)}, logits, 5)
    assert [row[:5] for row in rows[1:]] == [[""] * 5] * 4
    best = logits.topk(5)
    assert [int(row[6]) for row in rows] == best.indices.tolist()
    close([float(row[7]) for row in rows], best.values)
    assert f"mean loss {loss} nats, positions with a label: 1" in printed
    heads = [line.split() for line in printed.splitlines()[-3:]]
    assert heads[0] == ["uniform", "0", "1"]
    assert heads[2][:2] == ["0", "0.612"]
    assert "weights: random initialisation, --seed 0" in printed


def test_several_inputs_and_positions(capsys):
    command = ["inspect", "grokking", "--seed", "0", "--top", "1", "--input", "3,3,7", "4 5"]
    assert cli.main([*command, "--position", "-1", "0"]) == 0
    printed = capsys.readouterr().out
    assert "input 0: 3,3,7" in printed
    assert "input 1: 4 5" in printed
    assert [row[:3] for row in table(printed)] == [
        ["0", "3", "3"],
        ["2", "7", "-"],
        ["0", "4", "5"],
        ["1", "5", "-"],
    ]


def test_a_checkpoint_of_a_native_model(tmp_path, capsys):
    from safetensors.torch import save_file

    from probekit.hooked.model import weights

    model = pk.load("grokking", seed=3)
    save_file(
        {k: v.detach().clone() for k, v in weights(model).items()}, tmp_path / "w.safetensors"
    )
    path = str(tmp_path / "w.safetensors")
    assert (
        cli.main(["inspect", "grokking", "--checkpoint", path, "--input", "3 7", "--top", "1"]) == 0
    )
    printed = capsys.readouterr().out
    assert f"weights: {path}" in printed
    assert int(table(printed)[0][3]) == run(model, torch.tensor([[3, 7]]))[0, -1].argmax()


def test_masked_text(tmp_path, capsys):
    torch.manual_seed(0)
    config = families.tiny_bert(vocab_size=len(WORDS))
    card, model = saved(tmp_path, BertForMaskedLM(config), tokenizer())
    command = ["inspect", card, "--input", "the cat [MASK] on the mat", "--label", "sat"]
    assert cli.main([*command, "--top", "3"]) == 0
    ids = torch.tensor([[CLS, THE, CAT, MASK, ON, THE, MAT, SEP]])
    logits = run(model, ids).logits[0, 3]
    rows = table(capsys.readouterr().out)
    assert rows[0][:3] == ["3", "[MASK]", "sat"]
    check_label({"loss": float(rows[0][3]), "margin": float(rows[0][4])}, logits, SAT)
    assert [row[5] for row in rows] == [WORDS[i] for i in logits.topk(3).indices]
    close([float(row[8]) for row in rows], logits.softmax(-1).topk(3).values)


def test_a_text_that_a_decoder_goes_on_with(tmp_path, capsys):
    torch.manual_seed(0)
    config = families.tiny_t5(vocab_size=len(WORDS))
    card, model = saved(tmp_path, T5ForConditionalGeneration(config), tokenizer())
    command = ["inspect", card, "--input", "the cat", "--decoder", "on the mat", "--top", "1"]
    assert cli.main(command) == 0
    rows = table(capsys.readouterr().out)
    said, labels = torch.tensor([[0, ON, THE, MAT]]), torch.tensor([[ON, THE, MAT, -100]])
    ids = torch.tensor([[CLS, THE, CAT, SEP]])
    theirs = run(model, input_ids=ids, decoder_input_ids=said, labels=labels)
    assert [row[1:3] for row in rows] == [
        ["[PAD]", "on"],
        ["on", "the"],
        ["the", "mat"],
        ["mat", "-"],
    ]
    losses = [float(row[3]) for row in rows[:-1]]
    assert np.mean(losses) == pytest.approx(theirs.loss.item(), abs=1e-5)


def test_an_image_classifier(tmp_path, capsys):
    torch.manual_seed(0)
    names = {0: "cat", 1: "dog", 2: "mat"}
    config = families.tiny_vit(id2label=names, label2id={v: k for k, v in names.items()})
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    card, model = saved(tmp_path, ViTForImageClassification(config), processor)
    image = photo(tmp_path, "a.png")
    assert cli.main(["inspect", card, "--input", image, "--label", "dog"]) == 0
    rows = table(capsys.readouterr().out)
    with Image.open(image) as file:
        pixels = AutoImageProcessor.from_pretrained(Path(card).with_suffix(""))(
            file, return_tensors="pt"
        )
    logits = run(model, **pixels).logits[0]
    assert rows[0][:2] == ["image", "dog"]
    assert [row[4] for row in rows] == [names[i] for i in logits.topk(3).indices.tolist()]
    check_label({"loss": float(rows[0][2]), "margin": float(rows[0][3])}, logits, 1)


def test_clip_on_the_command_line(tmp_path, capsys):
    torch.manual_seed(0)
    text = {"vocab_size": len(WORDS), "eos_token_id": SEP, "bos_token_id": CLS, "pad_token_id": 0}
    size = {"shortest_edge": 16}
    processor = CLIPImageProcessorPil(size=size, crop_size={"height": 16, "width": 16})
    card, model = saved(tmp_path, CLIPModel(families.tiny_clip(text)), tokenizer(), processor)
    image = photo(tmp_path, "a.png")
    command = ["inspect", card, "--input", "the cat", image, "on the mat", "--label", "on the mat"]
    assert cli.main(command) == 0
    rows = table(capsys.readouterr().out)
    with Image.open(image) as file:
        pixels = processor(file, return_tensors="pt")["pixel_values"]
    texts = tokenizer()(["the cat", "on the mat"], padding=True, return_tensors="pt")
    logits = run(model, pixel_values=pixels, **texts).logits_per_image[0]
    assert rows[0][1] == "[CLS] on the mat [SEP]"
    check_label({"loss": float(rows[0][2]), "margin": float(rows[0][3])}, logits, 1)
    assert [int(row[5]) for row in rows] == logits.topk(2).indices.tolist()


def test_the_real_minilm_shows_norms(minilm_folder, capsys):
    text = "The cat sat on the mat"
    command = ["inspect", "minilm", "--checkpoint", str(minilm_folder), "--input", text]
    assert cli.main(command) == 0
    rows = table(capsys.readouterr().out)
    ids = torch.tensor([[101, 1996, 4937, 2938, 2006, 1996, 13523, 102]])
    assert [row[1] for row in rows] == ["[CLS]", *text.lower().split(), "[SEP]"]
    theirs = BertModel.from_pretrained(minilm_folder, attn_implementation="eager")
    norms = run(theirs, ids).last_hidden_state[0].norm(dim=-1)
    assert [float(row[2]) for row in rows] == pytest.approx(norms.tolist(), rel=1e-5)


def test_a_page_holds_the_patterns(tmp_path, capsys):
    page = tmp_path / "page.html"
    command = ["inspect", "modular-deep-2", "--seed", "0", "--input", "7 9", "--label", "16"]
    assert cli.main([*command, "--html", str(page), "--layer", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"written to {page}\n")
    (view,) = re.findall(
        r"<script>CircuitsVis\.render\((.*?)</script>", page.read_text(), re.DOTALL
    )
    found = json.loads(re.search(r"\{.*\}", view, re.DOTALL)[0])  # type: ignore[index]
    assert found["tokens"] == ["7", "9"]
    model = pk.load("modular-deep-2", seed=0)
    with pk.attach(model, pk.Record("1.pattern")) as attached:
        run(model, torch.tensor([[7, 9]]))
    close([found["attention"]], attached["record"].values)
    assert "input 0, 1.pattern" in page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_page_that_no_browser_opens_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("probekit.inspection_page.LARGEST", 7)
    page = tmp_path / "page.html"
    assert cli.main(["inspect", "grokking", "--input", "7 9", "--html", str(page)]) == 1
    printed = capsys.readouterr()
    assert table(printed.out)
    assert printed.err == (
        "probekit: 8 attention weights are too many for a page, which holds 7; choose layers,"
        " such as --layer 0, or shorten the inputs\n"
    )
    assert not page.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "grokking --input hello",
            "a native model has no tokenizer; give token ids, such as '3 7 10'",
        ),
        ("grokking --input 3 1000", "[3, 1000]: the model has tokens 0 to 999"),
        (
            "grokking --input 3 --label five",
            "a native model has no tokenizer; give token ids, such as '3 7 10'",
        ),
        ("grokking --input 3 --html no/where.html", "there is no folder no for where.html"),
        (
            "bert-large --input hello",
            "google-bert/bert-large-uncased offers no AutoTokenizer here; save it in a folder with"
            " the weights and give that with --checkpoint, fill the hub cache where there is a"
            " network, or give token ids",
        ),
        (
            "vit-base --input no.png",
            "no image can be read from 'no.png': [Errno 2] No such file or directory: 'no.png'",
        ),
        (
            "clip-vit-b16 --input 49406,320,49407",
            "this model reads images and texts, none of them empty; give one or more",
        ),
        (
            "groking --input 3",
            "unknown model 'groking'; valid: {models}; closest: 'grokking'",
        ),
    ],
)
def test_errors_come_before_a_model_is_loaded(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(pk, "load", None)
    monkeypatch.setattr("probekit.typed_inputs.hub_answers", lambda: False)
    assert cli.main(["inspect", *arguments.split()]) == 1
    names = pk.list_models()["name"].tolist()
    models = f"{', '.join(names[:12])} and {len(names) - 12} more"
    assert capsys.readouterr().err == f"probekit: {message.format(models=models)}\n"


def test_a_label_is_one_token(tmp_path, monkeypatch, capsys):
    config = families.tiny_bert(vocab_size=len(WORDS))
    card, _ = saved(tmp_path, BertForMaskedLM(config), tokenizer())
    capsys.readouterr()
    monkeypatch.setattr(pk, "load", None)
    assert cli.main(["inspect", card, "--input", "the [MASK]", "--label", "mats"]) == 1
    message = f"probekit: label 'mats' is 2 tokens, [{MAT}, {MAT + 1}]; give one id\n"
    assert capsys.readouterr().err == message
