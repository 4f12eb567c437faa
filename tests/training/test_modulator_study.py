"""Parts of the recipe on training a modulator, each against a recomputation, on toys."""

import math

import nltk.corpus
import numpy as np
import pytest
import torch
from lemma_toys import TRAINING, interrupting, toy_examples, toy_fit, toy_module, toy_t5

import probekit as pk
from probekit.modulators import LerpModulator, alpha_reach, from_relations
from probekit.runs import RunDir
from probekit.training import DEFINITION, LEAKING, LemmaExamples, ModulatorTraining, read_trace
from probekit.training import modulator_study as study

WORDS = ("dog.n.01", "cat.n.01", "car.n.01", "run.v.01", "oak.n.01", "bread.n.01", "river.n.01")


class ShortWords:
    """A tokenizer that knows words of a few letters, none that holds an x."""

    unk_token_id = 0

    def __init__(self, longest: int) -> None:
        self.longest = longest

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [self.ids(text) for text in texts]}

    def ids(self, text: str) -> list[int]:
        if "x" in text:
            return [self.unk_token_id]
        return [7] if len(text) <= self.longest and " " not in text else [7, 8]


@pytest.mark.parametrize(("longest", "count"), [(6, 50), (2, 40)])  # 40 take several blocks
def test_senses_are_drawn_from_all_words_of_one_token(wordnet, longest: int, count: int) -> None:
    tokenizer = ShortWords(longest)
    glosses, words, synsets = study.draw_senses(wordnet, tokenizer, count, seed=3)
    pairs = [(i, lemma) for i, each in enumerate(wordnet.lemmas) for lemma in each]
    expected = []
    for place in np.random.default_rng(3).permutation(len(pairs)):
        synset, word = pairs[place]
        if len(word) <= longest and not {"x", "_"} & set(word):
            expected.append((synset, word))
        if len(expected) == count:
            break
    assert list(zip(synsets, words, strict=True)) == expected
    assert glosses == [wordnet.glosses[synset] for synset, _ in expected]


def test_no_word_of_one_token_is_refused(wordnet) -> None:
    with pytest.raises(pk.ProbekitError, match=r"none is one token of ShortWords; give a tokeni"):
        study.draw_senses(wordnet, ShortWords(0), 5)
    with pytest.raises(pk.ProbekitError, match="count must be a whole number from 1, not 0"):
        study.draw_senses(wordnet, ShortWords(3), 0)


def words_of(tokens: list[int]) -> LemmaExamples:
    ids = torch.tensor(tokens)[:, None]
    return LemmaExamples(ids, torch.ones_like(ids), ids, ids[:, 0])


@pytest.mark.parametrize("related", [600, 4])
def test_a_module_starts_with_rows_of_wu_palmer(wordnet, monkeypatch, related: int) -> None:
    monkeypatch.setattr(study, "RELATED", related)
    places = [wordnet.names.index(name) for name in WORDS]
    tokens = [5, 9, 3, 20, 30, 11, 5]  # 5 comes twice: of its senses the last counts
    found = study.start_module(toy_t5(), wordnet, words_of(tokens), places, 0.2, seed=3)
    senses = dict(zip(tokens, WORDS, strict=True))
    kept = list(senses)[:related]
    own = [nltk.corpus.wordnet.synset(senses[token]) for token in kept]
    wup = np.array([[a.wup_similarity(b) or 0 for b in own] for a in own])
    wup = (wup + wup.T) / 2
    np.fill_diagonal(wup, 1)
    rows = found.geometry.detach()[kept].double()
    expected = from_relations(torch.tensor(wup), len(kept))
    torch.testing.assert_close(rows @ rows.T, expected @ expected.T, atol=1e-5, rtol=0)
    others = [token for token in range(50) if token not in kept]
    assert not found.geometry[others].any()
    fresh = LerpModulator(d_model=32, n_layers=2, vocab=50, alpha=0.2, seed=3)
    assert torch.equal(found.projection, fresh.projection)
    assert torch.equal(found.alpha, fresh.alpha)


def test_losses_with_the_encoder_and_without() -> None:
    model, batch = toy_t5(d_model=64), toy_examples(9)
    found = study.leak_losses(model, batch)
    for form, objective in (("published", LEAKING), ("repaired", DEFINITION)):
        with torch.no_grad():
            assert found[form]["encoder"] == float(objective.loss(model, batch))
            inner = model.original_model
            handle = inner.encoder.register_forward_hook(
                lambda _, args, out: out.__class__(last_hidden_state=0 * out.last_hidden_state)
            )
            silenced = float(objective.loss(model, batch))
            handle.remove()
        assert found[form]["silenced"] == pytest.approx(silenced, rel=1e-5)
        assert found[form]["silenced"] != found[form]["encoder"]


def test_a_host_without_an_encoder_learns_to_copy_and_no_more() -> None:
    """The word is one of 47 at random: without the encoder its NLL stays near ln 47."""
    ends = {}
    for form, objective in study.FORMS.items():
        model = toy_t5(d_model=64)
        training = ModulatorTraining(batch=16, lr=0.01)
        encoder = model.original_model.encoder.block[0].layer[0].SelfAttention.q.weight.clone()
        losses = study.train_silenced(model, toy_examples(400), objective, training, steps=30)
        assert len(losses) == 30
        after = model.original_model.encoder.block[0].layer[0].SelfAttention.q.weight
        torch.testing.assert_close(after, encoder, atol=0.01, rtol=0)  # decay alone
        ends[form] = losses[-1]
    assert ends["published"] < 0.1
    assert ends["repaired"] > 0.8 * math.log(47) / 2  # of two tokens, the end token is free


def test_readings_of_a_trace_are_the_published_ones_and_the_ends(tmp_path) -> None:
    trace = toy_fit(tmp_path, toy_module(0.1))
    found = study.trace_readings(trace, TRAINING, 0.1, 61)
    assert found["at"] == [0, 1, 8, 15, 21]  # 7 batches an epoch
    assert found["alpha"] == trace.alpha[[0, 1, 8, 15, 21]].tolist()
    assert found["band"][0] == pytest.approx([0.1, 0.1])
    rates = [0.02 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3) for _ in range(7)]
    for place, step in enumerate(found["at"]):
        reach = alpha_reach(0.1, rates[:step], 0.01)
        assert found["band"][place] == pytest.approx([reach.low, reach.high])
    assert found["sum of rates"] == pytest.approx(sum(rates))
    assert found["largest"] == trace.alpha.max()
    assert found["epochs"] == trace.epochs


def test_a_trace_that_has_not_ended_has_published_readings(tmp_path) -> None:
    """Cut in its first epoch, where no second row of an epoch says how long one is."""

    with pytest.raises(KeyboardInterrupt):
        toy_fit(tmp_path, toy_module(), objective=interrupting(5))
    trace = read_trace(RunDir(tmp_path))
    assert len(trace.loss) == 4 and len(trace.alpha) == 5
    assert torch.equal(trace.published, trace.alpha[[1]])


def test_shares_of_starts_and_seeds() -> None:
    by_start = {0.1: [[0.1, 0.1], [0.1, 0.1]], 0.5: [[0.5, 0.5], [0.5, 0.5]]}
    assert study.start_share(by_start) == pytest.approx(1)
    assert study.seed_share(by_start) == pytest.approx(0)
    logits = torch.tensor([[[0.0, 1.0]], [[2.0, 3.0]]])  # between 1^2 a value, within 0.5^2
    ends = {float(i): torch.sigmoid(each).tolist() for i, each in enumerate(logits)}
    assert study.start_share(ends) == pytest.approx(1 / 1.25, abs=1e-6)
