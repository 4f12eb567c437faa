"""The recipe on field modulators end to end, small."""

import json

import pytest

from probekit import recipes
from probekit.modulators import load_modulator

pytestmark = pytest.mark.slow
RECIPE = recipes.load(recipes.find("field-modulator"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, wordnet, minilm_folder):
    config = RECIPE.Config(read=f"minilm={minilm_folder}", examples=24, epochs=1, shown=8)
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, config, "small", out)
    return out / "field-modulator" / "small", {c["id"]: c for c in summary["claims"]}


def test_what_needs_no_training(finished) -> None:
    _, claims = finished
    assert claims["003-32"]["measured"] == 38_552 and claims["003-32"]["verdict"] == "reproduced"
    assert claims["003-33"]["measured"] == pytest.approx(1.0755 / 0.9438 - 1, abs=2e-4)
    assert claims["003-33"]["null"] < 1e-12
    assert claims["003-34"]["verdict"] == "explained by null"
    assert claims["003-34.k1"]["measured"] == 0 and claims["003-34.k4"]["measured"] > 1e-3
    assert claims["003-35"]["null"] == pytest.approx(0.6094, abs=1e-4)
    assert abs(claims["003-35"]["measured"] - 0.21) > 0.05


def test_every_arm_is_trained_from_its_start_and_saved(finished) -> None:
    folder, claims = finished
    for arm, options in RECIPE.ARMS.items():
        for seed in (0, 1):
            run = folder / arm.replace(", ", "-") / f"seed{seed}"
            module = load_modulator(run / "modulator")
            assert module.config["gate"] == options["gate"] and module.config["seed"] == seed
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            assert rows[0]["alpha"][0] == pytest.approx([options["alpha"]] * 3)
            assert rows[-1]["alpha"] == json.loads((run / "readings.json").read_text())["alpha"]
    assert claims["003-34.trained"]["n"] == 2
    assert {file.stem for file in folder.glob("*.png")} == {"training", "alpha", "gates", "check"}
