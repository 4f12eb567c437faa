"""The leak detector finds the answer among the inputs, and only there."""

import pytest
import torch
from torch.nn import functional as F

import probekit as pk
from probekit.training import InterleavedTask, ModularTask, find_leak, modular_split, modular_tokens
from probekit.training.fit import read_logits

STREAMS = InterleavedTask(30, 16, held_out=120)


def copier(distance, vocab=30):
    """Predicts, at each position, the token so far after it."""

    def predict(tokens):
        return F.one_hot(tokens.roll(-distance, dims=1), vocab).float()

    return predict


def test_reading_the_next_token_is_found():
    leak = find_leak(copier(1), *STREAMS.validation(), ceiling=STREAMS.ceiling)
    assert (leak.distance, leak.dependence) == (1, 1.0)
    assert leak.above_ceiling is not None and leak.above_ceiling < 1e-9
    assert leak.found and "input token 1 after" in str(leak) and "above the ceiling" in str(leak)


def test_accuracy_above_the_ceiling_is_enough():
    tokens, labels = STREAMS.validation()
    answers = F.one_hot(labels, 30).float()  # whatever the input
    leak = find_leak(lambda x: answers[: len(x)], tokens, labels, ceiling=STREAMS.ceiling)
    assert leak.dependence == 0 and leak.found
    assert not find_leak(lambda x: answers[: len(x)], tokens, labels).found  # nothing to go by


def test_honest_readings_are_not_flagged():
    tokens, labels = STREAMS.validation()
    for distance in (-2, 0):  # the past, and the token itself, which is not the label here
        leak = find_leak(copier(distance), tokens, labels, ceiling=STREAMS.ceiling)
        assert not leak.found and str(leak) == "no leak found"


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
def test_the_mask_decides_for_a_model_fitted_to_its_inputs(direction):
    model = pk.load("interleaved", seed=0, attention_dir=direction, d_vocab=30, n_ctx=16)
    tokens, labels = STREAMS.validation()
    tokens, labels = tokens[:40], labels[:40]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):  # by heart, if need be: the causal one is right without a leak
        loss = F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    leak = find_leak(lambda x: read_logits(model, x, 16)[0], tokens, labels)
    assert leak.accuracy > 0.5 and leak.distance == 1
    assert leak.found == (direction == "bidirectional")
    assert direction == "bidirectional" or leak.dependence == 0


@pytest.mark.parametrize(("layout", "found"), [("published", True), ("leak-free", False)])
def test_the_published_grokking_layout_holds_the_answer(layout, found):
    tokens, labels = modular_tokens(modular_split()[1], layout)

    def adds_or_copies(x):
        answer = x[:, 5] if layout == "published" else (x[:, 0] + x[:, 2]) % 113
        return F.one_hot(answer, 114).float()[:, None]

    leak = find_leak(adds_or_copies, tokens, labels[:, None], ceiling=1.0)
    assert leak.accuracy == 1 and leak.found == found
    assert leak.distance == (0 if found else None)


def test_a_sequence_leaks_at_its_answer_only():
    task = ModularTask("sequence", 7, 0.5)
    tokens, labels = task.encode(torch.cat(task.pairs()))
    constant = task.encode(torch.zeros(len(tokens), 2, dtype=torch.long))[1]

    def predict(x):  # knows the frame by heart, looks ahead for the sum alone
        guess = constant[: len(x)].clone()
        guess[:, 3] = x[:, 4]
        return F.one_hot(guess, 16).float()

    leak = find_leak(predict, tokens, labels)
    assert leak.found and leak.distance == 1 and leak.dependence == 1.0


def test_shapes_that_make_no_sense_are_refused():
    with pytest.raises(pk.ProbekitError, match="two examples"):
        find_leak(
            copier(1), torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long)
        )
