"""`inspect_model` and `probekit inspect` against torch and Hugging Face's own forward."""

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
from torch import Tensor
from torch.nn import functional as F
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
CLOSE = {"rtol": 0, "atol": 1e-5}  # SDPA against eager attention, on logits of order one


def close(actual: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.tensor(list(actual)).double(), expected.double(), **CLOSE)


def check_top(rows: Any, logits: Tensor, top: int) -> None:
    """The rows of one position against its logits."""
    best = logits.topk(top)
    assert rows["id"].tolist() == best.indices.tolist()
    assert rows["rank"].tolist() == list(range(1, top + 1))
    close(rows["logit"], best.values)
    close(rows["probability"], logits.softmax(-1)[best.indices])


def check_label(row: Any, logits: Tensor, label: int) -> None:
    close([row["loss"]], F.cross_entropy(logits[None], torch.tensor([label]))[None])
    others = [logit for i, logit in enumerate(logits.tolist()) if i != label]
    assert row["margin"] == pytest.approx(logits[label].item() - max(others), abs=1e-5)


# The library


def test_native_inputs_of_different_lengths_are_read_at_the_end():
    model = families.tiny_native()
    inputs, labels = [[3, 3, 7, 7, 0, 10], [4, 5]], [11, 49]
    found = pk.inspect_model(model, inputs, labels=labels, top=3).to_frame()
    for index, (ids, label) in enumerate(zip(inputs, labels, strict=True)):
        logits = run(model, torch.tensor([ids]))[0, -1]
        rows = found[found["input"] == index]
        assert set(rows["position"]) == {len(ids) - 1}
        assert set(rows["token"]) == {str(ids[-1])}
        assert set(rows["label"]) == {str(label)}
        check_top(rows, logits, 3)
        check_label(rows.iloc[0], logits, label)


@pytest.mark.parametrize("given", [[3, 7, 9], [[3, 7, 9]], torch.tensor([[3, 7, 9]])])
def test_one_input_may_be_given_by_itself(given):
    found = pk.inspect_model(families.tiny_native(), given).to_frame()
    assert set(found["input"]) == {0}
    assert set(found["token"]) == {"9"}


@pytest.mark.parametrize("family", ["gpt2"], indirect=True)
def test_a_causal_language_model_is_scored_on_the_token_that_follows(family):
    ids = families.token_ids()[:1]
    found = pk.inspect_model(family.model, ids, top=1).to_frame()
    assert found["position"].tolist() == list(range(7))
    assert found["label"].tolist()[:-1] == [str(i) for i in ids[0, 1:].tolist()]
    assert found["loss"].isna().tolist() == [False] * 6 + [True]
    theirs = run(family.eager, input_ids=ids, labels=ids).loss
    assert found["loss"].mean() == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2"], indirect=True)
def test_a_label_is_what_should_follow_the_last_token(family):
    ids = families.token_ids()[:1]
    found = pk.inspect_model(family.model, ids, labels=12).to_frame()
    assert set(found["position"]) == {6}
    check_label(found.iloc[0], run(family.eager, input_ids=ids).logits[0, -1], 12)


def test_a_model_that_sees_the_next_token_is_not_scored_on_it():
    model = families.tiny_native(attention_dir="bidirectional")
    found = pk.inspect_model(model, [3, 7, 9], positions="all", top=1).to_frame()
    assert found["position"].tolist() == [0, 1, 2]
    assert "loss" not in found


@pytest.mark.parametrize("family", ["t5"], indirect=True)
def test_t5_is_read_in_its_decoder(family):
    ids, said = families.token_ids()[:1], torch.tensor([[0, 8, 5, 31]])
    found = pk.inspect_model(family.model, ids, decoder=said[0], top=2).to_frame()
    labels = F.pad(said[:, 1:], (0, 1), value=-100)
    theirs = run(family.eager, input_ids=ids, decoder_input_ids=said, labels=labels)
    assert found["token"].tolist()[::2] == ["0", "8", "5", "31"]
    for place, logits in enumerate(theirs.logits[0]):
        check_top(found[found["position"] == place], logits, 2)
    assert found["loss"].mean() == pytest.approx(theirs.loss.item(), abs=1e-5)


@pytest.mark.parametrize("family", ["t5"], indirect=True)
def test_t5_begins_with_the_start_token(family):
    ids = families.token_ids()[:1]
    found = pk.inspect_model(family.model, ids, labels=7).to_frame()
    theirs = run(family.eager, input_ids=ids, decoder_input_ids=torch.tensor([[0]]))
    check_label(found.iloc[0], theirs.logits[0, 0], 7)


@pytest.mark.parametrize("family", ["bert encoder", "dinov2", "vit"], indirect=True)
def test_without_logits_the_norm_of_the_last_hidden_state_is_read(family):
    found = pk.inspect_model(family.model, family.args[0][:1], positions="all").to_frame()
    hidden = family.reference()[0]
    if family.name == "bert encoder":  # the reference has padding, which moves nothing at row 0
        assert found["token"].tolist() == [str(i) for i in family.args[0][0].tolist()]
    else:
        assert found["token"].tolist() == ["class", "1", "2", "3", "4"]
    close(found["norm"], hidden.norm(dim=-1))


