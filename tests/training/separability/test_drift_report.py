"""Figures and tables of drift hold the numbers of the log, and the closed forms beside them."""

import math
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from probekit.training import DriftRun, Head, interval_text
from probekit.training.separability.drift_pictures import (
    SHOWN,
    attention_figure,
    decayed,
    displacement_figure,
    heads_figure,
    norm_figure,
    progress_figure,
    rule_figure,
    velocity_figure,
)
from probekit.training.separability.drift_tables import (
    attention_row,
    half_way_rows,
    head_rows,
    last_row,
    made_up_rows,
    part_rows,
    rule_row,
)

DECAY = 0.01
STEPS = range(0, 60, 10)


def moved(step: int, scale: float) -> dict[str, float]:
    """Of a part that decays."""
    norm = scale * (1 - DECAY) ** step
    return {
        "norm": norm,
        "velocity": norm / (1 - DECAY) ** 10 - norm if step else 0.0,
        "beyond_decay": 0.0,
        "drift": scale - norm,
        "displacement": 1 - norm / scale,
        "gradient": 1e-3,
    }


def run_of(scale: float) -> DriftRun:
    rows: list[dict[str, Any]] = [
        {
            "step": step,
            "accuracy": [float(step >= 20)],
            "train_accuracy": [1.0],
            "parts": {part: moved(step, scale) for part in (*SHOWN, "QKV")},
            "entropy": [[1.0, 1 - 0.01 * scale]],
        }
        for step in STEPS
    ]
    return DriftRun(rows)


RUNS = [run_of(2.0), run_of(4.0)]
ARMS = {"decay": RUNS, "no-decay": RUNS[:1]}
RATES = {"decay": DECAY, "no-decay": 0.0}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def lines(figure, label: str, panel: int = 0) -> np.ndarray:
    found = [line for line in figure.axes[panel].lines if line.get_label() == label]
    assert len(found) == 1, [line.get_label() for line in figure.axes[panel].lines]
    return np.array(found[0].get_xydata())


def test_norms_stand_beside_decay_alone():
    figure = norm_figure(ARMS, RATES, 20)
    seed = lines(figure, "QK")
    assert seed[:, 1] == pytest.approx([2 * 0.99**step for step in STEPS])
    assert lines(figure, "decay alone")[:, 1] == pytest.approx(seed[:, 1])
    assert lines(figure, "decay alone", panel=1)[:, 1] == pytest.approx([2.0] * len(STEPS))


def test_the_velocity_of_decay_is_that_of_a_part_that_only_decays():
    figure = velocity_figure({"decay": RUNS[:1]}, RATES, 20)
    alone, seed = lines(figure, "decay alone"), lines(figure, "QK")
    assert alone[:, 0].tolist() == [20, 30, 40, 50]
    assert alone[:, 1] == pytest.approx(seed[2:, 1])


def test_without_decay_no_velocity_of_decay_is_drawn():
    figure = velocity_figure(ARMS, RATES, 20)
    assert "decay alone" not in [line.get_label() for line in figure.axes[1].lines]


def test_displacement_and_attention_have_their_references():
    figure = displacement_figure(ARMS)
    assert lines(figure, "decayed to 0")[:, 1].tolist() == [1, 1]
    figure = attention_figure(ARMS, range(42, 42 + len(RUNS)))
    assert lines(figure, "uniform attention")[:, 1].tolist() == [1, 1]
    assert lines(figure, "seed 42, by head")[:, 1].tolist() == [1.0] * len(STEPS)
    legend: Any = figure.axes[-1].get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert sorted(names) == sorted(set(names)) and "90 % held-out accuracy" in names


def circles(figure) -> list[Any]:
    marked = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    return [np.ravel(line.get_xydata()) for line in marked if len(line.get_xdata())]


def test_the_rule_is_marked_where_it_answers():
    figure = rule_figure({"decay": RUNS[:1]}, ("QKV", "QK"), 2)
    # Logs 0, 20 and 40: it grows by 2 * (.99**20 - .99**40) / 20, or .015 a step, so never stable.
    assert circles(figure) == []
    figure = rule_figure({"decay": [run_of(1.0)]}, ("QKV",), 2)
    assert circles(figure) == [pytest.approx([40, 1 - 0.99**40])]


