"""Neurons, layers and norms against loops, SciPy and torch's own cosine; nulls against draws."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.weights import (
    circuit_cosines,
    head_summed_circuit,
    importance_cv_null,
    layer_cosines,
    neuron_importance,
    norm_scales,
    wilson,
)


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_importance_against_a_loop():
    W_in, W_gate, W_out = (normal(*s, seed=1) for s in ((6, 5), (6, 5), (5, 6)))
    W_in[2] *= 1e-3  # dead
    W_out[:, 4] *= 0.02  # weak
    gamma = normal(5, seed=2)
    for gate, scale in ((None, None), (W_gate, None), (W_gate, gamma)):
        expected = []
        for j in range(6):
            g = 1 if scale is None else scale.numpy()
            product = np.linalg.norm(W_in.numpy()[j] * g) * np.linalg.norm(W_out.numpy()[:, j])
            expected.append(product * (1 if gate is None else np.linalg.norm(gate.numpy()[j] * g)))
        found = neuron_importance(W_in, W_out, gate, scale)
        assert found.importance.numpy() == pytest.approx(np.array(expected))
        assert found.cv == pytest.approx(np.std(expected) / np.mean(expected))
        assert found.n_dead == sum(c < 0.01 * np.mean(expected) for c in expected) == 1
        assert found.n_weak == sum(c < 0.10 * np.mean(expected) for c in expected) == 2


@pytest.mark.parametrize("gated", [False, True])
def test_importance_of_random_weights(gated):
    W_in, W_gate, W_out = normal(3, 3000, 64, seed=3)
    found = neuron_importance(W_in, W_out.mT, W_gate if gated else None)
    assert found.cv == pytest.approx(
        importance_cv_null(64, gated=gated), rel=1.4 / 3000**0.5 + 0.01
    )
    assert found.n_weak == 0


def test_relu_gauge_leaves_the_importance():
    W_in, W_out, scale = normal(6, 5, seed=4), normal(5, 6, seed=5), normal(6, seed=6).exp()
    moved = neuron_importance(W_in * scale[:, None], W_out / scale)
    torch.testing.assert_close(moved.importance, neuron_importance(W_in, W_out).importance)


def test_wilson():
    assert wilson(0, 24_576)[1] == pytest.approx(1.6e-4, rel=0.03)  # B10
    z, p, n = 1.959964, 3 / 20, 20
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(3, 20) == pytest.approx((centre - half, centre + half), rel=1e-5)


@pytest.mark.parametrize("block", [1, 7 * 3 * 4, 2**24])
def test_cosines_against_torch(block):
    matrices = [normal(10, 7, seed=seed) for seed in range(3)]
    matrices[2] = matrices[2] + 0.5 * matrices[1]
    found = layer_cosines([lambda rows, m=m: m[rows] for m in matrices], block=block)
    for i in range(3):
        for j in range(3):
            expected = torch.cosine_similarity(matrices[i].flatten(), matrices[j].flatten(), 0)
            assert float(found.cosines[i, j]) == pytest.approx(float(expected), rel=1e-9)
    assert found.adjacent.tolist() == [found.cosines[0, 1], found.cosines[1, 2]]
    torch.testing.assert_close(found.z, found.cosines * 70**0.5)


def test_unrelated_layers_have_unit_z():
    matrices = normal(40, 12, 15, seed=9)
    found = layer_cosines([lambda rows, m=m: m[rows] for m in matrices])
    upper = found.z[tuple(torch.triu_indices(40, 40, 1))]
    assert float(upper.std()) == pytest.approx(1, rel=0.06)
    assert abs(float(upper.mean())) < 3 / 780**0.5
    assert found.null_sd == pytest.approx(180**-0.5)
    assert found.adjacent_mean_sd == pytest.approx((180 * 39) ** -0.5)


def test_rotated_heads_hide_from_weights_and_not_from_circuits():
    q, k = normal(32, 40, seed=10), normal(32, 40, seed=11)
    turn = torch.block_diag(*torch.linalg.qr(normal(2, 16, 16, seed=12)).Q)
    queries = [lambda rows: q[rows], lambda rows: (turn @ q)[rows]]
    keys = [lambda rows: k[rows], lambda rows: (turn @ k)[rows]]
    assert abs(float(layer_cosines(queries).adjacent[0])) < 0.3
    assert float(circuit_cosines(queries, keys, 2).adjacent[0]) == pytest.approx(1)


def test_random_circuits_have_deviation_one_over_d_model():
    factors = normal(2, 40, 6, 16, seed=13)
    queries = [lambda rows, m=m: m[rows] for m in factors[0]]
    keys = [lambda rows, m=m: m[rows] for m in factors[1]]
    found = circuit_cosines(queries, keys, 2)
    upper = found.cosines[tuple(torch.triu_indices(40, 40, 1))]
    assert found.null_sd == 1 / 16
    assert float(upper.std()) == pytest.approx(1 / 16, rel=0.08)


def test_head_sums_with_shared_keys():
    W_q, W_k = normal(12, 10, seed=14), normal(6, 10, seed=15)  # 4 heads of 3, 2 keys
    expected = sum(W_q[3 * h : 3 * h + 3].T @ W_k[3 * (h // 2) :][:3] for h in range(4))
    torch.testing.assert_close(head_summed_circuit(W_q, W_k, 4), expected)
    torch.testing.assert_close(head_summed_circuit(W_k, W_k, 2), W_k.T @ W_k)


def test_norm_scales():
    found = norm_scales(torch.tensor([2.0, 0.4, 1.0, 1.0, 1.2001, 0.6]))
    gamma = np.array([2.0, 0.4, 1.0, 1.0, 1.2001, 0.6])
    expected = {"mean": gamma.mean(), "std": gamma.std(), "cv": gamma.std() / gamma.mean()}
    counts = {"n_above_1_5": 1, "n_below_0_5": 1, "n_near_1": 2, "number": 6}
    assert dataclasses.asdict(found) == pytest.approx(expected | counts)


@pytest.mark.parametrize("other", [(4, 3), (5, 2), (3, 2)])
@pytest.mark.parametrize("block", [1, 2 * 2 * 3, 2**24])
def test_layers_of_another_shape_are_refused(other, block):
    reads = [lambda rows, n=n: normal(*n, seed=1)[rows] for n in ((4, 2), other)]
    said = re.escape(f"one shape, not (4, 2) and that of layer 1, {other}")
    with pytest.raises(ProbekitError, match=f"{said}$"):
        layer_cosines(reads, block=block)


def test_refusals():
    with pytest.raises(ProbekitError, match=r"^neuron_importance needs W_in and W_gate \[d_mlp,"):
        neuron_importance(normal(6, 5, seed=1), normal(6, 5, seed=1))
    with pytest.raises(ProbekitError, match=r"^neuron_importance needs .* and \(4,\); these are"):
        neuron_importance(normal(6, 5, seed=1), normal(5, 6, seed=1), gamma=normal(4, seed=1))
    with pytest.raises(ProbekitError, match=r"^layer_cosines compares two layers at least, not 1$"):
        layer_cosines([lambda rows: normal(2, 2, seed=1)[rows]])
    with pytest.raises(ProbekitError, match=r"^3 heads do not fit W_q \(4, 2\) and W_k \(4, 2\)$"):
        head_summed_circuit(normal(4, 2, seed=1), normal(4, 2, seed=1), 3)
    with pytest.raises(ProbekitError, match=r"^count must be from 0 to number = 3, not 4$"):
        wilson(4, 3)
    with pytest.raises(ProbekitError, match=r"^gamma needs finite scales, one at least, not 0$"):
        norm_scales(torch.zeros(0))
