"""Circuits against dense d_model x d_model matrices; the gauge; nulls against random factors."""

import doctest

import numpy as np
import pytest
import torch
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.weights import (
    HeadCircuits,
    circuit_null,
    fold_norm,
    head_circuits,
    published_qk,
    published_qk_null,
    qk,
    split_heads,
)

HEADS, D_MODEL, D_HEAD = 3, 20, 4


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.fixture
def factors() -> dict[str, Tensor]:
    W_Q = normal(HEADS, D_MODEL, D_HEAD, seed=1)
    return {
        "W_Q": W_Q,
        "W_K": 0.5 * W_Q + normal(HEADS, D_MODEL, D_HEAD, seed=2),
        "b_Q": normal(HEADS, D_HEAD, seed=3),
        "b_K": normal(HEADS, D_HEAD, seed=4),
    }


def numbers(found: HeadCircuits) -> Tensor:
    return torch.stack([found.score, found.positive_energy, found.stable_rank, found.norm])


def dense(circuits: Tensor) -> np.ndarray:
    """The same numbers of whole matrices, by NumPy."""
    rows = []
    for circuit in circuits.numpy():
        eigenvalues = np.linalg.eigvals(circuit)
        symmetric = np.linalg.eigvalsh((circuit + circuit.T) / 2)
        positive = (symmetric[symmetric > 0] ** 2).sum() / (symmetric**2).sum()
        s = np.linalg.svd(circuit, compute_uv=False)
        score = eigenvalues.real.sum() / np.abs(eigenvalues).sum()
        rows.append([score, positive, (s**2).sum() / s[0] ** 2, np.linalg.norm(circuit)])
    return np.array(rows).T


@pytest.mark.parametrize("biases", [(), ("b_Q",), ("b_K",), ("b_Q", "b_K")])
def test_against_dense_matrices(factors, biases):
    given = {name: value for name, value in factors.items() if name[0] == "W" or name in biases}

    def extended(side: str) -> Tensor:
        row = factors[f"b_{side}"] if f"b_{side}" in biases else torch.zeros(HEADS, D_HEAD)
        return torch.cat([factors[f"W_{side}"], row.double()[:, None]], 1)

    expected = dense(extended("Q") @ extended("K").mT)
    assert numbers(head_circuits(**given)).numpy() == pytest.approx(expected, rel=1e-7)


