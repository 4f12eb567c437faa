"""`inspect_model` against torch and Hugging Face's own forward."""

import families
import numpy as np
import pytest
import torch
from families import run
from predictions import CLOSE, check_label, check_top, close
from torch.nn import functional as F

import probekit as pk


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