@pytest.mark.parametrize("family", ["clip"], indirect=True)
def test_clip_compares_each_image_with_all_texts(family):
    texts = [[48, 5, 6, 49], [48, 7, 49]]
    images = list(family.kwargs["pixel_values"])
    found = pk.inspect_model(family.model, [*texts, *images], labels=[1, 0], patterns=True)
    ids, mask = (
        torch.tensor([[48, 5, 6, 49], [48, 7, 49, 0]]),
        torch.tensor([[1] * 4, [1] * 3 + [0]]),
    )
    kwargs = {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.stack(images)}
    theirs = run(family.eager, **kwargs).logits_per_image
    for index, label in enumerate([1, 0]):
        rows = found.to_frame()[found.to_frame()["input"] == index]
        check_top(rows, theirs[index], 2)
        check_label(rows.iloc[0], theirs[index], label)
        assert rows["label"].iloc[0] == ["48 5 6 49", "48 7 49"][label]
    assert all(p.values.shape[1:] == (len(p.tokens),) * 2 for p in found.patterns)  # no padding
    read = [(p.input, p.site, len(p.tokens)) for p in found.patterns if ".0." in p.site]
    text, vision = "text.0.pattern", "vision.0.pattern"
    assert read == [(0, text, 4), (0, text, 3), (0, vision, 5), (1, vision, 5)]


def test_attention_entropy_stands_beside_what_uniform_attention_reads():
    model, ids = families.tiny_native(), torch.tensor([[3, 3, 7, 7, 0, 10]])
    found = pk.inspect_model(model, ids, patterns=True)
    table = found.heads()
    assert table["uniform"].tolist() == [pytest.approx(0.611992, abs=1e-6)] * 2
    for layer, kept in enumerate(found.patterns):
        assert (kept.site, kept.tokens) == (f"{layer}.pattern", ("3", "3", "7", "7", "0", "10"))
        entropy = -torch.xlogy(kept.values, kept.values).sum(-1).mean(-1) / np.log(6)
        close(table.loc[layer, [0, 1]], entropy)


@pytest.mark.parametrize("family", ["t5"], indirect=True)
def test_cross_attention_stands_in_the_rows_of_the_decoder(family):
    ids, said = families.token_ids()[:1], [0, 8]
    found = pk.inspect_model(family.model, ids, decoder=said, patterns=(1,))
    sites = ["encoder.1.pattern", "decoder.1.self.pattern", "decoder.1.cross.pattern"]
    assert [kept.site for kept in found.patterns] == sites
    cross = found.patterns[2]
    theirs = run(
        family.eager,
        input_ids=ids,
        decoder_input_ids=torch.tensor([said]),
        output_attentions=True,
    ).cross_attentions[1][0]
    assert cross.tokens == (*map(str, ids[0].tolist()), "0", "8")
    torch.testing.assert_close(cross.values[:, 7:, :7], theirs, **CLOSE)
    assert cross.values.sum() == pytest.approx(theirs.sum().item())


def test_the_model_is_left_as_it_was():
    model = families.tiny_native().train()
    hooks = [len(m._forward_hooks) for m in model.modules()]
    pk.inspect_model(model, [3, 7], patterns=True)
    assert model.training
    assert [len(m._forward_hooks) for m in model.modules()] == hooks


def test_what_is_shown():
    found = pk.inspect_model(families.tiny_native(), [3, 7], labels=5, top=1)
    first, header, row = repr(found).splitlines()
    assert first == "Inspection of grokking, 0 patterns"
    assert header.split() == list(found.to_frame())
    assert row.split()[:4] == ["0", "1", "7", "5"]
    assert found._repr_html_().count("<table") == 2


@pytest.mark.parametrize(
    ("name", "inputs", "options", "message"),
    [
        ("native", [3, 50], {}, "[3, 50]: the model has tokens 0 to 49"),
        ("native", [3] * 9, {}, "9 tokens are too many: the model reads 8 at most"),
        ("native", [], {}, "this model reads tokens, none of them empty; give one or more"),
        ("native", [[]], {}, "this model reads tokens, none of them empty; give one or more"),
        ("native", ["3 7"], {}, "give a text as its token ids, tokenizer(text)['input_ids']"),
        ("native", [3], {"labels": 50}, "label 50: the predictions are 0 to 49"),
        ("native", [3], {"labels": -1}, "label -1: the predictions are 0 to 49"),
        ("native", [3], {"labels": [1, 2]}, "2 labels for 1 inputs; give 1 or 1"),
        ("native", [3], {"top": 0}, "top must be a whole number from 1, not 0"),
        (
            "native",
            [3],
            {"positions": [1]},
            "positions=(1,): [1] lie outside the 1 positions",
        ),
        (
            "native",
            [3],
            {"decoder": [0]},
            "grokking has no decoder of its own; leave decoder out",
        ),
        (
            "native",
            [3],
            {"patterns": [2]},
            "site '2.pattern': no layer matches 2; blocks has layers 0 to 1; closest: 1",
        ),
        (
            "bert",
            [3],
            {"labels": 1},
            "which position is the label of? Give it, or put a [MASK] there",
        ),
        (
            "bert encoder",
            [3],
            {"labels": 1},
            "minilm has no logits to hold a label against; leave it out",
        ),
        ("vit", [3], {}, "this model reads images, none of them empty; give one or more"),
        (
            "clip",
            [3],
            {},
            "this model reads images and texts, none of them empty; give one or more",
        ),
    ],
)
def test_what_a_model_cannot_read_is_refused(built, name, inputs, options, message):
    with pytest.raises(pk.ProbekitError) as caught:
        pk.inspect_model(built(name).model, inputs, **options)
    assert str(caught.value) == message


# The command line


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
