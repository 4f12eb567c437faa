"""Drift against numpy, closed forms of weight decay, and the published rules."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import probekit as pk
from probekit.errors import ProbekitError
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import (
    DriftTracker,
    Stack,
    log_slope,
    parameter_displacement,
    parameter_distance,
    parameter_norm,
    published_onset_step,
    published_stabilisation_step,
    published_stable_step,
    train,
)

LR, WD = 1e-2, 0.5
PARTS = {"QK": ["q", "k"], "MLP": ["mlp"], "all": ["q", "k", "mlp", "gain"]}
SHAPES = {"q": (4, 3), "k": (4, 3), "mlp": (5,), "gain": ()}


def parameters(seed: int, run: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn((*run, *s), generator=generator) for name, s in SHAPES.items()}


def together(params, names, run=None):
    chosen = [params[name] if run is None else params[name][run] for name in names]
    return np.concatenate([tensor.double().numpy().ravel() for tensor in chosen])


@pytest.mark.parametrize("names", PARTS.values())
def test_norm_distance_and_displacement_are_those_of_one_vector(names):
    now, start = parameters(1), parameters(2)
    x, y = together(now, names), together(start, names)
    assert float(parameter_norm(now, names)) == pytest.approx(np.linalg.norm(x))
    assert float(parameter_distance(now, start, names)) == pytest.approx(np.linalg.norm(x - y))
    expected = np.linalg.norm(x - y) / np.linalg.norm(y)
    assert float(parameter_displacement(now, start, names)) == pytest.approx(expected)


@pytest.mark.parametrize("names", PARTS.values())
def test_stacked_runs_are_measured_one_by_one(names):
    now, start = parameters(1, (3,)), parameters(2, (3,))
    pairs = [(together(now, names, r), together(start, names, r)) for r in range(3)]
    norms, changes, relative = (
        measure(*given, names, stacked=True).tolist()
        for measure, given in (
            (parameter_norm, (now,)),
            (parameter_distance, (now, start)),
            (parameter_displacement, (now, start)),
        )
    )
    assert norms == pytest.approx([np.linalg.norm(x) for x, _ in pairs])
    assert changes == pytest.approx([np.linalg.norm(x - y) for x, y in pairs])
    assert relative == pytest.approx([np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in pairs])


def test_a_part_that_starts_at_0_is_infinitely_displaced():
    zero = {"b": torch.zeros(3)}
    assert float(parameter_displacement({"b": torch.ones(3)}, zero, ["b"])) == math.inf


def test_half_precision_is_measured_in_double():
    generator = torch.Generator().manual_seed(0)
    half = {"w": torch.randn(100, 100, generator=generator).bfloat16()}
    norm = parameter_norm(half, ["w"])
    assert norm.dtype == torch.float64
    assert float(norm) == pytest.approx(np.linalg.norm(together(half, ["w"])), rel=1e-12)


def test_weight_decay_alone_looks_like_a_freeze():
    """AdamW without a gradient: |theta| falls as (1 - lr wd)^t, and displacement ends at 1."""
    weight = torch.nn.Parameter(torch.randn(20, 20, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=LR, weight_decay=WD)
    tracker = DriftTracker({"w": weight}, {"QK": ["w"]})
    start, steps, rows = float(weight.detach().norm()), list(range(0, 2001, 100)), []
    for step in range(2001):
        if step % 100 == 0:
            rows.append({key: float(v) for key, v in tracker.log({"w": weight})["QK"].items()})
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    kept = (1 - LR * WD) ** 100
    norms = [start * kept**i for i in range(21)]
    assert [row["norm"] for row in rows] == pytest.approx(norms)
    assert [row["velocity"] for row in rows] == pytest.approx(
        [0.0] + [norm * (1 / kept - 1) for norm in norms[1:]]
    )
    assert [row["drift"] for row in rows] == pytest.approx([start - norm for norm in norms])
    assert rows[-1]["displacement"] == pytest.approx(1, abs=1e-4)
    slope = log_slope(steps, [row["norm"] for row in rows])
    assert slope.per_step == pytest.approx(math.log(1 - LR * WD))
    assert slope.per_step == pytest.approx(-LR * WD, rel=0.01)
    assert slope.standard_error < 1e-8


def test_the_tracker_compares_with_the_start_and_the_last_log():
    snapshots = [parameters(seed) for seed in range(4)]
    tracker = DriftTracker(snapshots[0], PARTS)
    tracker.log(snapshots[1])
    tracker.log(snapshots[2])
    row = tracker.log(snapshots[3])
    assert list(row) == list(PARTS)
    for part, names in PARTS.items():
        now, last, first = (together(snapshots[i], names) for i in (3, 2, 0))
        assert float(row[part]["norm"]) == pytest.approx(np.linalg.norm(now))
        assert float(row[part]["velocity"]) == pytest.approx(np.linalg.norm(now - last))
        assert float(row[part]["drift"]) == pytest.approx(np.linalg.norm(now - first))
        assert float(row[part]["displacement"]) == pytest.approx(
            np.linalg.norm(now - first) / np.linalg.norm(first)
        )


class Killed(Exception):
    pass


def one_run(folder, kill_at=None):
    model = pk.load("grokking", seed=0, d_vocab=12)
    stack = Stack([model, pk.load("grokking", seed=1, d_vocab=12)])
    names = list(stack.parameters)
    queries = [name for name in names if ".attn.q." in name or ".attn.k." in name]
    tracker = DriftTracker(stack.parameters, {"QK": queries, "all": names}, stacked=True)
    optimizer = torch.optim.AdamW(stack.parameters.values(), lr=1e-2)

    def update(step):
        if step == kill_at:
            raise Killed
        for parameter in stack.parameters.values():
            generator = torch.Generator().manual_seed(step)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()

    run = RunDir(folder)
    train(
        run,
        stack,
        optimizer,
        steps=10,
        update=update,
        log=lambda step: {"step": step, "drift": tracker.log(stack.parameters)},
        log_every=2,
        checkpoint_every=3,
        title="test",
        position=0,
        state=tracker.state,
    )
    return run.rows()


@pytest.mark.parametrize("kill_at", [2, 3, 5, 7, 9])
def test_a_killed_run_goes_on_with_the_same_drift(tmp_path, kill_at):
    rows = one_run(tmp_path / "whole")
    assert all(len(row["drift"]["QK"]["velocity"]) == 2 for row in rows)
    with pytest.raises(Killed):
        one_run(tmp_path / "killed", kill_at)
    assert one_run(tmp_path / "killed") == rows


def test_the_tracker_leaves_parameters_alone():
    model = pk.load("grokking", seed=0, d_vocab=12)
    own = weights(model)
    before = {name: tensor.detach().clone() for name, tensor in own.items()}
    tracker = DriftTracker(own, {"all": list(own)})
    with torch.no_grad():
        own["embed.weight" if "embed.weight" in own else next(iter(own))].add_(1)
    tracker.log(own)
    changed = [name for name in own if not torch.equal(own[name], before[name])]
    assert len(changed) == 1
    assert not any(tensor.requires_grad for tensor in tracker.state.values())


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=20),
    st.integers(1, 500),
)
def test_log_slope_is_least_squares(values, every):
    steps = [every * i for i in range(len(values))]
    found = log_slope(steps, values)
    design = np.stack([np.ones(len(values)), steps], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, np.log(values), rcond=None)
    assert found.per_step == pytest.approx(coefficients[1], rel=1e-6, abs=1e-12)
    residual = np.log(values) - design @ coefficients
    dof = len(values) - 2
    spread = (residual @ residual) / dof / np.square(steps - np.mean(steps)).sum()
    # Rounding of ln 1000 leaves residuals of 1e-15 where there should be none.
    assert found.standard_error == pytest.approx(math.sqrt(spread), rel=1e-4, abs=1e-7)
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(found.per_step, abs=1e-9)
    half = stats.t.isf(0.025, dof) * found.standard_error
    assert (high - low) / 2 == pytest.approx(half)


def test_what_does_not_move_has_slope_0():
    found = log_slope([0, 100, 200, 300], [5.1] * 4)
    assert (found.per_step, found.standard_error, found.interval) == (0.0, 0.0, (0.0, 0.0))


def test_the_interval_covers_as_often_as_it_says():
    generator, steps, inside = np.random.default_rng(0), list(range(0, 1000, 100)), 0
    for _ in range(400):
        noise = generator.normal(0, 0.1, 10)
        low, high = log_slope(steps, np.exp(-1e-3 * np.array(steps) + noise).tolist()).interval
        inside += low <= -1e-3 <= high
    assert abs(inside / 400 - 0.95) < 0.035


def test_the_published_stable_step_is_its_floor():
    steps = [0, 500, 1000, 1500, 2000, 2500]
    # About as published: 10 at the first log, 12.8 at 2,500; still rising, and "stable" at 1000.
    assert published_stable_step(steps, [0.0, 10.0, 10.7, 11.4, 12.1, 12.8]) == 1000
    assert published_stable_step(steps, [0.0] * 6) == 1000  # not earlier, either
    assert published_stable_step(steps, [0.0, 1.0, 4.0, 3.0, 2.0, 1.0]) == 1000
    assert published_stable_step(steps, [0.0, 1.0, 8.0, 14.0, 18.9, 30.0]) == 2000
    assert (
        published_stable_step(steps, [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]) is None
    )  # .01 is not below .01
    assert published_stable_step(steps[:2], [0.0, 0.0]) is None


def test_the_published_stabilisation_is_a_matter_of_distance():
    steps = list(range(0, 50_000, 500))
    # Constant speed: std of five logs is sqrt(2) of a log's growth, the mean that of the middle.
    drifts = [0.1 * i for i in range(100)]
    middle = next(i for i in range(1, 100) if math.sqrt(2) / i < 0.03)
    assert published_stabilisation_step(steps, drifts) == steps[middle + 2]
    growing = [1.02**i for i in range(100)]
    assert published_stabilisation_step(steps, growing) == steps[4]
    assert published_stabilisation_step(steps, [2.0**i for i in range(100)]) is None
    assert published_stabilisation_step(steps[:4], [1.0] * 4) is None
    assert published_stabilisation_step(steps[:6], [-1.0] * 6) == steps[4]


def test_the_published_onset_depends_on_the_rest_of_the_run():
    values = [1.0] * 10 + [1.4, 1.6, 1.8, 1.9, 2.0]
    steps = [500 * i for i in range(15)]
    # 1.5 times the 20th percentile, 1: the first value above 1.5.
    assert published_onset_step(steps, values) == 5500
    longer = values + [1.9] * 30
    assert published_onset_step([500 * i for i in range(45)], longer) == 7000
    assert published_onset_step(steps, [1.0] * 15) is None
    assert published_onset_step([], []) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: parameter_norm(p, ["qq"]),
            "unknown parameter 'qq'; valid: q, k, mlp, gain; closest: 'q'",
        ),
        (
            lambda p: DriftTracker(p, {"QK": ["q", "kk"]}),
            "unknown parameter 'kk'; valid: q, k, mlp, gain; closest: 'k'",
        ),
        (
            lambda p: parameter_norm(p, []),
            "a part needs a parameter at least, and stacked ones the same number of runs; given []",
        ),
        (
            lambda p: DriftTracker(p, {"QK": []}),
            "a part needs a parameter at least, and stacked ones the same number of runs; given []",
        ),
        (
            lambda p: DriftTracker(p, {}),
            "parts map a name to the names of its parameters; given none",
        ),
        (
            lambda p: parameter_norm(p, ["q", "mlp", "gain"], stacked=True),
            "a part needs a parameter at least, and stacked ones the same number of runs; given "
            "[[4], [5], []]",
        ),
        (
            lambda p: parameter_distance(p, {"q": p["q"].T}, ["q"], stacked=True),
            "'q' was [3, 4] and is [4, 3]; compare snapshots of one model",
        ),
        (
            lambda p: DriftTracker(p, PARTS).log({**p, "mlp": torch.zeros(6)}),
            "'mlp' was [5] and is [6]; compare snapshots of one model",
        ),
        (
            lambda p: log_slope([0, 100, 200], [1.0, 0.5, 0.0]),
            "log_slope needs three values at least, all positive, not [1.0, 0.5, 0.0]; leave out "
            "the logs where the value is 0",
        ),
        (
            lambda p: log_slope([0, 100], [1.0, 0.5]),
            "log_slope needs three values at least, all positive, not [1.0, 0.5]; leave out the "
            "logs where the value is 0",
        ),
        (
            lambda p: log_slope([0, 0, 100], [1.0, 0.5, 0.2]),
            "a log needs increasing steps with one value each, not 3 values at steps [0, 0, 100]",
        ),
        (
            lambda p: published_stable_step([0, 100], [1.0]),
            "a log needs increasing steps with one value each, not 1 values at steps [0, 100]",
        ),
        (
            lambda p: published_stabilisation_step([0], []),
            "a log needs increasing steps with one value each, not 0 values at steps [0]",
        ),
        (
            lambda p: published_onset_step([100, 0], [1.0, 2.0]),
            "a log needs increasing steps with one value each, not 2 values at steps [100, 0]",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call(parameters(0))
    assert str(error.value) == message
