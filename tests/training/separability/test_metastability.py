"""What is read of a log, and the exact tests of arms, by hand and against SciPy."""

import math

import pytest
from matplotlib import pyplot as plt
from scipy import stats

from probekit.training.separability.metastability import (
    Arms,
    Stability,
    published_tests,
    read_stability,
)
from probekit.training.separability.metastability_pictures import survival_figure, trajectory_figure

STEPS = [0, 10, 20, 30, 40]


def test_a_log_by_hand() -> None:
    found = read_stability(STEPS, [0.1, 0.96, 0.3, 0.92, 0.99])
    assert found == Stability(collapses=1, generalised=10, settled=0.75, good=0.75, final=0.99)
    assert found.stable
    lost = read_stability(STEPS, [0.1, 0.96, 0.97, 0.92, 0.4])
    assert lost == Stability(collapses=1, generalised=10, settled=None, good=0.75, final=0.4)
    assert not lost.stable
    never = read_stability(STEPS, [0.1, 0.2, 0.3, 0.2, 0.1])
    assert never == Stability(collapses=0, generalised=None, settled=None, good=None, final=0.1)


def run(stable: bool, collapses: int = 0, good: float | None = 0.5) -> Stability:
    return Stability(collapses, 10, 0.9 if stable else None, good, 1.0 if stable else 0.2)


ARMS = Arms(
    {
        "many": [run(True, 0, 0.9)] * 5 + [run(False, 1, 0.7)],
        "few": [run(True, 4)] + [run(False, 5, None)] * 5,
        "replicate": [run(True, 0, 0.9)] * 5 + [run(False, 1, 0.7)],
    }
)


def test_shares_and_counts() -> None:
    assert ARMS.stable("many") == pytest.approx(5 / 6)
    assert ARMS.stable("many", "few") == pytest.approx(0.5)
    assert ARMS.good("many") == pytest.approx((5 * 0.9 + 0.7) / 6)
    assert ARMS.good("few") == 0.5  # of the only run that generalised
    assert math.isnan(Arms({"none": [run(False, 0, None)]}).good("none"))
    assert ARMS.collapses("few") == pytest.approx(29 / 6)
    assert ARMS.collapsing("many") == [pytest.approx(1 / 6)]


def test_exact_tests_are_scipys_and_one_sided_differences_are_not_claimed_backwards() -> None:
    p = stats.fisher_exact([[5, 1], [1, 5]])[1]
    assert ARMS.differ("many", "few")["stable"] == pytest.approx(p)
    assert ARMS.differ("many", "replicate") == {"stable": 1, "collapses": 1, "last accuracy": 1}
    # Six zeros and ones against fours and fives: only the two extreme ways to deal twelve values.
    assert ARMS.differ("many", "few")["collapses"] == pytest.approx(2 / math.comb(12, 6), rel=0.2)
    assert ARMS.differ_in("stable", "many", "few") == [pytest.approx(p)]
    assert math.isnan(ARMS.differ_in("stable", "few", "many")[0])
    assert ARMS.differ_in("collapses", "many", "few")[0] < 0.01
    assert math.isnan(ARMS.differ_in("collapses", "few", "many")[0])
    pooled = stats.fisher_exact([[5, 1], [6, 6]])[1]
    assert ARMS.differ_in("stable", "many", "few", "replicate") == [pytest.approx(pooled)]
    assert ARMS.least_p("many", "few", "replicate") == [min(ARMS.differ("many", "few").values())]


def test_what_was_published_does_not_differ() -> None:
    assert [row["p"] for row in published_tests()] == ["0.61", "0.36", "1.00", "1.00"]
    one_sided = stats.fisher_exact([[4, 4], [2, 6]], alternative="greater")[1]
    assert float(one_sided) == pytest.approx(0.304, abs=1e-3)  # printed there as .31


def test_tables_and_figures_show_every_arm() -> None:
    assert [row["stable"] for row in ARMS.rows()] == ["5 of 6", "1 of 6", "5 of 6"]
    rows = ARMS.tests("many", {"few": "all", "replicate": "nothing"})
    assert [row["differ in"] for row in rows] == ["all", "nothing"]
    logs = {name: [{"steps": STEPS, "accuracy": [0.1] * 5}] * 6 for name in ARMS.runs}
    for figure, titles in ((trajectory_figure(logs), 4), (survival_figure(ARMS), 2)):
        assert len(figure.axes) == titles - (titles == 4)
        plt.close(figure)
    settled = survival_figure(ARMS).axes[0].lines[0].get_ydata()
    assert list(settled) == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 1 / 6])
    plt.close("all")
