import time

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from systems import TOKENS, linear, tiny_model

import probekit as pk
from probekit.dynamics import (
    arnoldi,
    dense_jacobian,
    diagonal_blocks,
    find_fixed_point,
    force_of,
    spectrum,
)


def farthest(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest distance in the best matching of two sets of eigenvalues."""
    distance = np.abs(one.numpy()[:, None] - other.numpy()[None])
    return float(distance[linear_sum_assignment(distance)].max())


@pytest.mark.parametrize("overrides", [{}, {"use_qk_norm": True}, {"n_layers": 2}])
def test_blocks_have_the_eigenvalues_of_the_whole(overrides) -> None:
    force = force_of(tiny_model(**overrides), TOKENS)
    z = find_fixed_point(force).require()
    dense = dense_jacobian(force, z)
    upper = dense.view(2, 4, 8, 4, 8).permute(0, 1, 3, 2, 4)
    assert not any(upper[:, t, s].any() for t in range(4) for s in range(t + 1, 4))
    blocks = diagonal_blocks(force, z)
    for t in range(4):
        torch.testing.assert_close(blocks[:, t], upper[:, t, t], rtol=0, atol=1e-12)
    found = spectrum(force, z)
    for example in range(2):
        whole = torch.linalg.eigvals(dense[example])
        scale = float(whole.abs().max())
        assert farthest(found[example].flatten(), whole) < 1e-6 * scale
    assert (found.real.diff(dim=-1) <= 1e-9).all()


def test_a_block_of_another_model_gives_its_blocks_too() -> None:
    inner = pk.load(
        "grokking", seed=0, dtype=torch.float64, d_model=8, n_heads=2, d_head=4, d_mlp=8
    )
    force = force_of(pk.equilibrium(inner), TOKENS)
    assert force.own_token is None
    z = find_fixed_point(force).require()
    dense = dense_jacobian(force, z).view(2, 4, 8, 4, 8)
    blocks = diagonal_blocks(force, z)
    for t in range(4):
        torch.testing.assert_close(blocks[:, t], dense[:, t, :, t], rtol=0, atol=1e-12)


def test_arnoldi_finds_both_ends_without_a_mask() -> None:
    force = force_of(tiny_model(attention_dir="bidirectional"), TOKENS[:1])
    z = find_fixed_point(force, method="anderson", iterations=400, tol=1e-10).require()
    every = torch.linalg.eigvals(dense_jacobian(force, z)).flatten()
    right = arnoldi(force, z, which="rightmost", count=4)
    expected = every.real.sort(descending=True).values
    torch.testing.assert_close(right.real, expected[:4], rtol=0, atol=1e-6)
    large = arnoldi(force, z, which="largest", count=4, step_size=0.7)
    expected = (1 + 0.7 * every).abs().sort(descending=True).values
    torch.testing.assert_close((1 + 0.7 * large).abs(), expected[:4], rtol=0, atol=1e-6)


def test_the_two_ends_differ() -> None:
    # A slow mode that leads the flow, and a fast one that only the map feels.
    slow_fast = torch.block_diag(-0.1 * torch.eye(2), -30.0 * torch.eye(2), -torch.eye(4)).double()
    force = linear(slow_fast)
    z = torch.zeros(1, 1, 8, dtype=torch.float64)
    assert float(arnoldi(force, z, which="rightmost", count=1).real[0]) == pytest.approx(-0.1)
    assert float(arnoldi(force, z, which="largest", count=1).real[0]) == pytest.approx(-30)


def test_refusals() -> None:
    force = force_of(tiny_model(attention_dir="bidirectional"), TOKENS)
    with pytest.raises(pk.ProbekitError, match=r"^the spectrum by diagonal blocks needs a causal"):
        spectrum(force, force.start)
    with pytest.raises(pk.ProbekitError, match=r"^the state is not finite at \(0, 0, 0\)"):
        dense_jacobian(force, torch.full_like(force.start, torch.nan))
    with pytest.raises(pk.ProbekitError, match=r"^6 eigenvalues of 3 dimensions; use dense_jac"):
        arnoldi(linear(torch.eye(3).double()), torch.ones(1, 1, 3).double(), which="rightmost")


@pytest.mark.slow
def test_blocks_are_twenty_times_faster_at_2048() -> None:
    model = pk.load("equilibrium", seed=0, dtype=torch.float64, n_ctx=32)
    force = force_of(model, torch.arange(32)[None])
    z = find_fixed_point(force).require()
    begin = time.perf_counter()
    found = spectrum(force, z)
    by_blocks = time.perf_counter() - begin
    begin = time.perf_counter()
    whole = torch.linalg.eigvals(dense_jacobian(force, z)[0])
    dense = time.perf_counter() - begin
    assert dense > 20 * by_blocks
    assert float(found.real.max()) == pytest.approx(float(whole.real.max()), abs=1e-3)
