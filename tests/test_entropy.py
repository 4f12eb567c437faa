"""Entropies of rows against SciPy and closed forms."""

import doctest
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from probekit import entropy
from probekit.entropy import row_entropy, softmax_entropy, uniform_causal_vdi


def test_the_examples_in_the_docstrings():
    found = doctest.testmod(entropy)
    assert (found.failed, found.attempted) == (0, 3)


def test_closed_forms():
    assert uniform_causal_vdi(6) == pytest.approx(math.log(720) / (6 * math.log(6)), rel=1e-12)
    assert uniform_causal_vdi(6) == pytest.approx(0.611992, abs=5e-7)
    assert entropy.one_hot_last_row_vdi(6) == pytest.approx(math.log(120) / (6 * math.log(6)))
    assert entropy.one_hot_last_row_vdi(6) == pytest.approx(0.445325, abs=5e-7)
    for length in (2, 128, 4096):
        logs = sum(math.log(keys) for keys in range(1, length + 1))
        assert uniform_causal_vdi(length) == pytest.approx(logs / (length * math.log(length)))


@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(0.1, 30))
def test_row_entropy_is_scipy_s(keys, seed, sharpness):
    scores = sharpness * torch.randn(
        4, keys, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    pattern = scores.softmax(-1)
    expected = scipy.stats.entropy(pattern.numpy(), axis=-1)
    torch.testing.assert_close(row_entropy(pattern), torch.from_numpy(np.asarray(expected)))


def test_zero_times_the_logarithm_of_zero_is_zero():
    pattern = torch.tensor([[0.0, 1, 0], [0.5, 0, 0.5]])
    assert row_entropy(pattern).tolist() == [0, pytest.approx(math.log(2))]


@pytest.mark.parametrize("hidden", [torch.finfo(torch.float32).min, -1e9, -torch.inf])
def test_the_form_without_logarithms_is_the_direct_one(monkeypatch, hidden):
    scores = 4 * torch.randn(2, 3, 40, 40)
    scores = scores.masked_fill(~torch.ones(40, 40).tril().bool(), hidden)
    pattern = scores.softmax(-1)
    direct = row_entropy(pattern)
    assert pattern.numel() < entropy._SMALL and torch.equal(
        softmax_entropy(scores, pattern), direct
    )
    monkeypatch.setattr(entropy, "_SMALL", 0)
    fast = softmax_entropy(scores, pattern)
    torch.testing.assert_close(fast, direct, rtol=0, atol=1e-5)
    assert torch.equal(fast, direct) == (hidden == -torch.inf)  # the fallback


@pytest.mark.parametrize("small", [0, entropy._SMALL])
def test_entropies_have_finite_gradients_under_a_mask(monkeypatch, small):
    monkeypatch.setattr(entropy, "_SMALL", small)
    lowest = torch.finfo(torch.float64).min
    hidden = ~torch.ones(5, 5).tril().bool()

    def mean_entropy(free: Tensor) -> Tensor:
        scores = free.masked_fill(hidden, lowest)
        return softmax_entropy(scores, scores.softmax(-1)).sum()

    free = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_entropy, free)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_entropy_of_half_precision_patterns(dtype, tolerance):
    scores = (3 * torch.randn(16, 12, 64, 64) + 20).to(dtype)
    pattern = scores.float().softmax(-1).to(dtype)
    exact = torch.special.entr(scores.double().softmax(-1)).sum(-1)
    # What remains is the rounding of the weights themselves.
    error = (softmax_entropy(scores, pattern).double() - exact).abs().max()
    assert error < tolerance


def test_entropy_of_large_scores_does_not_cancel():
    scores = torch.randn(16, 12, 64, 64) * 5 + 2000
    entropy = softmax_entropy(scores, scores.softmax(-1))
    exact = torch.special.entr(scores.double().softmax(-1)).sum(-1)
    assert (entropy.double() - exact).abs().max() < 1e-5
    assert entropy.min() >= 0
