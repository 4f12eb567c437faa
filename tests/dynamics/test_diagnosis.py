import pytest
import torch
from systems import TOKENS, hopf_normal_form, tiny_model

import probekit as pk
from probekit.dynamics import (
    REGIMES,
    StepSweep,
    classify,
    find_fixed_point,
    force_of,
    observed_regime,
    planted_rotor,
    random_rotors,
    spectrum,
    sweep_steps,
)
from probekit.dynamics.rotor import REGIMES as PLANTED


@pytest.mark.parametrize("phi", [0.0, 60.0, 90.0, 180.0])
def test_the_closed_form_at_every_position(phi) -> None:
    rotor = planted_rotor(2.0, phi, d_model=10, length=4, scales=(1.0, 2.5))
    force = force_of(rotor.model, rotor.x)
    z = rotor.fixed_point
    assert float(force(z).detach().abs().max()) < 1e-13
    found, pairs = spectrum(force, z), rotor.eigenvalues()
    for each in (pairs, pairs.conj(), torch.full_like(pairs, -2)):
        distance = (found - each[..., None]).abs().amin(-1)
        assert float(distance.max()) < 1e-5  # at phi = 0 a double eigenvalue, split by rounding
    sigma = (rotor.x[:, 0].var(-1, correction=0) / 4 + 1e-5).sqrt()
    turn = torch.exp(torch.tensor(1j * rotor.phi, dtype=torch.complex128))
    torch.testing.assert_close(pairs[:, 0], 2.0 / sigma * turn - 2)


def test_the_five_regimes() -> None:
    for label, (kappa, phi) in PLANTED.items():
        rotor = planted_rotor(kappa, phi, d_model=8, length=1)
        assert rotor.regimes() == [label]
        force = force_of(rotor.model, rotor.x)
        z = find_fixed_point(force).require()
        (found,) = classify(force, z, start=rotor.nudged(0.3), step_sizes=(0.1, 0.05), time=12.0)
        assert (found.regime, found.observed, found.predicted) == (label, label, label)
        shown = found.to_dict()
        assert shown["regime"] == label and len(shown["evidence"]) == 2
        if label == "flip":
            assert found.evidence[0]["period"] == pytest.approx(2.0, abs=1e-3)
        if label in ("flip", "Euler instability"):
            assert 0.05 < found.margin < 0.1
    assert set(PLANTED) == set(REGIMES)


def test_random_rotors_are_what_they_say() -> None:
    rotors = random_rotors(50, each=10, slowest=0.75)  # three times as clear
    labels = [label for rotor in rotors for label in rotor.regimes()]
    assert labels == [label for label in PLANTED for _ in range(10)]
    found = []
    for rotor in rotors:
        force = force_of(rotor.model, rotor.x)
        z = find_fixed_point(force).require()
        diagnoses = classify(force, z, start=rotor.nudged(0.3), step_sizes=(0.1, 0.025), time=12.0)
        found += [each.regime for each in diagnoses]
    assert sum(a == b for a, b in zip(found, labels, strict=True)) >= 48


def sweep(g, distance=0.0, period=9.0, trend=1.0):
    def column(value):
        values = value if isinstance(value, list) else [value] * 3
        return torch.tensor(values, dtype=torch.float64)[:, None]

    rows = (column(each) for each in (g, trend, period, 1.0, distance))
    return StepSweep((0.1, 0.05, 0.025), *rows)


@pytest.mark.parametrize(
    ("given", "regime"),
    [
        (sweep(0.0), "stable"),
        (sweep(0.0, distance=0.5), "real branch point"),
        (sweep([1.0, 1.1, 1.2]), "continuous Hopf"),
        (sweep([1.0, 1.6, 2.5]), "undecided"),
        (sweep([1.0, 1e-9, 1e-9]), "Euler instability"),
        (sweep([1.0, 1e-9, 1e-9], period=2.0), "flip"),
        (sweep([1.0, 0.5, 0.3], trend=0.1), "stable"),  # still decaying
        (sweep([1e-9, 1.0, 1.0]), "undecided"),
        (sweep([float("inf"), 1.0, 1.0]), "undecided"),
    ],
)
def test_the_rule_on_given_evidence(given, regime) -> None:
    assert observed_regime(given, 0) == regime


def test_where_the_two_disagree_it_is_undecided() -> None:
    force = hopf_normal_form()
    z = torch.zeros(1, 1, 2, dtype=torch.float64) + 1e-12
    (found,) = classify(force, z, eigenvalues=torch.tensor([[0.5 + 0j, -1.0]]).to(torch.complex128))
    assert (found.observed, found.predicted) == ("continuous Hopf", "real branch point")
    assert found.regime == "undecided"


def test_a_knockout_ends_a_true_hopf_cycle_too() -> None:
    rotor = planted_rotor(*PLANTED["continuous Hopf"], d_model=8, length=1)
    with pk.attach(rotor.model, pk.AttentionScale(0.6)):
        force = force_of(rotor.model, rotor.x)
        z = find_fixed_point(force).require()
        (found,) = classify(force, z, start=rotor.nudged(0.3), step_sizes=(0.1, 0.05), time=16.0)
    assert found.regime == "stable"


def test_refusals() -> None:
    force = force_of(tiny_model(attention_dir="bidirectional"), TOKENS)
    with pytest.raises(pk.ProbekitError, match=r"^the spectrum by diagonal blocks needs a causal"):
        classify(force, force.start)
    with pytest.raises(pk.ProbekitError) as error:
        sweep_steps(force, force.start, step_sizes=(0.1,))
    assert str(error.value) == (
        "step_sizes=(0.1,), time=40.0: give two or more, each at most time / 8"
    )
    with pytest.raises(pk.ProbekitError, match=r"^d_model=3, scales="):
        planted_rotor(1.0, 0.0, d_model=3)
