"""Penalties and projections against dense Jacobians and closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from systems import TOKENS, tiny_model

import probekit as pk
from probekit.dynamics import (
    AsymmetryProjection,
    GainCap,
    JacobianPenalty,
    Reached,
    ResidualPenalty,
    SpectralPenalty,
    dense_jacobian,
    force_of,
    relax,
    spectrum,
    with_asymmetry,
)
from probekit.errors import NotFiniteError


def reached(model: pk.EquilibriumModel, steps: int = 60, seed: int = 0) -> Reached:
    x = model.inject(TOKENS).detach()
    z = relax(force_of(model, TOKENS), steps=steps).state
    return Reached(model, x, z, 1e-3, 0.1, seed)


def whole(model: pk.EquilibriumModel, z: torch.Tensor) -> torch.Tensor:
    """The Jacobian of attention and MLP alone, an example each."""
    jacobian = dense_jacobian(force_of(model, TOKENS), z)
    return jacobian + (1 + model.cfg.damping) * torch.eye(jacobian.shape[-1])


def test_the_jacobian_penalty_is_the_mean_square_of_a_product() -> None:
    model = tiny_model()
    at = reached(model)
    (v,) = at.normal()
    product = torch.einsum("bij,bi->bj", whole(model, at.z), v.flatten(1))
    found = JacobianPenalty().penalty(at)
    torch.testing.assert_close(found.detach(), product.square().mean())


def test_its_mean_over_vectors_is_the_frobenius_norm() -> None:
    model = tiny_model()
    at = reached(model)
    draws = [
        float(JacobianPenalty().penalty(replace(at, seed=seed)).detach()) for seed in range(144)
    ]
    exact = float(whole(model, at.z).square().sum() / at.z.numel())
    assert abs(np.mean(draws) - exact) < 4 * np.std(draws) / 12


@pytest.mark.parametrize(
    "stabiliser", [JacobianPenalty(), ResidualPenalty(), SpectralPenalty(bound=0.5)]
)
def test_gradients_of_penalties_are_finite_differences(stabiliser) -> None:
    model = tiny_model()
    at = reached(model, steps=20)
    weight = model.blocks[0].attn.o.weight
    (gradient,) = torch.autograd.grad(stabiliser.penalty(at), weight)
    direction = torch.randn_like(weight)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-6 * direction)
        sides.append(float(stabiliser.penalty(at).detach()))
        with torch.no_grad():
            weight.sub_(sign * 1e-6 * direction)
    slope = (sides[0] - sides[1]) / 2e-6
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4)
    assert slope != 0


def test_the_spectral_penalty_is_the_excess_of_the_exact_spectrum() -> None:
    model = tiny_model()
    for seed in (0, 1):
        at = reached(model, seed=seed)
        mu = spectrum(force_of(model, TOKENS), at.z)[seed]
        excess = ((1 + 0.1 * mu).abs().amax(-1) - 0.8).clamp_min(0).mean()
        found = SpectralPenalty(bound=0.8).penalty(at).detach()
        assert float(found) == pytest.approx(float(excess), rel=1e-9)
    assert float(SpectralPenalty(bound=2.0).penalty(at).detach()) == 0


def test_the_spectral_penalty_refuses_what_has_no_blocks() -> None:
    model = tiny_model(attention_dir="bidirectional")
    with pytest.raises(pk.ProbekitError, match="causal"):
        SpectralPenalty().penalty(reached(model))
    inner = pk.load("grokking", seed=0, dtype=torch.float64, d_vocab=11, n_ctx=4)
    wrapped = pk.equilibrium(inner, n_steps=5)
    with pytest.raises(pk.ProbekitError, match="own block"):
        SpectralPenalty().penalty(reached(wrapped, steps=5))


def test_the_residual_penalty_is_the_squared_force_residual() -> None:
    model = tiny_model()
    at = reached(model, steps=5)
    run = relax(force_of(model, TOKENS), steps=1, start=at.z)
    expected = float(run.residuals.aggregate[0]) ** 2
    assert float(ResidualPenalty().penalty(at).detach()) == pytest.approx(expected, rel=1e-9)


def test_the_controller_follows_the_residual_within_its_bounds() -> None:
    penalty = JacobianPenalty(floor=0.1, ceiling=32.0, target=1e-3, rate=0.5)
    assert penalty.controlled(1.0, 1e-3) == pytest.approx(1.0)
    assert penalty.controlled(1.0, 4e-3) == pytest.approx(2.0)
    assert penalty.controlled(1.0, 0.0) == 0.1
    assert penalty.controlled(30.0, math.inf) == 32.0
    assert penalty.controlled(1.0, math.nan) == 32.0
    frozen = JacobianPenalty(rate=0.0)
    assert frozen.controlled(0.1, 1.0) == 0.1


def test_the_gain_cap_scales_to_its_cap_and_no_further() -> None:
    model = tiny_model(residual_init=3.0)
    at = reached(model, steps=5)
    before = {name: p.clone() for name, p in model.named_parameters()}
    gain = at.gain()
    exact = float(whole(model, at.z).square().sum() / at.z.numel()) ** 0.5
    assert gain == pytest.approx(exact, rel=0.3)  # four Hutchinson vectors
    GainCap(2 * gain).project(at)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    GainCap(gain / 2).project(at)
    assert at.gain() == pytest.approx(gain / 2, rel=1e-9)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"blocks.0.attn.o.weight", "blocks.0.mlp.fc_out.weight"}


def test_a_state_whose_derivative_overflows_is_refused() -> None:
    """LAPACK given infinities may end the process."""
    model = tiny_model().float()
    at = reached(model)
    huge = replace(at, z=torch.full_like(at.z, 1e21) * torch.randn_like(at.z))
    with pytest.raises(NotFiniteError, match="the Jacobian is not finite"):
        SpectralPenalty().penalty(huge)


def test_the_gain_cap_refuses_a_wrapped_block() -> None:
    inner = pk.load("grokking", seed=0, dtype=torch.float64, d_vocab=11, n_ctx=4)
    with pytest.raises(pk.ProbekitError, match="own block"):
        GainCap(1e-6).project(reached(pk.equilibrium(inner, n_steps=5), steps=5))


@pytest.mark.parametrize("asymmetry", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("gain", [None, 1.7])
def test_the_projection_sets_asymmetry_and_gain(asymmetry: float, gain: float | None) -> None:
    matrix = torch.randn(6, 6, dtype=torch.float64)
    found = with_asymmetry(matrix, asymmetry, gain)
    norm = torch.linalg.matrix_norm
    assert float(norm((found - found.T) / 2) / norm(found)) == pytest.approx(asymmetry, abs=1e-12)
    expected = float(norm(matrix)) if gain is None else gain * 6**0.5
    assert float(norm(found)) == pytest.approx(expected)
    torch.testing.assert_close(with_asymmetry(found, asymmetry, gain), found)


def test_a_prepared_block_keeps_its_map_through_optimizer_steps() -> None:
    model = tiny_model()
    projection = AsymmetryProjection(0.3, gain=0.8)
    projection.prepare(model)
    attention = model.blocks[0].attn
    assert not attention.v.weight.requires_grad
    eye = attention.v.weight @ attention.v.weight.T
    torch.testing.assert_close(eye, torch.eye(8, dtype=torch.float64))
    fixed = attention.v.weight.clone()
    for seed in range(3):
        with torch.no_grad():
            attention.o.weight.add_(torch.randn_like(attention.o.weight))
        projection.project(reached(model, steps=5, seed=seed))
        circuit = (attention.o.weight @ attention.v.weight).detach()
        skew = torch.linalg.matrix_norm((circuit - circuit.T) / 2)
        assert float(skew / torch.linalg.matrix_norm(circuit)) == pytest.approx(0.3)
        assert float(torch.linalg.matrix_norm(circuit)) == pytest.approx(0.8 * 8**0.5)
    assert torch.equal(attention.v.weight, fixed)


def test_projections_refuse_what_they_cannot_hold() -> None:
    with pytest.raises(pk.ProbekitError, match="between 0 and 1"):
        AsymmetryProjection(1.2)
    with pytest.raises(pk.ProbekitError, match="n_heads"):
        AsymmetryProjection(0.5).prepare(tiny_model(n_heads=1))
    inner = pk.load("grokking", seed=0, d_vocab=11, n_ctx=4)
    with pytest.raises(pk.ProbekitError, match="own block"):
        AsymmetryProjection(0.5).prepare(pk.equilibrium(inner))


def test_symmetric_values_have_real_modes_at_the_first_token() -> None:
    """Without an MLP the first token's attention map is W_V W_O behind a LayerNorm's Jacobian."""
    model = tiny_model(attn_only=True)
    AsymmetryProjection(0.0).prepare(model)
    z = relax(force_of(model, TOKENS), steps=400).state
    assert float(spectrum(force_of(model, TOKENS), z)[:, 0].imag.abs().max()) < 1e-6
    AsymmetryProjection(1.0).project(reached(model))
    z = relax(force_of(model, TOKENS), steps=400).state
    assert float(spectrum(force_of(model, TOKENS), z)[:, 0].imag.abs().max()) > 0.1
