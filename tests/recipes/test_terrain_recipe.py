"""The recipe on embeddings and layers end to end, with fewer draws."""

from typing import Any

import pytest

from probekit import recipes
from probekit.terrain import table

RECIPE: Any = recipes.load(recipes.find("terrain"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, minilm_folder):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("COSINE_ROWS", 300), ("SIMPLICES", 100), ("DISTANCE_ROWS", 100)):
            patch.setattr(table, name, value)
        out = tmp_path_factory.mktemp("runs")
        config = RECIPE.Config(models=(f"minilm={minilm_folder}", "t5-small=nowhere"), sets=10)
        summary = recipes.run(RECIPE, config, "small", out)
    return out / "terrain" / "small", {claim["id"]: claim for claim in summary["claims"]}


def test_pretrained_weights_use_half_the_dimensions_and_random_ones_all(finished) -> None:
    claim = finished[1]["003-01"]
    assert claim["measured"] == pytest.approx(0.5336, abs=1e-4)
    assert claim["null"] == pytest.approx(1 / (1 + 384 / 30522), rel=1e-3)
    assert claim["verdict"] == "reproduced"


def test_what_is_not_here_is_blocked_and_says_what_to_run(finished) -> None:
    claims = finished[1]
    for id_ in ("003-01.qwen", "003-08"):
        assert claims[id_]["verdict"] == "blocked"
    command = "run `probekit run terrain --preset small --models"
    assert claims["003-01.qwen"]["reason"].endswith(f"; {command} qwen3.5-0.8b`")
    assert claims["003-08"]["reason"].endswith(f"; {command} t5-small`")


def test_the_page_shows_the_model_that_is_here(finished) -> None:
    folder, _ = finished
    assert (folder / "terrain-minilm.png").stat().st_size > 20_000
    assert "minilm: volumes" in (folder / "report.html").read_text()


def test_without_any_weights_everything_is_blocked(tmp_path) -> None:
    config = RECIPE.Config(models=("t5-small=nowhere",))
    summary = recipes.run(RECIPE, config, "none", tmp_path)
    assert {claim["verdict"] for claim in summary["claims"]} == {"blocked"}
    assert "nowhere" in summary["claims"][0]["reason"]
