"""What is logged of drift, against PyTorch's own loop, and how its log is read."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import probekit as pk
from probekit.errors import ProbekitError
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import (
    DriftRun,
    DriftTracker,
    ModularTask,
    Optimisation,
    fit_with_drift,
    half_way,
    part_names,
    published_stable_step,
)

TASK = ModularTask(modulus=7, fraction=0.5)
LR, WD, EVERY, STEPS = 1e-2, 0.5, 4, 8
QK = ("layers.0.attn.q.weight", "layers.0.attn.k.weight")


def tiny(**config: Any) -> Any:
    sizes = {"n_layers": 1, "d_model": 16, "d_head": 4, "d_mlp": 24, "attention_bias": False}
    return pk.load("modular-deep-2", seed=0, **{**sizes, **TASK.config, **config})


def run_tiny(folder, weight_decay=WD) -> DriftRun:
    optimisation = Optimisation(STEPS, 16, LR, weight_decay, log_every=EVERY)
    fit_with_drift(RunDir(folder), tiny(), TASK, optimisation, 3, title="", position=0)
    return DriftRun.read(folder)


def by_hand() -> list[dict[str, torch.Tensor]]:
    """The parameters at each log."""
    model, snapshots = tiny(), []
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=WD)
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            snapshots.append({n: p.detach().clone() for n, p in weights(model).items()})
        tokens, labels = TASK.batch(np.random.default_rng([3, 0, step]), 16)
        optimizer.zero_grad()
        F.cross_entropy(model(tokens)[:, -1], labels[:, 0]).backward()
        optimizer.step()
    return snapshots


def together(snapshot, names) -> np.ndarray:
    return np.concatenate([snapshot[name].double().numpy().ravel() for name in names])


def test_parts_are_the_parameters_of_these_names():
    found = part_names(tiny(attention_bias=True))
    both = [f"layers.0.attn.{m}.{w}" for m in "qk" for w in ("weight", "bias")]
    assert sorted(found["QK"]) == sorted(both)
    assert found["EMBED"] == ("tok_embed.weight",) and found["POS"] == ("pos.weight",)
    assert sorted(found["UNEMBED"]) == ["head.bias", "head.weight"]
    norms = {n for n in weights(tiny()) if n.split(".")[-2] in ("ln1", "ln2", "ln_out")}
    assert set(found["LN"]) == norms
    apart = ("Q", "K", "V", "O", "MLP", "LN", "EMBED", "POS", "UNEMBED")
    every = [name for part in apart for name in found[part]]
    assert sorted(every) == sorted(weights(tiny(attention_bias=True)))


def test_an_unknown_part_is_refused():
    with pytest.raises(ProbekitError, match="QKV"):
        part_names(tiny(), {"packed": ("QKV",)})


def test_motion_is_split_into_what_decay_and_what_gradients_did(tmp_path):
    run, snapshots = run_tiny(tmp_path), by_hand()
    assert run.steps == [0, 4, 8]
    first, before, after = (together(snapshot, QK) for snapshot in snapshots)
    expected = {
        "norm": np.linalg.norm(after),
        "velocity": np.linalg.norm(after - before),
        "beyond_decay": np.linalg.norm(after - before * (1 - LR * WD) ** EVERY),
        "drift": np.linalg.norm(after - first),
        "displacement": np.linalg.norm(after - first) / np.linalg.norm(first),
    }
    for what, value in expected.items():
        assert run.at(8, "QK", what) == pytest.approx(value, rel=1e-3), what
    assert run.at(0, "QK", "beyond_decay") == run.at(0, "QK", "velocity") == 0
    assert math.isnan(run.at(5, "QK", "norm"))


def test_gradient_is_the_root_mean_square_of_pytorchs(tmp_path):
    run, model = run_tiny(tmp_path), tiny()
    tokens, labels = TASK.batch(np.random.default_rng(0), 16)
    F.cross_entropy(model(tokens)[:, -1], labels[:, 0]).backward()
    gradients: Any = [weights(model)[name].grad for name in QK]
    expected = torch.cat([g.flatten() for g in gradients]).square().mean().sqrt()
    assert run.at(0, "QK", "gradient") == pytest.approx(float(expected), rel=1e-3)


def test_entropy_is_that_of_the_pattern(tmp_path):
    run, model = run_tiny(tmp_path), tiny()
    with pk.attach(model, pk.Record("0.pattern")) as recorded:
        model(TASK.validation()[0])
    pattern = recorded["record"].values
    expected = -(pattern * pattern.log()).sum(-1).mean((0, 2)) / math.log(2)
    assert run.entropy.shape == (3, 4)
    assert run.entropy[0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_norms_of_heads_are_those_of_their_rows(tmp_path):
    run, last = run_tiny(tmp_path), by_hand()[-1]
    rows = torch.cat([last[name].view(4, 4 * 16) for name in QK], dim=1)
    assert run.head_norm.shape == (3, 4)
    assert run.head_norm[-1] == pytest.approx(rows.norm(dim=1).numpy(), rel=1e-3)
    assert np.linalg.norm(run.head_norm, axis=1) == pytest.approx(run.part("QK", "norm"))


def test_without_decay_all_motion_is_beyond_it(tmp_path):
    run = run_tiny(tmp_path, weight_decay=0.0)
    for part in ("QK", "MLP", "LN"):
        assert run.part(part, "beyond_decay").tolist() == run.part(part, "velocity").tolist()
    assert run.only_decays("QK") is None


class Killed(Exception):
    pass


def test_killed_and_resumed_it_logs_the_same(tmp_path, monkeypatch):
    log, calls = DriftTracker.log, []

    def killed_at_the_last(self, parameters):
        calls.append(parameters)
        if len(calls) == 3:  # after the checkpoint of the last step
            raise Killed
        return log(self, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(DriftTracker, "log", killed_at_the_last)
        with pytest.raises(Killed):
            run_tiny(tmp_path / "cut")
    assert len(DriftRun.read(tmp_path / "cut").rows) == 2
    assert run_tiny(tmp_path / "cut").rows == run_tiny(tmp_path / "whole").rows


def row(step: int, accuracy: float, norm: float, velocity: float, beyond: float) -> dict[str, Any]:
    own = {"norm": norm, "velocity": velocity, "beyond_decay": beyond, "drift": 3.0 * step}
    heads = {"entropy": [[0.5, 1.0]], "head_norm": [[norm, 2.0]]}
    return {"step": step, "accuracy": [accuracy], "parts": {"QK": own}, **heads}


def decaying(decay: float = 1e-2) -> DriftRun:
    """Accuracy 1 from step 30 on; only decay from step 60 on, of logs every 10 to 90."""
    return DriftRun(
        [
            row(step, float(step >= 30), (1 - decay) ** step, 1.0, 0.5 if step < 60 else 0.01)
            for step in range(0, 100, 10)
        ]
    )


def test_a_log_is_read():
    run = decaying()
    assert run.grokked == 30
    assert run.last_third == 70
    assert run.only_decays("QK") == 60
    assert run.decay_rate("QK", 70.0) == pytest.approx(-math.log(0.99))
    assert math.isnan(run.decay_rate("QK", 80.0))  # two logs
    assert math.isnan(run.decay_rate("QK", math.nan))
    assert run.entropy.tolist() == [[0.5, 1.0]] * 10
    used, uniform = run.heads(70.0, scale=2.0)
    assert (used.uniform, uniform.uniform) == (False, True)
    assert (used.from_uniform, used.norm) == (0.5, pytest.approx(0.99**90))
    assert (used.rate, uniform.rate) == (pytest.approx(-math.log(0.99) / 2), 0.0)
    assert all(math.isnan(head.rate) for begin in (80.0, math.nan) for head in run.heads(begin))


def test_what_follows_a_window_does_not_count():
    run = decaying()
    run.rows[-1] |= {"entropy": [[0.5, 0.1]], "head_norm": [[5.0, 7.0]]}
    run.rows[-1]["parts"]["QK"] |= {"norm": 5.0, "velocity": 9.0}
    assert run.decay_rate("QK", 60.0, 80.0) == pytest.approx(-math.log(0.99))
    assert run.velocity_ratio("QK", "QK", 60.0, 80.0) == 1
    used, uniform = run.heads(60.0, 80.0)
    assert (used.norm, uniform.norm, uniform.uniform) == (pytest.approx(0.99**80), 2.0, True)
    assert not run.heads(60.0)[1].uniform


def test_half_way_may_be_up_or_down():
    assert half_way([0, 1, 2, 3], [0.0, 0.4, 0.6, 1.0]) == 2
    assert half_way([0, 1, 2, 3], [1.0, 0.4, 0.9, 0.0]) == 1
    assert half_way([5, 6], [1.0, 1.0]) == 5
    assert decaying().settled("QK") == 50  # its drift grows by 3 a step to 270


def test_the_model_ends_with_the_weights_of_the_run(tmp_path):
    optimisation = Optimisation(STEPS, 16, LR, WD, log_every=EVERY)
    expected = by_hand()[-1]
    for _ in range(2):  # trained, then read back
        model = tiny()
        fit_with_drift(RunDir(tmp_path), model, TASK, optimisation, 3, title="", position=0)
        for name, tensor in weights(model).items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)


def test_velocities_are_compared_log_by_log():
    parts = [
        {"QK": {"velocity": one}, "OV": {"velocity": two}} for one, two in ((9.0, 1.0), (1.0, 2.0))
    ]
    run = DriftRun([{"step": i, "parts": each} for i, each in enumerate(parts)])
    assert run.velocity_ratio("QK", "OV", 0.0) == (9 + 0.5) / 2
    assert run.velocity_ratio("QK", "OV", 1.0) == 0.5
    assert math.isnan(run.velocity_ratio("QK", "OV", 2.0))


def test_a_rule_reads_every_so_many_logs():
    run = decaying()  # its drift grows by 3 a step: never stable
    assert math.isnan(run.answer(published_stable_step, "QK", 1))
    still = DriftRun([{**r, "parts": {"QK": {"drift": 1.0}}} for r in run.rows])
    assert still.answer(published_stable_step, "QK", 1) == 20
    assert still.answer(published_stable_step, "QK", 2) == 40


def test_a_run_that_never_grokked_has_no_last_third():
    run = DriftRun([{**r, "accuracy": [0.5]} for r in decaying().rows])
    assert math.isnan(run.grokked)
    assert math.isnan(run.last_third)
