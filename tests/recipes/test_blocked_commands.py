"""What a blocked claim says to run: a whole command, which the command line takes."""

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from probekit import cli, recipes
from probekit.claims import decide_all
from probekit.hooked.cards import read_card
from probekit.paths import data_dir

LEDGER = [
    file
    for file in sorted(data_dir("results").glob("*/*.json"))
    if any(row["verdict"] == "blocked" for row in json.loads(file.read_text())["claims"])
]
NOTHING = {kind: [{"missing": "no weights"}] for kind in ("pretrained", "twin")}
RESULTS = {
    "cross-scale": {"minilm": {"missing": "no weights"}},
    **{
        name: {"t5-small": NOTHING, "minilm": NOTHING}
        for name in ("lerp", "lexical", "lexical-stability", "phase-boundary", "talk", "terrain")
    },
    "lerp-training": {"t5-wordnet": NOTHING, "minilm": NOTHING},
    "weight-battery": {"t5-small": NOTHING, "minilm": NOTHING},
}


@pytest.fixture
def config_of(monkeypatch):
    """The recipe's name and configuration that the command of a reason would run."""
    asked: list[Any] = []
    monkeypatch.setattr(recipes, "run", lambda *given: asked.append(given))

    def parse(reason: str) -> Any:
        assert reason.endswith("`")
        command = shlex.split(reason.rpartition("run `")[2].removesuffix("`"))
        assert command[:2] == ["probekit", "run"]
        assert cli.main(command[1:]) == 0
        recipe, config, preset, *_ = asked.pop()
        return recipe.NAME, preset, config

    return parse


def cards(config: Any) -> list[str]:
    fields = (getattr(config, name, ()) for name in ("models", "hosts", "encoders", "pairs"))
    named = itertools.chain(*(field for field in fields if isinstance(field, tuple)))
    return [card for each in named for card in each.split(">")]


@pytest.mark.parametrize("file", LEDGER, ids=lambda file: file.parent.name)
def test_commands_of_the_ledger(file, config_of) -> None:
    for row in json.loads(file.read_text())["claims"]:
        if row["verdict"] == "blocked":
            name, preset, config = config_of(row["reason"])
            assert (name, preset) == (file.parent.name, file.stem)
            for card in cards(config):
                read_card(card)  # there is such a model


@pytest.mark.parametrize("name", RESULTS)
def test_commands_where_no_weights_are_here(name, config_of) -> None:
    recipe = recipes.load(recipes.find(name))
    rows = decide_all(recipe.CLAIMS, RESULTS[name], Path(name, "quick"))
    assert rows and {row["verdict"] for row in rows} == {"blocked"}
    for row in rows:
        found, preset, config = config_of(row["reason"])
        assert (found, preset) == (name, "quick") and cards(config)


def test_commands_of_readings_that_the_models_here_do_not_have(config_of) -> None:
    battery, training = (
        recipes.load(recipes.find(name)) for name in ("weight-battery", "ep-training")
    )
    empty = [{"on text": {}, "position_bias": []}]
    silent = {"clip-vit-b16": {"pretrained": empty, "twin": empty}}
    claims = [claim for claim in battery.CLAIMS if claim.id in ("003-10", "003-21.text", "003-38")]
    rows = decide_all(claims, silent, Path("weight-battery/paper"))
    asked = [config_of(row["reason"])[2].models for row in rows]
    assert asked == [("t5-small",), ("minilm",), battery.Config.paper().models]
    (claim,) = (claim for claim in training.CLAIMS if claim.id == "001-Q1.onset")
    (row,) = decide_all([claim], {"none": {"onset": [[], []]}}, Path("ep-training/paper"))
    assert config_of(row["reason"])[2].high == 2 * training.Config.paper().high
