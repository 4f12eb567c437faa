import math

import pytest
import torch
from systems import hopf_normal_form, linear

import probekit as pk
from probekit.dynamics import (
    cycle_frequency,
    euler_margin,
    floquet,
    least_stable,
    lyapunov,
    period,
    relax,
    rightmost,
    spectral_regime,
)


def test_periods_of_known_waves() -> None:
    steps = torch.arange(400, dtype=torch.float64)
    periods = torch.tensor([2.0, 3.9, 9.7, 23.1, 40.0], dtype=torch.float64)
    waves = torch.cos(2 * math.pi * steps[:, None] / periods + 0.3) + 5
    torch.testing.assert_close(period(waves), periods, rtol=2e-3, atol=0)
    flip = (-1.0) ** steps[:, None]
    assert float(period(flip[:25])[0]) == float(period(flip[:24])[0]) == pytest.approx(2)
    assert period(torch.ones(50, 1)).isnan().all() and period(torch.ones(3, 1)).isnan().all()


def test_the_cycle_of_the_normal_form() -> None:
    # Of its Euler map, exactly: the step is such that 40 of them are one turn.
    omega, turn = 2.0, 40
    step = math.sin(2 * math.pi / turn) / omega
    factor = math.sqrt(1 - (step * omega) ** 2)  # 1 + step (growth - |z|^2) on the cycle
    square = 1 + (1 - factor) / step
    across = 1 - 2 * step * factor * square  # d|z'| / d|z|
    force = hopf_normal_form(growth=1.0, omega=omega)
    run = relax(force, steps=400, step_size=step)
    assert float(run.state.norm()) == pytest.approx(math.sqrt(square), abs=1e-9)
    assert float(period(run.projection[-200:])[0]) == pytest.approx(turn, rel=2e-3)
    exponents = lyapunov(force, run.state, steps=turn, step_size=step, warmup=2 * turn)
    expected = torch.tensor([0, math.log(across) / step], dtype=torch.float64)
    torch.testing.assert_close(exponents[0], expected, rtol=0, atol=1e-6)
    found = floquet(force, run.state, steps=turn, step_size=step)[0].abs()
    expected = torch.tensor([1, across**turn], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_floquet_and_lyapunov_of_a_linear_map() -> None:
    a = torch.tensor([[-0.3, -2.0, 0.7], [2.0, -0.3, 0.1], [0.0, 0.0, -1.5]], dtype=torch.float64)
    mu = torch.linalg.eigvals(a)
    z = torch.ones(1, 1, 3, dtype=torch.float64)
    found = floquet(linear(a), z, steps=12, step_size=0.05)[0]
    expected = (1 + 0.05 * mu) ** 12
    torch.testing.assert_close(found.abs(), expected.abs().sort(descending=True).values)
    torch.testing.assert_close(found.sum(), expected.sum())
    exponents = lyapunov(linear(a), z, steps=150, count=3, step_size=0.2, warmup=25)[0]
    expected = ((1 + 0.2 * mu).abs().log() / 0.2).sort(descending=True).values
    torch.testing.assert_close(exponents, expected, rtol=0, atol=0.02)


def test_the_euler_margin_is_where_the_map_loses_stability() -> None:
    mu = torch.tensor([-2 + 6.9j, -1.5 + 0j, -22.6 + 0j, 0.2 + 3j], dtype=torch.complex128)
    steps = torch.linspace(1e-4, 3, 200_000, dtype=torch.float64)
    unstable = (1 + steps[:, None] * mu).abs() > 1
    first = torch.where(unstable.any(0), steps[unstable.int().argmax(0)], torch.inf)
    torch.testing.assert_close(euler_margin(mu)[:3], first[:3], rtol=0, atol=1e-3)
    assert float(euler_margin(mu)[3]) == 0


@pytest.mark.parametrize(
    ("mu", "regime"),
    [
        ([-1.5 + 0.7j, -1.5 - 0.7j, -2], "stable"),
        ([0.2 + 3.9j, 0.2 - 3.9j, -2], "continuous Hopf"),
        ([-2 + 6.9j, -2 - 6.9j, -0.1], "Euler instability"),
        ([0.7, -2 + 1j, -2 - 1j], "real branch point"),
        ([-22.6, -2], "flip"),
    ],
)
def test_what_a_spectrum_predicts(mu, regime) -> None:
    values = torch.tensor(mu, dtype=torch.complex128)
    assert spectral_regime(values, 0.1) == regime
    assert spectral_regime(values.conj().flip(0), 0.1) == regime
    assert complex(rightmost(values)) == max(mu, key=lambda m: (complex(m).real, complex(m).imag))
    assert abs(1 + 0.1 * complex(least_stable(values, 0.1))) == max(abs(1 + 0.1 * m) for m in mu)


def test_frequency_of_a_mode() -> None:
    assert cycle_frequency(0.1 + 2j, 1e-6) == pytest.approx(2, rel=1e-5)
    assert cycle_frequency(-20 + 0j, 0.1) == pytest.approx(math.pi / 0.1)  # a flip


def test_refusals() -> None:
    force = linear(torch.full((1, 1), 1e200, dtype=torch.float64))
    with pytest.raises(pk.ProbekitError, match=r"^the state after the period is not finite"):
        floquet(force, torch.ones(1, 1, 1).double(), steps=4, step_size=1.0)
    with pytest.raises(pk.ProbekitError, match=r"^count=3: there are 1 directions"):
        lyapunov(force, torch.ones(1, 1, 1).double(), steps=1, count=3)
