"""The small T5 that ships: it loads without a network, anywhere, and knows more than counts."""

import shutil

import pytest
import torch

import probekit as pk
from probekit.paths import data_dir
from probekit.pretrained import checkpoint_folder, pretrained, tokenizer_of
from probekit.training import definition_examples
from probekit.training.t5_wordnet import fresh_t5, pairs_of, scores, unigram

FOLDER = data_dir("models") / "t5-wordnet"


@pytest.fixture(scope="module")
def model():
    return pretrained("t5-wordnet")


def test_it_is_small_and_has_its_architecture(model) -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 8e6
    fresh = fresh_t5(model.cfg.d_vocab).state_dict()
    loaded = pk.load("t5-wordnet").original_model.state_dict()
    assert sum(p.numel() for p in model.original_model.parameters()) == 1_815_296
    assert fresh["shared.weight"].shape == (7_000, 128)
    assert any(torch.is_tensor(t) and t.dtype == torch.float32 for t in loaded.values())


def test_it_is_found_from_another_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tokenizer = tokenizer_of(pk.load("t5-wordnet"))
    assert tokenizer.decode(tokenizer("summarize: a young dog")["input_ids"]) == (
        "summarize: a young dog</s>"
    )
    assert checkpoint_folder("t5-wordnet") == FOLDER
    row = pk.list_models().set_index("name").loc["t5-wordnet"]
    assert row["weights"] == "shipped" and row["d_vocab"] == 7_000


def test_a_card_beside_its_checkpoint_may_lie_anywhere(monkeypatch, tmp_path) -> None:
    shutil.copy(FOLDER.with_suffix(".toml"), tmp_path / "mine.toml")
    shutil.copytree(FOLDER, tmp_path / "t5-wordnet")
    monkeypatch.chdir("/")
    assert pk.load(tmp_path / "mine.toml").cfg.d_model == 128


def test_every_twentieth_synset_is_held_out(wordnet) -> None:
    held, seen = pairs_of(wordnet, held_out=True), pairs_of(wordnet, held_out=False)
    assert len(held) + len(seen) == 206_978
    assert held == [
        (wordnet.glosses[index], lemma.replace("_", " "))
        for index in range(0, len(wordnet.glosses), 20)
        for lemma in wordnet.lemmas[index]
    ]


def test_it_names_definitions_that_it_was_not_trained_on(model, wordnet) -> None:
    tokenizer = tokenizer_of(model)
    seen, unseen = (
        definition_examples(tokenizer, *zip(*pairs[::step], strict=True))
        for pairs, step in ((pairs_of(wordnet, False), 20), (pairs_of(wordnet, True), 20))
    )
    nll, rank, _ = scores(model, unseen)
    by_counts = unigram(seen, unseen, 7_000)
    assert nll < by_counts[0] - 0.5 and rank < by_counts[1] / 2


def test_it_says_a_word(model) -> None:
    ids = tokenizer_of(model)("summarize: a domestic animal", return_tensors="pt")["input_ids"]
    said = model.original_model.generate(ids, max_new_tokens=8)
    assert said[0, -1] == 1  # the end token: it says one word and stops
