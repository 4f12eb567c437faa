"""Measures of the recipe on training a modulator, on results written by hand."""

import math

import pytest
import scipy.stats

from probekit.claims import Blocked
from probekit.training import modulator_results as res


def run(ends, band, nlls=(3.0, 2.5), largest=0.9):
    epochs = [{"lemma_nll": nll, "val_loss": 2 * nll, "lemma_rank": 9.0} for nll in nlls]
    return {
        "alpha": [[0.5] * len(ends), ends],
        "band": [[0.5, 0.5], band],
        "largest": largest,
        "epochs": epochs,
    }


SILENCED = [9.0] * 5 + [2.0] * 5 + [1.0] * 5
RESULTS = {
    "t5": {
        "pretrained": [{"host": {"published": {"silenced": 0.5}}, "silenced": SILENCED}],
        "published from 0.01": [run([0.04, 0.06], [0.0, 0.05], (3.0, 4.0))],
        "repaired from 0.01": [run([0.02, 0.04], [0.0, 0.05]), run([0.03, 0.05], [0.0, 0.05])],
        "repaired from 0.5": [run([0.4, 0.6], [0.3, 0.7]), run([0.04, 0.8], [0.3, 0.7])],
    },
    "bert": {
        "pretrained": [{"val_loss": 1.0}],
        "masked from 0.01": [run([0.2, 0.3], [0.0, 0.25])],
    },
}  # fmt: skip


def test_runs_are_found_by_their_objective_and_start() -> None:
    found = res.runs_of(RESULTS["t5"], "repaired")
    assert list(found) == [0.01, 0.5] and [len(runs) for runs in found.values()] == [2, 2]
    assert list(res.runs_of(RESULTS["bert"], "repaired")) == []


def test_a_number_a_run_from_one_start_or_all() -> None:
    assert res.each_run(res.ends, "published")(RESULTS) == pytest.approx([0.05])
    assert res.each_run(res.ends, "repaired")(RESULTS) == pytest.approx([0.03, 0.04])
    everywhere = res.each_run(res.ends, "repaired", "masked", start=None)(RESULTS)
    assert everywhere == pytest.approx([0.03, 0.04, 0.5, 0.42, 0.25])
    with pytest.raises(Blocked, match="no host of this kind was asked for"):
        res.each_run(res.ends, "masked")({"t5": RESULTS["t5"]})


def test_shares_of_layers_inside_a_band() -> None:
    assert res.inside(run([0.1, 0.2, 0.3], []), (0.2, 0.3)) == pytest.approx(2 / 3)
    # Each start's ends in the band of the next; the encoder's only start has no next.
    assert res.inside_others(RESULTS) == [0, 0, 0, 0.5]


def test_how_much_likelier_words_became() -> None:
    assert res.each_run(res.gain, "repaired")(RESULTS) == [0.5, 0.5]
    assert res.each_run(res.gain, "published")(RESULTS) == [-1]


def test_losses_are_single_or_the_mean_of_the_last_ten() -> None:
    assert res.losses("host", "published", "silenced")(RESULTS) == [0.5]
    assert res.losses("silenced")(RESULTS) == [1.5]
    with pytest.raises(Blocked):
        res.losses("silenced")({"bert": RESULTS["bert"]})


def test_shares_are_a_value_a_host_with_a_decoder() -> None:
    seen = []

    def share(ends):
        seen.append(ends)
        return 0.25

    assert res.shares(share)(RESULTS) == [0.25]
    assert seen == [{0.01: [[0.02, 0.04], [0.03, 0.05]], 0.5: [[0.4, 0.6], [0.04, 0.8]]}]


def test_a_row_has_the_interval_of_the_mean_over_runs() -> None:
    row = res.end_row(0.01, res.runs_of(RESULTS["t5"], "repaired")[0.01])
    low, high = scipy.stats.t.interval(0.95, 1, 0.035, math.sqrt(2 * 0.005**2) / math.sqrt(2))
    assert (row["start"], row["end"]) == ("0.01", "0.0350")
    assert row["interval"] == f"{low:.4f} to {high:.4f}"
    assert row["reach"] == "0.0000 to 0.0500"
    assert row["NLL of the word"] == "3.000 to 2.500"
    assert row["held-out loss"] == "6.000 to 5.000"
    alone = res.end_row(0.01, res.runs_of(RESULTS["bert"], "masked")[0.01])
    assert alone["interval"] == "one run"


def test_tables_list_every_start_and_every_loss() -> None:
    found = res.tables(RESULTS)
    ended, leaking = found.values()
    assert [(row["host"], row["loss"], row["start"]) for row in ended] == [
        ("t5", "published", "0.01"),
        ("t5", "repaired", "0.01"),
        ("t5", "repaired", "0.5"),
        ("bert", "masked", "0.01"),
    ]
    assert leaking == [{"model": "t5", "loss": "published", "silenced": "0.5"}]
