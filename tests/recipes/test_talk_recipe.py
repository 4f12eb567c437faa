"""The recipe on talking under modulation end to end, small."""

import json

import pytest

from probekit import recipes
from probekit.errors import RunError

pytestmark = pytest.mark.slow
RECIPE = recipes.load(recipes.find("talk"))
CONFIG = RECIPE.Config(glosses=3, alphas=(0.01, 0.29154, 0.5), seeds=(0, 1), examples=23, longest=8)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, wordnet):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, CONFIG, "small", out)
    return out / "talk" / "small", {claim["id"]: claim for claim in summary["claims"]}


def test_every_prompt_is_answered_at_every_alpha(finished) -> None:
    folder, claims = finished
    found = json.loads((folder / "t5-wordnet" / "seed-1" / "readings.json").read_text())
    for kind in RECIPE.KINDS:
        assert len(found[kind]) == (len(RECIPE.PROMPTS) + 3) * 3
        assert {said["alpha"] for said in found[kind]} == set(CONFIG.alphas)
    texts = {said["original"] for kind in RECIPE.KINDS for said in found[kind] if said["alpha"] < 1}
    assert len(texts) > 2
    # Shrinking knows no table, so no seed.
    other = json.loads((folder / "t5-wordnet" / "seed-0" / "readings.json").read_text())
    assert found["shrink only"] == other["shrink only"]
    assert set(claims) == {claim.id for claim in RECIPE.CLAIMS}
    assert claims["003-31"]["n"] == 2


def test_divergence_grows_with_alpha(finished) -> None:
    folder, _ = finished
    found = json.loads((folder / "t5-wordnet" / "seed-0" / "readings.json").read_text())
    for kind in RECIPE.KINDS:
        low, high = (
            RECIPE.average(lambda said: said["kl"], found[kind], alpha) for alpha in (0.01, 0.5)
        )
        assert 0 <= low < high
    assert (folder / "sweep-t5-wordnet.png").exists() and (folder / "report.html").exists()


def test_prompts_come_from_a_file(tmp_path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("summarize: a dog\n\n  summarize: a wolf \n")
    config = RECIPE.Config(prompts=str(file))
    assert config.texts(["not used"]) == ["summarize: a dog", "summarize: a wolf"]
    file.write_text("\n")
    with pytest.raises(RunError, match=r"holds no prompt; write one a line$"):
        config.texts([])
    with pytest.raises(RunError, match=r"^cannot read nowhere: .*; give --prompts a UTF-8 text"):
        RECIPE.Config(prompts="nowhere").texts([])
