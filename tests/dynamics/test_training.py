"""Training with any estimator: gradients, resuming, divergence, and what is read off a run."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from systems import LABELS, TOKENS, tiny_model

import probekit as pk
from probekit.dynamics import (
    ESTIMATORS,
    AsymmetryProjection,
    EquilibriumTraining,
    GainCap,
    JacobianPenalty,
    Phases,
    ResidualPenalty,
    SpectralPenalty,
    alignment,
    bptt_gradients,
    estimate,
    fit_equilibrium,
)
from probekit.dynamics.training_study import (
    largest_rise,
    log_readings,
    onset_diagnosis,
    rank_correlation,
    shuffled_correlation,
    spectral_readings,
)
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import LanguageTask

TASK = LanguageTask(level="characters", length=4, held_out=3)
SHORT = EquilibriumTraining(6, 2, 1e-2, "exact", Phases(free=10, nudged=5), 10, 2)


def language_model(seed: int = 0, **overrides) -> pk.EquilibriumModel:
    sizes: dict = {"d_model": 8, "n_heads": 2, "d_head": 4, "d_mlp": 16, **TASK.config}
    return pk.load("equilibrium", seed=seed, **(sizes | overrides))


def fit(path: Path, training=SHORT, stabilisers=(), **overrides) -> RunDir:
    run = RunDir(path)
    model = language_model(**overrides)
    fit_equilibrium(run, model, TASK, training, stabilisers, 0, title="x", position=0)
    return run


def test_every_estimator_comes_to_the_gradient_of_a_long_relaxation() -> None:
    model = tiny_model()
    exact = bptt_gradients(model, TOKENS, LABELS, steps=120)
    names = [name for name in exact if name.startswith("blocks")]
    for estimator in ESTIMATORS:
        phases = Phases(free=120, nudged=60, beta=1e-3)
        found = estimate(estimator, model, TOKENS, LABELS, phases)
        gradients = torch.autograd.grad(found.total * LABELS.numel(), list(model.parameters()))
        named = dict(zip(dict(model.named_parameters()), gradients, strict=True))
        cosine, ratio = alignment(
            {name: named[name] for name in names}, {name: exact[name] for name in names}
        )
        if estimator == "uncorrected":
            assert cosine < 0.999
        else:
            assert cosine == pytest.approx(1, abs=1e-3), estimator
            assert ratio == pytest.approx(1, abs=1e-2), estimator


def test_an_estimate_reads_loss_and_residual_of_its_own_state() -> None:
    model = tiny_model()
    found = estimate("exact", model, TOKENS, LABELS, Phases(free=7))
    logits = model.read_out(model.relax(model.inject(TOKENS), 7))
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), LABELS)
    assert found.loss == pytest.approx(float(loss.detach()))
    force = model.force(found.state, model.inject(TOKENS)).detach()
    expected = float(force.norm() / found.state.norm()) * 0.1
    assert float(found.residuals.step.aggregate) == pytest.approx(expected)


def test_an_unknown_estimator_is_refused() -> None:
    with pytest.raises(pk.ProbekitError, match="bptt"):
        estimate("bppt", tiny_model(), TOKENS, LABELS)


def test_training_lowers_the_loss_and_logs_it(tmp_path: Path) -> None:
    run = fit(tmp_path, replace(SHORT, steps=40, log_every=20))
    rows = run.rows()
    assert [row["step"] for row in rows] == [0, 20, 40]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert rows[0]["train_loss"] is None and rows[1]["train_loss"] > 0
    assert all(row["skipped"] == 0 for row in rows)
    assert {"residual", "worst_residual", "multiplier", "lead"} <= rows[0].keys()
    assert rows[0]["worst_residual"] >= rows[0]["residual"]


@pytest.mark.parametrize(
    ("estimator", "stabilisers"),
    [
        ("bptt", (AsymmetryProjection(0.5),)),
        ("symmetric", (ResidualPenalty(),)),
        ("exact", (JacobianPenalty(rate=0.5), SpectralPenalty(), GainCap(0.5))),
    ],
)
def test_a_killed_run_ends_with_the_same_numbers(
    tmp_path: Path, estimator, stabilisers, monkeypatch
) -> None:
    # Checkpoints every 5 steps.
    training = replace(SHORT, steps=12, log_every=1, estimator=estimator)
    whole = fit(tmp_path / "whole", training, stabilisers)
    real, calls = np.random.default_rng, []

    def dies(seed):
        calls.append(seed)
        if len(calls) > 8:
            raise KeyboardInterrupt
        return real(seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np.random, "default_rng", dies)
        fit(tmp_path / "killed", training, stabilisers)
    assert not RunDir(tmp_path / "killed").done
    resumed = fit(tmp_path / "killed", training, stabilisers)
    assert resumed.rows() == whole.rows()
    for place in (".", "onset"):
        one, other = (RunDir(run.path / place).load_checkpoint() for run in (whole, resumed))
        assert one is not None and other is not None
        assert one[0] == other[0]
        assert all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())
    assert RunDir(whole.path / "onset").load_checkpoint()[0] == 0  # type: ignore[index]


def test_a_run_that_leaves_the_finite_numbers_skips_steps_and_says_so(tmp_path: Path) -> None:
    training = replace(SHORT, steps=4, phases=Phases(free=70), settle=70)
    run = fit(tmp_path, training, step_size=3.0)  # the leak alone multiplies by 5 a step
    rows = run.rows()
    assert rows[-1]["skipped"] == 4
    assert rows[-1]["multiplier"] is None
    saved = run.load_checkpoint()
    fresh = weights(language_model())
    assert saved is not None
    assert all(torch.equal(saved[1][name], tensor) for name, tensor in fresh.items())


def test_the_gain_is_capped_by_training(tmp_path: Path) -> None:
    gains = []
    for stabilisers in ((), (GainCap(0.01),)):
        run = fit(tmp_path / str(len(stabilisers)), replace(SHORT, steps=1), stabilisers)
        saved = run.load_checkpoint()
        assert saved is not None
        gains.append(float(saved[1]["blocks.0.attn.o.weight"].norm()))
    assert gains[1] < 0.1 * gains[0]


def test_a_run_of_huge_states_goes_on(tmp_path: Path) -> None:
    """Finite states whose derivatives overflow: no spectrum, and steps that are skipped."""
    training = replace(SHORT, steps=2, phases=Phases(free=31), settle=31)
    run = fit(tmp_path, training, (SpectralPenalty(),), step_size=3.0)  # 5^31 is about 5e21
    rows = run.rows()
    assert [row["skipped"] for row in rows] == [0, 2]
    assert rows[0]["multiplier"] is None


def test_a_finished_run_only_reads_its_weights(tmp_path: Path, monkeypatch) -> None:
    run = fit(tmp_path)
    saved = run.load_checkpoint()
    assert saved is not None
    model = language_model(seed=5)
    monkeypatch.setattr("probekit.dynamics.training.estimate", None)
    fit_equilibrium(run, model, TASK, SHORT, (), 0, title="x", position=0)
    assert all(torch.equal(saved[1][name], tensor) for name, tensor in weights(model).items())


def test_the_onset_is_saved_once_and_diagnosed(tmp_path: Path) -> None:
    """A step of 1.2 multiplies the bare leak by -1.4: a flip of the map, from the first step."""
    bare = {"residual_init": 0.01, "step_size": 1.2}
    run = fit(tmp_path, replace(SHORT, lr=1e-6), **bare)
    saved = RunDir(run.path / "onset").load_checkpoint()
    assert saved is not None and saved[0] == 0
    rows = onset_diagnosis(run, language_model(**bare, dtype=torch.float64), TASK, SHORT.settle)
    assert len(rows) == 3
    for row in rows:
        assert row["onset step"] == 0
        assert row["regime"] == "flip"
        assert complex(*row["fast"]) == pytest.approx(-2, abs=0.1)
        assert row["margin"] == pytest.approx(1, abs=0.05)
        assert len(row["mu"]) == 4 * 8
        assert row["multiplier at z_T"] == pytest.approx(1.4, abs=0.1)


def test_a_run_that_settles_has_no_onset(tmp_path: Path) -> None:
    run = fit(tmp_path, replace(SHORT, settle=60), residual_init=0.3)
    assert onset_diagnosis(run, language_model(dtype=torch.float64), TASK, 60) == []
    assert not (run.path / "onset").exists()


def test_readings_of_a_log() -> None:
    rows = [
        {"step": s, "loss": loss, "residual": 1e-4, "worst_residual": w, "multiplier": 0.9,
         "lead": -1.0, "skipped": 0}
        for s, loss, w in ((0, 5.0, 1e-3), (50, 2.0, 1e-2), (100, 2.5, 2e-2), (150, None, None))
    ]  # fmt: skip
    found = log_readings(rows)
    assert found["best loss"] == 2.0
    assert found["loss"] == 1e3 and found["largest rise"] == 998.0
    assert found["largest sequence residual"] == 1e3
    assert largest_rise([0.0, 200.0], [1.0, 5.0]) == 0  # further apart than a hundred steps


def test_spectral_readings_are_those_of_the_dense_jacobian() -> None:
    model = language_model(dtype=torch.float64, residual_init=0.5)
    found = spectral_readings(model, TASK)
    assert found["converged"] == 1
    from probekit.dynamics import dense_jacobian, find_fixed_point, force_of, relax

    force = force_of(model, TASK.validation()[0][:4])
    z = find_fixed_point(force, start=relax(force, steps=300).state).require()
    mu = torch.linalg.eigvals(dense_jacobian(force, z))
    assert found["lead"] == pytest.approx(float(mu.real.max()), rel=1e-6)
    abscissa = torch.linalg.eigvalsh(
        (dense_jacobian(force, z) + dense_jacobian(force, z).mT) / 2
    ).max()
    assert found["margin"] == pytest.approx(float((-2 * mu.real / mu.abs() ** 2).min()), rel=1e-6)
    whole = dense_jacobian(force, z).view(-1, 4, 8, 4, 8)
    own = torch.stack([whole[:, t, :, t] for t in range(4)]) + 2 * torch.eye(8)
    norms, skews = own.norm(dim=(-2, -1)), ((own - own.mT) / 2).norm(dim=(-2, -1))
    assert found["r_str"] == pytest.approx(float((skews / norms).mean()))
    assert found["gain"] == pytest.approx(float(norms.mean()) / 8**0.5)
    assert found["abscissa less lead"] == pytest.approx(float(abscissa) - found["lead"], rel=1e-6)
    assert found["multiplier"] == pytest.approx(float((1 + 0.1 * mu).abs().max()), rel=1e-6)


def test_rank_correlation_and_its_null() -> None:
    assert rank_correlation([1.0, 2.0, 3.0], [1.0, 4.0, 9.0]) == pytest.approx(1)
    assert math.isnan(rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    null = shuffled_correlation([float(i) for i in range(12)], [float(i) for i in range(12)])
    assert 0.5 < null < 0.65  # 0.587 is the two-sided 5 % point for 12 pairs
