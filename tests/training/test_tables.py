"""Gathered numbers keep their order; intervals are Student's."""

import numpy as np
import pytest
from scipy import stats

import probekit as pk
from probekit.training import gather, interval_rows, interval_text


def test_leaves_become_lists_in_the_order_of_the_runs():
    found = [{"swaps": {"V": {"B": seed / 10}}, "log": [seed]} for seed in range(3)]
    assert gather(found) == {"swaps": {"V": {"B": [0.0, 0.1, 0.2]}}, "log": [[0], [1], [2]]}


def test_other_keys_are_refused():
    with pytest.raises(pk.ProbekitError) as raised:
        gather([{"a": {"x": 1}}, {"a": {"y": 1}}])
    assert str(raised.value) == "gather needs the same keys in all, not x and y"


def test_intervals_are_those_of_a_t_test():
    values = np.array([0.148, 0.131, 0.17, 0.155])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    half = (high - low) / 2
    assert interval_text(values.tolist()) == f"{values.mean():.3f}±{half:.3f}"
    assert interval_text([0.25]) == "0.250"


def test_a_series_that_a_label_lacks_is_left_empty():
    table = {"Q": {"B": [0.5, 0.5], "aligned": [1.0]}, "V": {"B": [0.0]}}
    assert interval_rows(table, "swapped") == [
        {"swapped": "Q", "B": "0.500±0.000", "aligned": "1.000"},
        {"swapped": "V", "B": "0.000", "aligned": ""},
    ]