def test_decay_alone_is_a_power():
    assert decayed(2.0, 0.5, np.array([0, 1, 3])).tolist() == [2.0, 1.0, 0.25]


def test_a_part_that_only_decays_moves_by_its_share():
    row = last_row(RUNS, "QK")
    assert row["norm at start"] == 3
    assert row["norm"] == pytest.approx(3 * 0.99**50, rel=1e-3)
    assert row["velocity / norm"] == pytest.approx(1 - 0.99**10, rel=1e-3)
    assert row["only decays from"] == "0, 0"


def test_rules_and_attention_are_given_seed_by_seed():
    row = rule_row([run_of(2.0), run_of(1.0)], "QK", 2)
    assert list(row.values()) == ["QK", "-, 40", "-, -"]
    row = attention_row(RUNS)
    assert row["accuracy .90 at"] == "20, 20"
    assert row["at the end"] == interval_text([0.98, 0.96])
    assert row["uniform attention"] == 1


def test_half_way_is_where_half_the_last_drift_is_reached():
    # 1 - .99**step, to step 50: .395, half of which is passed between 20 (.182) and 30 (.260).
    rows = half_way_rows(ARMS, ["QK", "QKV"])
    assert [row["part"] for row in rows] == ["QK", "QKV", "accuracy"]
    assert [row["no-decay"] for row in rows] == ["0.600", "0.600", "0.400"]
    assert rows[0]["decay"] == interval_text([0.6, 0.6])
    less = half_way_rows(ARMS, ["QK"], less="QK")
    assert [row["no-decay"] for row in less] == ["0.000", "-0.200"]


def test_rules_on_series_of_a_known_course():
    answers = {row["series"]: list(row.values())[1:] for row in made_up_rows()}
    # std / mean of five logs is sqrt(2) / i about log i, below .03 from i = 48 on: never in 41.
    assert answers["constant speed"] == ["-", "-", "25"]
    # About sqrt(2) / 2 / i for a square root: i = 24, the last of its five logs is 26.
    assert answers["random walk, sqrt(t)"] == ["-", "26", "25"]
    assert answers["a jump"] == ["2", "14", "-"]


def test_progress_is_a_share_of_the_last_drift():
    figure = progress_figure(ARMS, ["QK"])
    last = 1 - 0.99**50
    expected = [(1 - 0.99**step) / last for step in STEPS]
    assert lines(figure, "QK")[:, 1] == pytest.approx(expected)
    assert lines(figure, "validation accuracy")[:, 1].tolist() == [0, 0, 1, 1, 1, 1]


def test_heads_are_points_between_decay_and_a_norm_that_is_kept():
    heads = [[Head(0.0, 0.1, 1.0), Head(0.5, 2.0, 0.1)], [Head(1e-4, 0.2, 0.9)]]
    figure = heads_figure({"decay": heads})
    assert lines(figure, "decay").tolist() == [[1e-8, 1.0], [0.5, 0.1], [1e-4, 0.9]]
    assert lines(figure, "decay alone")[:, 1].tolist() == [1, 1]
    assert lines(figure, "norm kept")[:, 1].tolist() == [0, 0]
    nowhere = heads_figure({"decay": [[Head(math.nan, 0.1, math.nan)]]})  # it never grokked
    nowhere.canvas.draw()


def test_every_arm_part_and_head_has_a_row():
    rows = part_rows(ARMS, ["QK", "OV"], last_row)
    names = [("decay", "QK"), ("decay", "OV"), ("no-decay", "QK"), ("no-decay", "OV")]
    assert [(row["arm"], row["part"]) for row in rows] == names
    rows = head_rows({"decay": {7: [Head(0.0, 0.1, 1.0), Head(0.5, 2.0, 0.123456)]}})
    assert [row["uniform"] for row in rows] == ["yes", "no"]
    assert list(rows[1].values()) == ["decay", 7, 1, 0.5, "no", 2.0, 0.1235]
