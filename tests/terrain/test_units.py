"""Units of recipes: which models are here, and numbers by their paths."""

import math

import pytest

from probekit.claims import Blocked
from probekit.terrain.units import known, number, reading

HERE = {"pretrained": [{"a": {"b": 2}}], "twin": [{"a": {"b": 3}}, {"a": {"b": None}}]}
RESULTS = {"minilm": HERE, "t5-small": {"pretrained": [{"missing": "no weights"}], "twin": []}}


def test_numbers_are_read_of_every_model_that_is_here() -> None:
    assert reading("a", "b")(RESULTS) == [2]
    first, second = reading("a", "b", kind="twin")(RESULTS)
    assert first == 3 and math.isnan(second)
    assert number({"a": {"b": 1}}, ("a", "b")) == 1


def test_a_model_that_is_not_here_blocks_and_says_why() -> None:
    with pytest.raises(Blocked, match="no weights; run with `--models t5-small=FOLDER`"):
        known(RESULTS, "t5-small")
    with pytest.raises(Blocked, match="bert-large is not among --models"):
        known(RESULTS, "bert-large")
    with pytest.raises(Blocked, match="no weights"):
        known({"t5-small": RESULTS["t5-small"]})
