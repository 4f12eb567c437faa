"""Units of recipes: which models are here, and numbers by their paths."""

import math

import pytest

from probekit.claims import Blocked
from probekit.terrain.presenting import present_models
from probekit.terrain.units import (
    PRETRAINED,
    collect_kinds,
    known,
    number,
    read_or_missing,
    reading,
)

HERE = {"pretrained": [{"a": {"b": 2}}], "twin": [{"a": {"b": 3}}, {"a": {"b": None}}]}
RESULTS = {"minilm": HERE, "t5-small": {"pretrained": [{"missing": "no weights"}], "twin": []}}


def test_numbers_are_read_of_every_model_that_is_here() -> None:
    assert reading("a", "b")(RESULTS) == [2]
    first, second = reading("a", "b", kind="twin")(RESULTS)
    assert first == 3 and math.isnan(second)
    assert number({"a": {"b": 1}}, ("a", "b")) == 1


def test_a_model_that_is_not_here_blocks_and_says_why() -> None:
    missing = RESULTS["t5-small"]
    for results, model, why, options in (
        (RESULTS, "t5-small", "no weights", "--models t5-small"),
        (RESULTS, "bert-large", "bert-large is not among --models", "--models bert-large"),
        ({"a": missing, "b": missing}, None, "no weights; no weights", "--models a b"),
    ):
        with pytest.raises(Blocked) as blocked:
            known(results, model)
        assert (str(blocked.value), blocked.value.options) == (why, options)
    with pytest.raises(Blocked) as blocked:
        known({"t5-small": missing}, option="--hosts")
    assert blocked.value.options == "--hosts t5-small"


def test_weights_that_were_missing_are_looked_for_again(tmp_path, minilm_folder) -> None:
    def read(entry: str, value: int) -> dict:
        read_or_missing(entry, "pretrained", tmp_path, lambda model, tokenizer: {"value": value})
        return collect_kinds([(entry, "pretrained")], tmp_path)["minilm"]["pretrained"][0]

    nowhere, folder = f"minilm={tmp_path / 'nowhere'}", f"minilm={minilm_folder}"
    assert "nowhere" in read(nowhere, 1)["missing"]
    assert read(folder, 2) == {"value": 2}
    assert read(folder, 3) == {"value": 2}


def test_a_table_without_rows_is_not_shown(tmp_path) -> None:
    results = {"minilm": {PRETRAINED: [{}]}}
    tables = {"losses of decoders": [], "ends": [{"alpha": 0.5}]}
    present_models(
        "A title", "", [], results, tmp_path, tables=lambda here: tables, figures=lambda kinds: {}
    )
    page = (tmp_path / "report.html").read_text()
    assert "ends" in page and "losses of decoders" not in page
