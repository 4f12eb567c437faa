import numpy as np
import pytest
import torch
from scipy.linalg import expm
from systems import TOKENS, linear, tiny_model

import probekit as pk
from probekit.dynamics import (
    UNSTRUCTURED_RHO,
    asymmetry,
    dense_jacobian,
    diagonal_blocks,
    find_fixed_point,
    force_of,
    gain,
    graded_weights,
    log_norm,
    nonnormality,
    numerical_abscissa,
    probe_products,
    split,
)


def test_estimates_against_the_dense_jacobian() -> None:
    force = force_of(tiny_model(), TOKENS)
    z = find_fixed_point(force).require()
    whole = torch.block_diag(*dense_jacobian(force, z))
    gamma, r_str, rho = (float(each) for each in split(whole))
    signs, pushed, pulled = probe_products(force, z, count=200)
    torch.testing.assert_close(pushed, signs @ whole.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(pulled, signs @ whole, rtol=0, atol=1e-10)
    assert gain(pushed) == pytest.approx(gamma, rel=0.03)
    assert nonnormality(pushed, pulled) == pytest.approx(rho, rel=0.03)
    assert asymmetry(pushed, pulled) == pytest.approx(r_str, rel=0.03)
    bare = probe_products(force, z, count=3, leak=2.0)[1]
    torch.testing.assert_close(bare, signs[:3] @ (whole.T + 2 * torch.eye(64)), rtol=0, atol=1e-10)


def test_r_str_is_half_of_rho_and_the_unstructured_null() -> None:
    torch.manual_seed(0)
    a = torch.randn(300, 300, dtype=torch.float64)
    _, r_str, rho = split(a)
    assert float(r_str) == pytest.approx(float(rho) / 2)
    assert float(rho) == pytest.approx(UNSTRUCTURED_RHO, rel=0.01)
    symmetric, skew = a + a.T, a - a.T
    assert float(split(symmetric)[1]) == 0 and float(split(skew)[1]) == pytest.approx(1)
    trace = float((a @ a).trace() / a.square().sum())
    assert float(rho) ** 2 == pytest.approx(2 * (1 - trace))


def test_the_numerical_abscissa_is_that_of_the_symmetric_part() -> None:
    force = force_of(tiny_model(), TOKENS)
    z = find_fixed_point(force).require()
    whole = dense_jacobian(force, z).numpy()
    expected = max(np.linalg.eigvalsh((one + one.T) / 2)[-1] for one in whole)
    assert numerical_abscissa(force, z) == pytest.approx(expected, abs=1e-6)
    # Indefinite, the least eigenvalue the largest in size: power iteration would answer -9.
    force = linear(torch.diag(torch.tensor([-9.0, 1.0, 0.5, 0.1, -3.0]).double()))
    assert numerical_abscissa(force, torch.ones(1, 1, 5).double()) == pytest.approx(1)


def test_the_log_norm_is_the_initial_growth() -> None:
    a = torch.randn(5, 5, dtype=torch.float64)
    weights = torch.rand(5, dtype=torch.float64) + 0.5
    root = weights.sqrt().diag().numpy()
    for p, moved in ((None, a.numpy()), (weights, root @ a.numpy() @ np.linalg.inv(root))):
        growth = (np.linalg.norm(expm(1e-6 * moved), 2) - 1) / 1e-6
        assert float(log_norm(a, p)) == pytest.approx(growth, abs=1e-4)
    assert float(log_norm(a)) >= float(torch.linalg.eigvals(a).real.max())  # Bendixson


def test_graded_weights_reach_the_diagonal_blocks() -> None:
    force = force_of(tiny_model(), TOKENS[:1])
    z = find_fixed_point(force).require()
    whole = dense_jacobian(force, z)[0]
    blocks = float(log_norm(diagonal_blocks(force, z)).max())
    graded = float(log_norm(whole, graded_weights(4, 8, 1e-8)))
    assert graded == pytest.approx(blocks, abs=1e-3)
    assert float(log_norm(whole)) > blocks


def test_refusals() -> None:
    with pytest.raises(pk.ProbekitError, match=r"^weights are the diagonal of a positive matrix"):
        log_norm(torch.eye(2), torch.tensor([1.0, -1.0]))
    with pytest.raises(pk.ProbekitError, match=r"^2 dimensions are too few for ARPACK"):
        numerical_abscissa(linear(torch.eye(2)), torch.ones(1, 1, 2))
    with pytest.raises(pk.ProbekitError, match=r"^the state is not finite"):
        probe_products(linear(torch.eye(2)), torch.full((1, 1, 2), torch.nan))
