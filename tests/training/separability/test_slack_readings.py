"""Readings of networks whose course is written by hand; a number a seed."""

import pytest

from probekit.training.separability.slack_readings import (
    largest_cosine,
    learned,
    rows_of,
    solves_apart,
)


def network(accuracy, cosine):
    return {"accuracy": accuracy, "cosine": cosine, "linear CKA": [0.9, 0.9, 0.9, 0.1]}


def test_a_solution_apart_is_right_as_its_anchor_is_and_unlike_it() -> None:
    found = {
        "alike": {
            "anchor": network([1.0, 1.0, 0.9, 1.0], [1.0] * 4),
            "probe": network([0.96, 0.95, 1.0, 1.0], [0.49, 0.0, 0.0, -0.51]),
        }
    }
    assert solves_apart(found, "probe") == [1.0, 0.0, 0.0, 0.0]
    assert solves_apart(found, "probe", "linear CKA") == [0.0, 0.0, 0.0, 1.0]
    assert solves_apart(found, "probe", apart=0.6) == [1.0, 0.0, 0.0, 1.0]


def row(cosine, anchor, probe):
    steps = [str(100 * i) for i in range(len(probe))]
    curves = {
        "anchor": {**dict(zip(steps, anchor, strict=True)), "1000": [9.0, 9.0]},
        "probe": dict(zip(steps, probe, strict=True)),
    }
    return {"alike": {"probe": {"cosine": cosine}}, "curves": curves}


def test_learning_is_the_median_of_the_probes_last_five_logs() -> None:
    anchor = [[0.0, 0.0]] * 2 + [[1.0, 0.2]] * 4
    probe = [[0.0, 0.0], [0.7, 0.8], [0.8, 0.8], [0.9, 0.8], [0.1, 0.8], [1.0, 0.8]]
    assert learned(row([0.0], anchor, probe)) == pytest.approx([0.8, 0.2])


def test_the_largest_cosine_is_over_rows_and_in_amount() -> None:
    none = [[0.0, 0.0]]
    deep = {
        "untrained": {"cosine": [0.9, 0.9]},
        "short": row([0.1, -0.3], none, none),
        "long": row([-0.2, 0.1], none, none),
    }
    assert list(rows_of(deep)) == ["short", "long"]
    assert largest_cosine(deep) == pytest.approx([0.2, 0.3])
