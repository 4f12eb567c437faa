import numpy as np
import pytest
import torch
from systems import TOKENS, linear, tiny_model

import probekit as pk
from probekit.dynamics import force_of, relax, residuals, tail


def test_a_linear_relaxation_is_its_closed_form() -> None:
    a = torch.tensor([[-1.0, 0.5], [0.0, -2.0]], dtype=torch.float64)
    run = relax(linear(a), steps=7, step_size=0.1)
    factor = np.linalg.matrix_power(np.eye(2) + 0.1 * a.numpy(), 7)
    np.testing.assert_allclose(run.state[0, 0].numpy(), factor @ np.ones(2), atol=1e-14)
    assert run.steps == 7


def test_residuals_are_ratios_of_norms() -> None:
    f, z = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found, a, b = residuals(f, z, 0.2), f.numpy(), z.numpy()

    def ratio(axis):
        return np.sqrt((a**2).sum(axis) / (b**2).sum(axis))

    np.testing.assert_allclose(found.token.numpy(), ratio(-1))
    np.testing.assert_allclose(found.sequence.numpy(), ratio((1, 2)))
    np.testing.assert_allclose(float(found.aggregate), np.linalg.norm(a) / np.linalg.norm(b))
    np.testing.assert_allclose(found.step.token.numpy(), 0.2 * ratio(-1))


def test_a_trace_holds_the_residuals_of_every_state() -> None:
    model = tiny_model()
    force = force_of(model, TOKENS)
    run = relax(force, steps=4)
    z = force.start
    for step in range(4):
        expected = residuals(force(z), z, 0.1)
        torch.testing.assert_close(run.residuals.token[step], expected.token)
        torch.testing.assert_close(run.residuals.sequence[step], expected.sequence)
        torch.testing.assert_close(run.residuals.aggregate[step], expected.aggregate)
        z = z + 0.1 * force(z)
    torch.testing.assert_close(run.state, z)


def test_the_relaxation_is_that_of_the_model() -> None:
    model = tiny_model(n_steps=9)
    state = relax(force_of(model, TOKENS), steps=9).state
    torch.testing.assert_close(model.read_out(state), model(TOKENS))


def test_an_aggregate_hides_what_a_sequence_shows() -> None:
    still, moving = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    f = torch.cat([moving] + [still] * 63)
    found = residuals(f, torch.ones(64, 1, 2), 0.1)
    assert float(found.sequence.median()) == 0 and float(found.sequence.max()) == 1
    assert float(found.aggregate) == pytest.approx(1 / 8)


def test_stopping_and_flags() -> None:
    settled = relax(force_of(tiny_model(), TOKENS), steps=3000, tol=1e-9, stop=True)
    assert settled.settled.all() and settled.steps < 3000
    torch.testing.assert_close(settled.require(), settled.state)
    early = relax(force_of(tiny_model(), TOKENS), steps=10)
    assert not early.settled.any() and early.finite.all()
    with pytest.raises(pk.ProbekitError, match=r"^2 of 2 sequences have not settled after 10 st"):
        early.require()


def test_a_step_too_large_is_flagged() -> None:
    force = linear(torch.tensor([[-1e3]], dtype=torch.float64))
    run = relax(force, steps=500, step_size=1.0)
    assert not run.finite.any() and not run.settled.any() and run.steps < 500
    with pytest.raises(pk.ProbekitError) as error:
        run.require()
    assert str(error.value) == (
        f"1 of 1 sequences left the finite numbers within {run.steps} steps of 1.0; lower step_size"
    )


@pytest.mark.parametrize(("steps", "size"), [(0, 0.1), (5, 0.0), (5, -1.0), (5, float("inf"))])
def test_numbers_that_make_no_sense(steps, size) -> None:
    with pytest.raises(pk.ProbekitError, match=r"^steps=.* positive$"):
        relax(linear(torch.eye(2)), steps=steps, step_size=size)


def test_a_start_that_is_not_finite() -> None:
    with pytest.raises(pk.ProbekitError) as error:
        relax(linear(torch.eye(2)), steps=1, start=torch.tensor([[[1.0, torch.nan]]]))
    assert str(error.value) == (
        "the start is not finite at (0, 0, 1) and 0 further places; relax with a smaller step, or "
        "start from a finite state"
    )
    with pytest.raises(pk.ProbekitError, match=r"^x is not finite at \(0, 0, 0\) and 15 further"):
        force_of(tiny_model(), torch.full((1, 2, 8), torch.inf, dtype=torch.float64))


def test_tail() -> None:
    end = tail(torch.tensor([9.0, 1.0, 2.0, 3.0]), window=3)
    assert (end.mean, end.least, end.greatest, end.swing) == (2, 1, 3, 2)
