"""Guessers that only count, and where a network is right."""

from collections import Counter
from itertools import pairwise

import pytest
import torch

import probekit as pk
from probekit.training import (
    LanguageTask,
    Stack,
    by_position,
    guesses,
    prediction_rows,
    predictions,
    random_text,
)


@pytest.fixture
def task(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("the cat sat on the mat; " * 40 + "a bee, " * 30)
    return LanguageTask(str(file), "characters", length=12, held_out=25)


def test_guesses_are_those_of_counts(task) -> None:
    text, (tokens, labels) = task.text().tolist(), task.validation()
    found = guesses(task, tokens)
    (common, _), *_ = Counter(text).most_common(1)
    assert (found["most frequent token"] == common).all()
    pairs = Counter(pairwise(text))
    followed = found["most frequent follower"]
    for read, guess in zip(tokens.flatten().tolist(), followed.flatten().tolist(), strict=True):
        most = max((n for (first, _), n in pairs.items() if first == read), default=None)
        assert guess == common if most is None else pairs[read, guess] == most
    copied = found["token to the right"]
    assert torch.equal(copied[:, :-1], labels[:, :-1])
    assert torch.equal(copied[:, -1], followed[:, -1])


def test_the_text_is_the_training_part(task) -> None:
    words, text = task.words(), task.text().tolist()
    whole = "the cat sat on the mat; " * 40 + "a bee, " * 30
    assert "".join(words[token] for token in text) == whole[: int(0.9 * len(whole))]


def test_random_text_has_the_frequencies_and_nothing_else(task) -> None:
    tokens, labels = random_text(task, 3_000, seed=0)
    assert tokens.shape == labels.shape == (3_000, 12)
    assert torch.equal(tokens[:, 1:], labels[:, :-1])
    vocab = task.config["d_vocab"]
    shares = [
        part.bincount(minlength=vocab) / part.numel() for part in (task.text(), tokens.flatten())
    ]
    torch.testing.assert_close(shares[1], shares[0], atol=0.01, rtol=0)
    follower = guesses(task, tokens)["most frequent follower"]
    assert (follower == labels).double().mean() < shares[0].max() + 0.02


def test_predictions_are_each_models_own(task) -> None:
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 16, **task.config}
    models = [pk.load("interleaved", seed=seed, **sizes) for seed in (0, 1)]
    tokens, labels = task.validation()
    tokens = torch.cat([tokens] * 3)  # more than one forward
    said = predictions(Stack(models), tokens)
    for own, model in zip(said, models, strict=True):
        assert torch.equal(own, model(tokens).argmax(-1))
    shares = by_position(said[:, :25], labels)
    assert shares.shape == (2, 12)
    assert float(shares[1, 3]) == pytest.approx(
        float((said[1, :25, 3] == labels[:, 3]).double().mean())
    )


def test_a_window_becomes_rows() -> None:
    words = ["Ġthe", "Ċ", "cat"]
    rows = prediction_rows(words, torch.tensor([0, 2]), {"next": torch.tensor([2, 1])})
    assert rows == [
        {"position": "0", "read": "␣the", "next": "cat"},
        {"position": "1", "read": "cat", "next": "⏎"},
    ]
