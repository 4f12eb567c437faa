"""The task as published: its split, its tokens, and its leak."""

import torch

from probekit.training import modular_split, modular_tokens


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
