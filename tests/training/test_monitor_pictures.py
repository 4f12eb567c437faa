"""What the monitor's figures draw: the numbers of the log, and their nulls."""

import math
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest

from probekit.training import ConditionRun
from probekit.training.monitor_pictures import kill_figure, length_figure, norms_figure, rows_figure

STEPS = [0, 10, 20]
ROWS = [
    {
        "step": step,
        "vdi_by_query": [[0.0, 0.1, 0.2 + step], [0.0, 0.3, 0.4 + step]],
        "norms": {"W_Q": 2.0 - step / 20, "W_K": 3.0},
    }
    for step in STEPS
]
TESTS = [{"step": 10, "stale": 0.1, "fresh": 0.0, "undisturbed": 0.1}]
RUN = ConditionRun(ROWS, {"kill_tests": TESTS})


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def _lines(figure):
    return [line.get_xydata().tolist() for line in figure.axes[0].lines]


def _labels(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_rows_are_means_over_heads_each_with_uniform_attention():
    lines = _lines(rows_figure(RUN))
    assert lines[4] == [[step, pytest.approx(0.3 + step)] for step in STEPS]
    nulls = [ends[0][1] for ends in lines[1::2]]
    assert nulls == pytest.approx([0, math.log(2) / math.log(3), 1])


def test_norms_decay_from_the_start_and_from_half_way():
    figure = norms_figure({5: RUN}, decay=0.1)
    query, key, start, half_way = _lines(figure)
    assert query == [[0, 2.0], [10, 1.5], [20, 1.0]]
    assert key == [[step, 3.0] for step in STEPS]
    np.testing.assert_allclose(start, [[0, 2], [10, 2 * math.exp(-1)], [20, 2 * math.exp(-2)]])
    np.testing.assert_allclose(half_way, [[10, 1.5], [20, 1.5 * math.exp(-1)]])
    assert _labels(figure) == ["W_Q, seed 5", "W_K, seed 5", "exp(-lr wd t)"]


def test_kill_tests_are_named_once_for_all_runs():
    figure = kill_figure([RUN, RUN], (0.13, 0.17))
    assert _lines(figure) == [[[10, 0.1]], [[10, 0.0]], [[10, 0.1]]] * 2
    assert _labels(figure) == [
        "as published, stale baseline",
        "fresh baseline",
        "stale baseline, no head scaled",
        "published range",
    ]


def test_lengths_are_the_closed_form_and_the_published_points():
    uniform, _, points = _lines(length_figure({6: 0.612, 32: 0.735}))
    assert uniform[4] == [6, pytest.approx(math.log(720) / (6 * math.log(6)))]
    assert points == [[6, 0.612], [32, 0.735]]
