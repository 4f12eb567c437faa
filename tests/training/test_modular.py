"""The task as published: its split, its tokens, and its leak."""

import torch

from probekit.training import ModularData, modular_split, modular_tokens


def test_split_is_the_published_one():
    train, test = modular_split()
    assert (len(train), len(test)) == (11_492, 1_277)
    assert test[0].tolist() == [91, 100]  # the first row of the published test file
    everything = {tuple(pair) for pair in torch.cat([train, test]).tolist()}
    assert everything == {(a, b) for a in range(113) for b in range(113)}


def test_published_layout_holds_the_answer():
    tokens, label = modular_tokens(torch.tensor([[100, 20], [3, 4]]))
    assert tokens.tolist() == [[100, 100, 20, 20, 0, 7], [3, 3, 4, 4, 0, 7]]
    assert label.tolist() == [7, 7]


def test_leak_free_layout_does_not():
    tokens, label = modular_tokens(torch.tensor([[100, 20], [3, 5]]), "leak-free")
    assert tokens.tolist() == [[100, 100, 20, 20, 0, 113], [3, 3, 5, 5, 0, 113]]
    assert label.tolist() == [7, 8]


def test_batches_are_training_examples_and_the_same_for_a_seed_and_step():
    data, again, other = ModularData.of(3), ModularData.of(3), ModularData.of(4)
    tokens, labels = data.batch(7, 50)
    assert torch.equal(labels, (tokens[:, 0] + tokens[:, 2]) % 113)
    assert {tuple(row) for row in tokens.tolist()} <= {tuple(r) for r in data.train[0].tolist()}
    assert torch.equal(tokens, again.batch(7, 50)[0])
    assert not torch.equal(tokens, data.batch(8, 50)[0])
    assert not torch.equal(tokens, other.batch(7, 50)[0])


def test_what_is_read_was_not_trained_on():
    data = ModularData.of(0, "leak-free")
    train, test, monitored = (
        {tuple(row) for row in tokens.tolist()}
        for tokens in (data.train[0], data.test[0], data.monitored)
    )
    assert (len(train), len(test), len(monitored)) == (11_492, 1_000, 128)
    assert not train & (test | monitored)
