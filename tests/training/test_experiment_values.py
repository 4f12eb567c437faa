"""Tables of an experiment, from runs that were written by hand."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from probekit.training import ConditionRun
from probekit.training.experiment import (
    Results,
    final_values,
    gradient_rows,
    slope_row,
    target_row,
    without_gradient,
)

TARGETS = (0.4, 0.5, 0.7)
NAMES = ("low", "middle", "high")
#: Final values [seed, target]: the corrected arm's VDI rises with its targets, the other falls.
PUBLISHED = np.array([[0.52, 0.50, 0.47], [0.51, 0.50, 0.48]])
CORRECTED = np.array([[0.41, 0.50, 0.66], [0.42, 0.49, 0.71]])
FINALS = {"published": PUBLISHED, "corrected": CORRECTED}


def _run(vdi: float, visible: float, accuracy: float = 1.0, **norms: Any) -> ConditionRun:
    """Two heads at rest around two means; ``norms`` at the second of three log rows.

    Its weights are 0.5 of convergence and 0.25 of the set-point.
    """
    rows: list[dict[str, Any]] = [
        {
            "step": step,
            "vdi": [vdi - 0.01, vdi + 0.01],
            "vdi_visible": [visible - 0.02, visible + 0.02],
            "test_accuracy": accuracy * step / 200,
        }
        for step in (0, 100, 200)
    ]
    rows[1].update(norms)
    losses = {"convergence": 0.5, "set_point": 0.25, "compensation": 0.2}
    config = {"config": {"condition": {"losses": losses}}}
    return ConditionRun(rows, {"windows": {"in_training": None}}, config=config)


def _results(control: float = 0.3) -> Results:
    runs = {
        name: [
            _run(*pair, accuracy)
            for *pair, accuracy in zip(PUBLISHED[:, at], CORRECTED[:, at], (0.8, 0.9), strict=True)
        ]
        for at, name in enumerate(NAMES)
    }
    return {**runs, "none": [_run(control, control + 0.01), _run(control, control + 0.02)]}


@pytest.mark.parametrize("arm", FINALS)
def test_each_arm_reads_the_vdi_that_its_losses_read(arm: str) -> None:
    np.testing.assert_allclose(final_values(_results(), NAMES, arm), FINALS[arm])


@pytest.mark.parametrize("arm", FINALS)
def test_a_slope_row_is_least_squares_over_seeds_and_all_shuffles(arm: str) -> None:
    finals = FINALS[arm]
    slopes = [stats.linregress(TARGETS, row).slope for row in finals]
    orders = [
        [stats.linregress(TARGETS, order).slope for order in itertools.permutations(row)]
        for row in finals
    ]
    null = [np.mean(pair) for pair in itertools.product(*orders)]
    low, high = stats.ttest_1samp(slopes, 0).confidence_interval()
    row = slope_row(arm, TARGETS, _results(), NAMES)
    assert row == {
        "arm": arm,
        "final VDI": ", ".join(f"{value:.3f}" for value in finals.mean(0)),
        "slope": pytest.approx(np.mean(slopes)),
        "95 % interval": f"{low:.3f} to {high:.3f}",
        "if shuffled": "{:.3f} to {:.3f}".format(*np.quantile(null, [0.025, 0.975])),
        "p": pytest.approx(np.mean(np.abs(null) >= abs(np.mean(slopes)) - 1e-12)),
        "accuracy": pytest.approx(0.85),
    }


def test_a_target_row_compares_with_the_runs_without_terms() -> None:
    published = target_row("published", TARGETS, _results(), NAMES, "none")
    corrected = target_row("corrected", TARGETS, _results(), NAMES, "none")
    assert published["without terms"] == pytest.approx(0.3)
    assert corrected["without terms"] == pytest.approx(0.315)
    assert corrected["slope"] == slope_row("corrected", TARGETS, _results(), NAMES)["slope"]
    # Two targets a half, so that a slope is a difference: means over seeds.
    lower, upper = 0.08 / 0.1, (0.16 + 0.22) / 2 / 0.2
    assert corrected["high / low"] == pytest.approx(upper / lower)


def test_the_outcome_of_a_flat_series_depends_on_the_runs_without_terms() -> None:
    same = np.repeat([[0.42], [0.45]], 3, axis=1)

    def outcome(control: float) -> str:
        flat = {name: [_run(v, v) for v in same[:, at]] for at, name in enumerate(NAMES)}
        none = [_run(v + control, v + control) for v in same[:, 0]]
        return target_row("corrected", TARGETS, {**flat, "none": none}, NAMES, "none")["outcome"]

    assert outcome(0.0) != outcome(-0.3)


def _norms(task: float, convergence: float, set_point: float) -> dict[str, float]:
    return {"task": task, "convergence": convergence, "set_point": set_point}


def test_gradient_rows_hold_the_largest_over_seeds_as_weighted() -> None:
    attached = "attached_gradient_norms"
    runs = [
        _run(0.5, 0.5, gradient_norms=_norms(3.0, 0.0, 0.2), **{attached: _norms(0.0, 0.5, 0.6)}),
        _run(0.5, 0.5, gradient_norms=_norms(1.0, 0.1, 0.0), **{attached: _norms(0.0, 0.7, 0.4)}),
    ]
    (row,) = gradient_rows({"one": runs})
    assert row["condition"] == "one"
    assert (row["|grad task|"], row["|grad compensation|"]) == (3.0, 0.0)
    assert (row["|grad convergence|"], row["|grad set_point|"]) == pytest.approx((0.05, 0.05))
    live = (row["convergence, if attached"], row["set_point, if attached"])
    assert live == pytest.approx((0.35, 0.15))


@pytest.mark.parametrize(
    ("last", "none"),
    [((2.0, 0.0, 0.0), True), ((2.0, 1e-9, 0.0), False), ((2.0, 0.0, 1e-9), False)],
)
def test_without_gradient_means_in_no_term_of_no_run(last, none: bool) -> None:
    still = _run(0.5, 0.5, gradient_norms=_norms(2.0, 0.0, 0.0))
    results = {"a": [still, still], "b": [still, _run(0.5, 0.5, gradient_norms=_norms(*last))]}
    assert without_gradient(results, ["a", "b"]) is none
    assert without_gradient(results, ["a"])
