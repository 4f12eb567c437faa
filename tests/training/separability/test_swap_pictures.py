"""What the figures of swaps draw."""

import matplotlib.pyplot as plt
import pytest

from probekit.training.separability.swap_pictures import (
    grouped_bars,
    learning_figure,
    similarity_figure,
    swap_figure,
)

TABLE = {"published, 1": {"B": [0.4, 0.6], "zero": [0.5, 0.7]}, "V": {"B": [0.1, 0.1]}}


def test_bars_are_means_and_a_missing_series_leaves_its_place():
    _, axis = plt.subplots()
    grouped_bars(axis, TABLE)
    bars = [bar for container in axis.containers for bar in container]
    assert [bar.get_height() for bar in bars] == pytest.approx([0.5, 0.1, 0.6])
    middles = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    assert middles == pytest.approx([-0.215, 0.785, 0.215])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["published\n1", "V"]
    plt.close("all")


def test_swaps_are_drawn_beside_chance_baseline_and_published():
    tables = {"bidirectional": TABLE, "causal": TABLE}
    figure = swap_figure(tables, dict.fromkeys(tables, 0.9), 0.02, {("published, 1", "B"): 0.47})
    first, second = figure.axes
    texts = {text.get_text() for text in first.get_legend().get_texts()}
    assert texts == {"B", "zero", "without a swap", "chance", "published"}
    marks = [line for line in first.lines if line.get_label() == "published"]
    assert [(list(m.get_xdata()), list(m.get_ydata())) for m in marks] == [([-0.215], [0.47])]
    assert not [line for line in second.lines if line.get_label() == "published"]
    plt.close("all")


def test_published_cosines_stand_on_their_bars():
    figure = similarity_figure({"causal": TABLE}, {("V", "B"): 0.3})
    (axis,) = figure.axes
    (mark,) = (line for line in axis.lines if line.get_label() == "published")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((0.785, 0.3))
    plt.close("all")


def test_learning_draws_the_chosen_runs_and_the_ceiling():
    rows = [{"step": step, "accuracy": [step / 10, step / 20, 1.0]} for step in (0, 5)]
    figure = learning_figure({"causal": [rows, rows]}, (0, 1), 0.75)
    (axis,) = figure.axes
    drawn = [list(line.get_ydata()) for line in axis.lines]
    assert drawn == [[0, 0.5], [0, 0.25], [0, 0.5], [0, 0.25], [0.75, 0.75]]
    plt.close("all")
