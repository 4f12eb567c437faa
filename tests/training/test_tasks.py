"""Tasks draw what they say, split as published, and know their causal ceiling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unchecked import unchecked

import probekit as pk
from probekit.training import InterleavedTask, LanguageTask, ModularTask, default_corpus


def test_the_published_split_of_modular_pairs():
    train, rest = ModularTask(fraction=0.3).pairs()
    assert (len(train), len(rest)) == (3_830, 8_939)
    assert [len(each) for each in ModularTask(fraction=0.5).pairs()] == [6_384, 6_385]
    everything = torch.cat([train, rest])
    assert len(everything.unique(dim=0)) == 113**2
    pairs = [(a, b) for a in range(113) for b in range(113)]
    order = np.arange(113**2)
    np.random.seed(42)
    np.random.shuffle(order)
    assert [tuple(pair) for pair in everything[:5].tolist()] == [pairs[i] for i in order[:5]]


def test_the_three_forms_of_a_pair():
    pair = torch.tensor([[100, 20]])
    assert [x.tolist() for x in ModularTask("two-token").encode(pair)] == [[[100, 20]], [[7]]]
    assert [x.tolist() for x in ModularTask("separate").encode(pair)] == [[[100, 113, 134]], [[7]]]
    tokens, labels = ModularTask("sequence").encode(pair)
    assert tokens.tolist() == [[100, 113, 20, 114, 7] + 10 * [115]]
    assert labels.tolist() == [[113, 20, 114, 7] + 11 * [115]]


@pytest.mark.parametrize(("p", "vocab"), [(7, 16), (13, 16), (41, 64), (113, 128), (227, 256)])
def test_sequence_vocabularies_are_the_published_ones(p, vocab):
    assert ModularTask("sequence", p).config == {"n_ctx": 15, "d_vocab": vocab}


@given(p=st.integers(2, 20), form=st.sampled_from(["two-token", "sequence", "separate"]))
def test_tokens_and_labels_fit_the_model_config(p, form):
    task = ModularTask(form, p, fraction=0.5)
    tokens, labels = task.encode(torch.cat(task.pairs()))
    assert tokens.shape[1] == task.config["n_ctx"]
    assert int(tokens.min()) >= 0 and int(tokens.max()) < task.config["d_vocab"]
    assert int(labels.max()) < task.config["d_vocab"]


def _best_causal_accuracy(task, tokens, labels):
    """Guess each stream's next token by the shortest period that fits what has been seen."""
    right = 0
    for given_, wanted in zip(tokens.tolist(), labels.tolist(), strict=True):
        sequence = [given_[0], *wanted]
        for place in range(1, len(sequence)):
            past = sequence[place % 2 : place : 2]
            fits = (
                past[len(past) - period]
                for period in range(2, min(8, len(past) + 1))
                if all(a == b for a, b in zip(past, past[period:], strict=False))
            )
            right += next(fits, -1) == sequence[place]
    return right / labels.numel()


@pytest.mark.parametrize(("vocab", "length"), [(4096, 128), (64, 32), (64, 9)])
def test_the_interleaved_ceiling_is_what_a_periodic_guesser_reaches(vocab, length):
    task = InterleavedTask(vocab, length, held_out=1_500)
    reached = _best_causal_accuracy(task, *task.validation())
    assert reached <= task.ceiling + 0.01
    assert reached == pytest.approx(task.ceiling, abs=0.02)


def test_the_published_interleaved_ceiling():
    assert InterleavedTask(4096, 128).ceiling == pytest.approx(0.9375, abs=2e-5)


def test_interleaved_streams_are_two_periodic_ones():
    tokens, labels = InterleavedTask(50, 40).batch(np.random.default_rng(0), 200)
    assert torch.equal(tokens[:, 1:], labels[:, :-1])
    periods = set()
    for row in tokens.tolist():
        for stream in (row[::2], row[1::2]):
            fits = [p for p in range(2, 8) if stream[p:] == stream[:-p]]
            assert fits
            periods.add(fits[0])
    assert periods == set(range(2, 8))


def test_the_sequence_ceiling_is_reached_by_guessing_only_the_second_addend():
    task = ModularTask("sequence", 7, 0.5, held_out=10_000)
    train, rest = task.pairs()
    tokens, labels = task.encode(torch.cat([train, rest]))
    guess = labels.clone()
    guess[:, 1] = 3
    assert float((guess == labels).double().mean()) == pytest.approx(task.ceiling)
    assert tokens.shape == labels.shape


def test_a_text_is_cut_into_windows_of_its_next_tokens(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("abcde " * 200)
    task = LanguageTask(str(file), "characters", length=8, held_out=5)
    words = task.words()
    assert words == sorted(set("abcde "))
    assert task.config == {"n_ctx": 8, "d_vocab": 6}
    for tokens, labels in (task.batch(np.random.default_rng(0), 4), task.validation()):
        assert torch.equal(tokens[:, 1:], labels[:, :-1])
        assert all("".join(words[i] for i in row) in "abcde " * 3 for row in tokens.tolist())
    assert task.ceiling is None


def test_byte_pairs_of_the_default_corpus_spell_it():
    task = LanguageTask(vocab=300, length=40)
    words = task.words()
    assert len(words) == 300 == task.config["d_vocab"]
    tokens, _ = task.batch(np.random.default_rng(0), 3)
    for row in tokens.tolist():
        spelled = "".join(words[i] for i in row).replace("Ġ", " ").replace("Ċ", "\n")
        assert spelled in default_corpus()


@pytest.mark.parametrize("level", ["characters", "bpe"])
def test_no_validation_window_reaches_into_the_training_text(tmp_path, level):
    file = tmp_path / "text.txt"
    file.write_text("a" * 900 + "b" * 100)
    task = LanguageTask(str(file), level, vocab=260, length=8)
    words = task.words()
    seen = {words[i] for i in task.validation()[0].unique().tolist()}
    assert set("".join(seen)) == {"b"}
    drawn, _ = task.batch(np.random.default_rng(0), 500)
    assert set("".join(words[i] for i in drawn.unique().tolist())) == {"a"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: unchecked(ModularTask, "triple"), "unknown form"),
        (lambda: ModularTask(fraction=0.0), "fraction must leave"),
        (lambda: ModularTask(fraction=1.0), "fraction must leave"),
        (lambda: InterleavedTask(1, 8), "at least 2"),
        (lambda: unchecked(LanguageTask, level="word"), "unknown level"),
        (lambda: LanguageTask("no such file"), "cannot read no such file: "),
        (lambda: LanguageTask(level="characters", length=10**6), "smaller length"),
    ],
)
def test_impossible_tasks_are_refused(make, message):
    with pytest.raises(pk.ProbekitError, match=message):
        make()