def gauged(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    """(W_Q M, W_K M^-T) and the biases with them, M another for each head."""
    M = normal(HEADS, D_HEAD, D_HEAD, seed=5) + 2 * torch.eye(D_HEAD, dtype=torch.float64)
    inverse = torch.linalg.inv(M).mT
    return {
        "W_Q": factors["W_Q"] @ M,
        "W_K": factors["W_K"] @ inverse,
        "b_Q": (factors["b_Q"][:, None] @ M)[:, 0],
        "b_K": (factors["b_K"][:, None] @ inverse)[:, 0],
    }


def test_the_gauge_changes_the_published_numbers_alone(factors):
    moved = gauged(factors)
    torch.testing.assert_close(
        numbers(head_circuits(**moved)), numbers(head_circuits(**factors)), rtol=1e-9, atol=1e-11
    )

    def linear(W: Tensor) -> Tensor:
        return W.mT.flatten(0, 1)

    before = published_qk(linear(factors["W_Q"]), linear(factors["W_K"]))
    after = published_qk(linear(moved["W_Q"]), linear(moved["W_K"]))
    assert after.stable_rank != pytest.approx(before.stable_rank, rel=0.02)
    assert after.symmetry_deviation != pytest.approx(before.symmetry_deviation, rel=0.02)


def test_grouped_heads_share_their_key(factors):
    W_Q = normal(6, D_MODEL, D_HEAD, seed=6)
    grouped = head_circuits(W_Q, factors["W_K"], b_K=factors["b_K"])
    for head in range(6):
        key = [head // 2]
        alone = head_circuits(W_Q[[head]], factors["W_K"][key], b_K=factors["b_K"][key])
        torch.testing.assert_close(numbers(grouped)[:, [head]], numbers(alone))


def test_scores_of_known_circuits():
    W = normal(1, D_MODEL, D_HEAD, seed=7)
    assert numbers(head_circuits(W, W))[:2, 0].tolist() == pytest.approx([1, 1])
    assert numbers(head_circuits(W, -W))[:2, 0].tolist() == pytest.approx([-1, 0], abs=1e-12)


def test_a_norm_moves_into_the_weights(factors):
    gamma, beta = normal(D_MODEL, seed=8), normal(D_MODEL, seed=9)
    x = normal(7, D_MODEL, seed=10)
    W, b = fold_norm(factors["W_Q"], factors["b_Q"], gamma, beta)
    expected = (gamma * x + beta) @ factors["W_Q"] + factors["b_Q"][:, None]
    assert b is not None
    torch.testing.assert_close(x @ W + b[:, None], expected)
    W, b = fold_norm(factors["W_Q"], None, gamma, beta)
    assert b is not None
    torch.testing.assert_close(x @ W + b[:, None], expected - factors["b_Q"][:, None])
    assert fold_norm(factors["W_Q"], None, gamma)[1] is None


def test_the_null_of_random_factors():
    heads, d_model, d_head = 300, 96, 16
    found = head_circuits(
        normal(heads, d_model, d_head, seed=11), normal(heads, d_model, d_head, seed=12)
    )
    null = circuit_null(d_model, d_head)
    assert float(found.score.mean()) == pytest.approx(0, abs=3 * null.score_sd / heads**0.5)
    assert float(found.score.std()) == pytest.approx(null.score_sd, rel=0.2)
    off = float(found.positive_energy.mean()) - 0.5
    assert off == pytest.approx(0, abs=3 * null.positive_energy_sd / heads**0.5)
    assert float(found.positive_energy.std()) == pytest.approx(null.positive_energy_sd, rel=0.35)
    assert float(found.stable_rank.mean()) == pytest.approx(null.stable_rank, rel=0.15)
    assert circuit_null(512, 512).stable_rank == pytest.approx(4 * 512 / 27)
    assert circuit_null(10**9, 8).stable_rank == pytest.approx(8, rel=1e-3)


def test_heads_of_a_linear_weight():
    weight = normal(HEADS * D_HEAD, D_MODEL, seed=13)
    assert torch.equal(split_heads(weight, HEADS)[1], weight[4:8].T)
    with pytest.raises(ProbekitError, match=r"^12 rows do not divide among 5 heads; weight is a L"):
        split_heads(weight, 5)


def test_published_numbers_against_numpy():
    W_q, W_k = normal(12, 18, seed=14), normal(12, 18, seed=15)
    M = W_q.numpy() @ W_k.numpy().T
    s = np.linalg.svd(M, compute_uv=False)
    eigenvalues = np.sort(np.linalg.eigvalsh((M + M.T) / 2))[::-1]
    found = published_qk(W_q, W_k)
    assert found.stable_rank == pytest.approx((s**2).sum() / s[0] ** 2)
    assert found.participation == pytest.approx(s.sum() ** 2 / (s**2).sum())
    assert found.symmetry_deviation == pytest.approx(np.linalg.norm(M - M.T) / np.linalg.norm(M))
    assert (found.n_positive, found.n_negative) == (
        (eigenvalues > 0).sum(),
        (eigenvalues < 0).sum(),
    )
    assert found.top == pytest.approx(eigenvalues[:5])
    assert found.positive_fraction + found.negative_fraction == 1


def test_published_null():
    """B9: 4 n / 27, .561 n, sqrt 2, half, for any n."""
    null = published_qk_null(512, 512)
    assert null.stable_rank == pytest.approx(75.9, rel=0.05)
    assert null.participation / 512 == pytest.approx(0.561, rel=0.01)
    assert null.symmetry_deviation == pytest.approx(2**0.5, rel=0.01)
    assert null.positive_fraction == 0.5 and 0.3 < 512 * null.positive_fraction_sd < 1.5


def test_refusals(factors):
    with pytest.raises(ProbekitError, match=r"^head_circuits needs \[head, d_model, d_head\] with"):
        head_circuits(normal(4, D_MODEL, D_HEAD, seed=1), factors["W_K"])
    with pytest.raises(ProbekitError, match=r"^published_qk needs two weights of one shape, not"):
        published_qk(normal(4, 6, seed=1), normal(2, 6, seed=1))


def test_examples_in_docstrings():
    assert doctest.testmod(qk, extraglobs={"torch": torch}) == (0, 2)
