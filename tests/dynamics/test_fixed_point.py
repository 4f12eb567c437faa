import pytest
import torch
from systems import TOKENS, linear, tiny_model
from unchecked import unchecked

import probekit as pk
from probekit.dynamics import find_fixed_point, force_of, planted_rotor, spectrum


def test_a_linear_system_is_solved() -> None:
    a, b = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    found = find_fixed_point(linear(a, b))
    torch.testing.assert_close(found.require()[0, 0], torch.linalg.solve(a, -b))
    assert found.iterations <= 3


def test_all_methods_find_the_same_fixed_point() -> None:
    force = force_of(tiny_model(), TOKENS)
    newton = find_fixed_point(force).require()
    assert float(force(newton).detach().norm(dim=-1).max()) < 1e-10
    for method, iterations in (("relaxation", 4000), ("anderson", 400), ("broyden", 400)):
        found = find_fixed_point(force, method=method, iterations=iterations, tol=1e-9)
        assert found.method == method
        torch.testing.assert_close(found.require(), newton, rtol=0, atol=1e-8)


def test_newton_reaches_an_unstable_fixed_point() -> None:
    rotor = planted_rotor(2.6, 60.0, d_model=8, length=3)
    force = force_of(rotor.model, rotor.x)
    found = find_fixed_point(force, start=rotor.nudged(0.1))
    assert float(spectrum(force, found.require()).real.max()) > 0.1
    torch.testing.assert_close(found.state, rotor.fixed_point, rtol=0, atol=1e-9)


def test_hooks_act_in_every_solver() -> None:
    model = tiny_model()
    bare = find_fixed_point(force_of(model, TOKENS)).require()
    with pk.attach(model, pk.AttentionScale(0.2)):
        force = force_of(model, TOKENS)
        newton = find_fixed_point(force).require()
        relaxed = find_fixed_point(force, method="relaxation", iterations=4000).require()
    torch.testing.assert_close(newton, relaxed, rtol=0, atol=1e-8)
    assert not torch.allclose(newton, bare)


def test_what_did_not_converge_is_flagged() -> None:
    force = force_of(tiny_model(), TOKENS[:, :2])
    for method in ("newton", "relaxation", "anderson", "broyden"):
        found = find_fixed_point(force, method=method, iterations=1, tol=1e-19)
        assert not found.converged.all()
        with pytest.raises(pk.ProbekitError, match=rf"^{method} found no fixed point: after "):
            found.require()
    rest = find_fixed_point(linear(torch.zeros(2, 2).double(), torch.ones(2).double()))
    assert not rest.converged.any()  # F = 1 everywhere: there is none


def test_refusals() -> None:
    force = force_of(tiny_model(attention_dir="bidirectional"), TOKENS)
    with pytest.raises(pk.ProbekitError) as error:
        find_fixed_point(force)
    assert str(error.value) == (
        "Newton token by token needs a causal mask, and here every position sees later ones; use "
        "find_fixed_point(method='anderson'), arnoldi or dense_jacobian instead"
    )
    find_fixed_point(force, method="anderson", iterations=400, tol=1e-9).require()
    with pytest.raises(pk.ProbekitError, match=r"^unknown method 'newtn'; valid: newton, "):
        unchecked(find_fixed_point, force, method="newtn")
    with pytest.raises(pk.ProbekitError, match=r"^the start is not finite at \(0, 0, 0\)"):
        find_fixed_point(force, start=torch.full_like(force.start, torch.nan))
