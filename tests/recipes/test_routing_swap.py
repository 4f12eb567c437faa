"""The recipe on routing swaps end to end, small."""

import json

import pytest

from probekit import recipes
from probekit.hooked.selection import Selection
from probekit.interventions.swap_weights import donor_weights

SMALL = {"vocab": 8, "length": 8, "width": 16, "steps": 160, "lr": 1e-2, "log_every": 80}
ARMS = ("bidirectional", "causal")
RECIPE = recipes.load(recipes.find("routing-swap"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    config = RECIPE.Config(seeds=(0,), **SMALL)
    summary = recipes.run(RECIPE, config, "small", out)
    return out / "routing-swap" / "small", summary


def found(folder, arm):
    return json.loads((folder / "seed0" / arm / "swaps.json").read_text())


def test_every_part_and_donor_is_measured_in_both_arms(finished) -> None:
    folder, _ = finished
    always = {"B", "fork", "late fork", "permuted A", "random", "zero"}
    for arm in ARMS:
        swaps = found(folder, arm)["swaps"]
        assert len(swaps) == 15
        for name, row in swaps.items():
            assert set(row) - {"aligned B"} == always
            assert ("aligned B" in row) == (name in ("QK", "Q", "K"))


def test_the_leak_is_found_where_there_is_no_mask(finished) -> None:
    folder, _ = finished
    assert found(folder, "bidirectional")["leak"]["found"]
    assert not found(folder, "causal")["leak"]["found"]


def test_the_permuted_network_is_as_good_and_attends_alike(finished) -> None:
    folder, _ = finished
    for arm in ARMS:
        one = found(folder, arm)
        assert one["accuracy"]["permuted A"] == pytest.approx(one["accuracy"]["A"], abs=1e-3)
        assert one["similarity"]["permuted A"]["attention"] == pytest.approx(1, abs=1e-4)
        assert one["similarity"]["permuted A"]["linear CKA"] == pytest.approx(1, abs=1e-4)


def test_zeros_for_q_or_for_k_are_the_same_uniform_attention(finished) -> None:
    folder, _ = finished
    for arm in ARMS:
        swaps = found(folder, arm)["swaps"]
        assert swaps["Q"]["zero"] == swaps["QK"]["zero"] == swaps["K"]["zero"]


def test_the_report_has_a_verdict_on_each_claim(finished) -> None:
    folder, summary = finished
    assert {claim["id"] for claim in summary["claims"]} == {c.id for c in RECIPE.CLAIMS}
    assert all(claim["n"] == 1 and claim["null"] is not None for claim in summary["claims"])
    assert (folder / "report.html").stat().st_size > 50_000
    assert {path.name for path in folder.glob("*.png")} == {
        "swaps.png",
        "similarity.png",
        "learning.png",
    }


def test_finished_work_is_not_redone_and_measuring_again_gives_the_same(finished) -> None:
    folder, _ = finished
    config, path = RECIPE.Config(seeds=(0,), **SMALL), folder / "seed0" / "causal" / "swaps.json"
    before, when = path.read_text(), path.stat().st_mtime_ns
    RECIPE.run_unit(config, ("causal", 0), folder, 0)
    assert path.stat().st_mtime_ns == when
    path.unlink()  # as if killed after training
    RECIPE.run_unit(config, ("causal", 0), folder, 0)
    assert path.read_text() == before


def test_quick_has_three_pairs_and_the_published_sizes_can_be_asked_for() -> None:
    assert len(RECIPE.Config.quick().seeds) >= 3
    model = RECIPE.Config(vocab=4096, length=128, width=128).load("bidirectional", 0)
    moved = donor_weights(model, Selection(("Q", "K", "V")))
    assert sum(tensor.numel() for tensor in moved.values()) == 49_536  # called 768 there
