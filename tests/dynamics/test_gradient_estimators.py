"""Gradient estimators against dense solves and finite differences."""

import pytest
import torch
from systems import LABELS, TOKENS, linear, tiny_model
from torch.nn import functional as F

import probekit as pk
from probekit.dynamics import (
    NudgedPhase,
    alignment,
    block_gradients,
    bptt_gradients,
    dense_jacobian,
    exact_adjoint,
    find_fixed_point,
    force_of,
    holomorphic,
    nudged_states,
    objective_of,
    one_sided,
    parameter_gradients,
    symmetric,
    truncated_adjoint,
)


@pytest.fixture(scope="module")
def at_rest():
    """A model, its force, z*, the objective, dL/dz and the adjoint by a dense solve."""
    model = tiny_model()
    force = force_of(model, TOKENS)
    z = find_fixed_point(force).require()
    objective = objective_of(model, LABELS)
    gradient = objective.gradient(z)
    whole = dense_jacobian(force, z)
    a = torch.linalg.solve(whole.mT, -gradient.flatten(1)).view_as(z)
    return model, force, z, objective, gradient, a


def test_the_objective_is_pytorchs_cross_entropy(at_rest) -> None:
    model, _, z, objective, gradient, _ = at_rest
    state = z.clone().requires_grad_()
    loss = F.cross_entropy(model.read_out(state).transpose(1, 2), LABELS, reduction="sum")
    torch.testing.assert_close(objective.loss(state), loss)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss, state)[0])
    # Holomorphic: a step i h d moves the gradient by i h times its real derivative.
    d = torch.randn_like(z)
    moved = objective.gradient(z + 1e-6j * d).imag / 1e-6
    near = (objective.gradient(z + 1e-6 * d) - objective.gradient(z - 1e-6 * d)) / 2e-6
    torch.testing.assert_close(moved, near, rtol=0, atol=1e-7)


def test_the_adjoint_is_the_dense_solve(at_rest) -> None:
    _, force, z, _, gradient, a = at_rest
    found = exact_adjoint(force, z, gradient)
    assert found.converged and found.residual < 1e-9
    torch.testing.assert_close(found.require(), a, rtol=0, atol=1e-8)
    once = exact_adjoint(linear(torch.randn(200, 200).double()), torch.ones(1, 1, 200).double(),
                         torch.ones(1, 1, 200).double(), iterations=1)  # fmt: skip
    assert not once.converged
    with pytest.raises(pk.ProbekitError, match=r"^GMRES left a relative residual of "):
        once.require()


def test_parameter_gradients_are_finite_differences(at_rest) -> None:
    model, _, z, _, _, a = at_rest
    found = parameter_gradients(model, TOKENS, z, a, LABELS)

    def loss() -> float:
        state = find_fixed_point(force_of(model, TOKENS), start=z, tol=1e-13).state
        return float(objective_of(model, LABELS).loss(state).detach())

    for name in ("blocks.0.attn.v.weight", "blocks.0.mlp.fc_in.weight", "blocks.0.ln1.bias",
                 "embed.weight", "pos_embed.weight", "unembed.weight"):  # fmt: skip
        parameter = dict(model.named_parameters())[name]
        at = (2,) * parameter.ndim
        old = float(parameter.detach()[at])
        with torch.no_grad():
            losses = []
            for h in (1e-5, -1e-5):
                parameter[at] = old + h
                losses.append(loss())
            parameter[at] = old
        assert float(found[name][at]) == pytest.approx((losses[0] - losses[1]) / 2e-5, abs=1e-6), (
            name
        )


def test_bptt_comes_to_the_exact_gradient(at_rest) -> None:
    model, _, z, _, _, a = at_rest
    exact = block_gradients(parameter_gradients(model, TOKENS, z, a, LABELS))
    assert len(exact) == 10
    cosines = []
    for steps in (5, 40, 400):
        cosine, ratio = alignment(bptt_gradients(model, TOKENS, LABELS, steps=steps), exact)
        cosines.append(cosine)
    assert cosines == sorted(cosines)
    assert cosines[-1] == pytest.approx(1, abs=1e-9) and ratio == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("steps", [3, 40])
def test_the_truncation_law(at_rest, steps) -> None:
    _, force, z, objective, gradient, a = at_rest
    law = truncated_adjoint(force, z, gradient, steps=steps)
    m = torch.eye(32, dtype=torch.float64) + 0.1 * dense_jacobian(force, z)
    left = torch.linalg.matrix_power(m.mT, steps) @ a.flatten(1)[..., None]
    torch.testing.assert_close(law, a - left.view_as(a), rtol=0, atol=1e-9)
    found = symmetric(force, z, objective, beta=1e-4, phase=NudgedPhase(steps))
    torch.testing.assert_close(found, law, rtol=0, atol=1e-5)


def test_orders_of_the_estimators(at_rest) -> None:
    _, force, z, objective, gradient, _ = at_rest
    law = truncated_adjoint(force, z, gradient, steps=8)

    def error(estimate, **options) -> float:
        return float((estimate(force, z, objective, phase=NudgedPhase(8), **options) - law).norm())

    # Halving the nudge halves, quarters, and divides by 16 what is wrong.
    one = [error(one_sided, beta=b) for b in (0.02, 0.01)]
    two = [error(symmetric, beta=b) for b in (0.04, 0.02)]
    four = [error(holomorphic, radius=r, points=4) for r in (0.2, 0.1)]
    assert one[0] / one[1] == pytest.approx(2, rel=0.1)
    assert two[0] / two[1] == pytest.approx(4, rel=0.1)
    assert four[0] / four[1] == pytest.approx(16, rel=0.3)
    assert error(holomorphic, radius=0.04, points=2) == pytest.approx(two[0])
    assert error(holomorphic, radius=0.1, points=3) < error(symmetric, beta=0.1)


def test_without_correction_it_is_another_inverse(at_rest) -> None:
    _, force, z, objective, gradient, a = at_rest
    whole = dense_jacobian(force, z)
    wrong = torch.linalg.solve(whole, -gradient.flatten(1)).view_as(z)
    bare = NudgedPhase(100, 0.15, corrected=False)
    found = symmetric(force, z, objective, beta=1e-4, phase=bare)
    torch.testing.assert_close(found, wrong, rtol=0, atol=1e-5)
    assert alignment(found, a)[0] < 0.99


def test_alignment() -> None:
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    assert alignment(a, b) == (pytest.approx(24 / 25), pytest.approx(1))
    assert alignment(2 * a, a) == (pytest.approx(1), pytest.approx(2))
    assert alignment({"x": a, "y": b, "z": b}, {"y": a, "x": b}) == (pytest.approx(24 / 25), 1)
    assert all(value != value for value in alignment(torch.zeros(2), a))


def test_refusals(at_rest) -> None:
    _, force, z, objective, _, _ = at_rest
    with pytest.raises(pk.ProbekitError, match=r"^a nudge of 0.0 gives no difference; take 0.02$"):
        one_sided(force, z, objective, beta=0.0)
    with pytest.raises(pk.ProbekitError, match=r"^points=1: a circle needs at least 2"):
        holomorphic(force, z, objective, points=1)
    with pytest.raises(pk.ProbekitError, match=r"^the nudged state is not finite at "):
        nudged_states(force, z, objective, beta=0.1, phase=NudgedPhase(60, 1e6))
    with pytest.raises(pk.ProbekitError, match=r"^the nudge needs logits that are linear in the"):
        objective_of(pk.equilibrium(pk.load("grokking", seed=0)), LABELS)  # type: ignore[arg-type]
