"""The recipe on sedation end to end, small."""

import json

import pytest

from probekit import recipes

SMALL = {
    "seeds": (0, 1),
    "steps": 30,
    "leak_free_steps": 20,
    "frozen_steps": 8,
    "targets": (8.0, 4.0, 2.0),
    "sigmas": (1.0, 2.0),
    "draws": 2,
    "examples": 40,
}
RECIPE = recipes.load(recipes.find("sedation"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, RECIPE.Config(**SMALL), "small", out)
    return out / "sedation" / "small", summary


def found(folder, arm, seed=0):
    return json.loads((folder / f"seed{seed}" / arm / "readings.json").read_text())


def test_every_setting_is_read(finished) -> None:
    folder, _ = finished
    for arm, ways in (("bidirectional", RECIPE.WAYS), ("causal", ("norm",))):
        settings = found(folder, arm)["settings"]
        assert set(settings) == {"none", *ways}
        for way in ways:
            assert list(settings[way]) == ["8", "4", "2"]
            assert all(list(each) == ["0", "1", "2"] for each in settings[way].values())
    padded = found(folder, "bidirectional")["padded"]
    assert sum(map(len, padded["norm"].values())) == 11
    assert sum(map(len, padded["none"].values())) == 3


def test_clean_clamps_are_their_algebra(finished) -> None:
    folder, _ = finished
    for arm in ("bidirectional", "causal", "leak-free"):
        one = found(folder, arm)
        for target, accuracy in one["algebra"].items():
            clamped = one["settings"]["norm"][target]["0"]["accuracy_there"]
            assert clamped == pytest.approx(accuracy, abs=1e-9)


def test_without_noise_nothing_is_divided(finished) -> None:
    folder, _ = finished
    settings = found(folder, "bidirectional")["settings"]
    natural = settings["none"]["natural"]["0"]
    assert all(each["0"] == natural for each in settings["noise divided"].values())


def test_equal_ratios_read_alike_but_for_the_offset(finished) -> None:
    folder, _ = finished
    settings = found(folder, "bidirectional")["settings"]
    pairs = [
        (settings["norm"]["4"]["2"], settings["norm"]["2"]["1"]),
        (settings["norm"]["8"]["2"], settings["noise divided"]["4"]["1"]),
    ]
    for one, other in pairs:
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.05)


def test_claims_and_report_are_there(finished) -> None:
    folder, summary = finished
    assert {claim["id"] for claim in summary["claims"]} == {claim.id for claim in RECIPE.CLAIMS}
    assert len({claim.id for claim in RECIPE.CLAIMS}) == len(RECIPE.CLAIMS)
    assert (folder / "report.html").stat().st_size > 50_000
    assert len(list(folder.glob("*.png"))) == 3


def test_a_second_run_redoes_nothing_and_reads_the_same(finished) -> None:
    folder, summary = finished
    files = sorted(folder.glob("seed*/**/*.json*"))
    before = [file.stat().st_mtime_ns for file in files]
    again = recipes.run(RECIPE, RECIPE.Config(**SMALL), "small", folder.parent.parent)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert again["claims"] == summary["claims"]


def test_readings_are_remade_from_the_weights(finished) -> None:
    folder, _ = finished
    path = folder / "seed1" / "leak-free" / "readings.json"
    before = path.read_text()
    path.unlink()
    RECIPE.run_unit(RECIPE.Config(**SMALL), ("leak-free", 1), folder, 0)
    assert path.read_text() == before


def test_presets_differ_only_in_size() -> None:
    quick, paper = RECIPE.Config.quick(), RECIPE.Config.paper()
    assert len(quick.seeds) >= 3 and len(paper.seeds) == 5
    assert paper.steps == 10_000
    assert paper.targets[0] == 11.5 and paper.targets[-1] == 2.5 and len(paper.targets) == 19
