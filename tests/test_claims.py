import json
import math
from pathlib import Path

import pytest
from claimrows import row

from probekit.claims import Blocked, Claim, decide, decide_all, in_words, row_fault, shown
from probekit.errors import RunError

RUN = "probekit run terrain --preset paper"


def claim(published=0.612, tolerance=0.001, null=lambda results: None, **fields) -> Claim:
    given = {
        "id": "000-1",
        "source": "paper",
        "statement": "VDI settles",
        "measure": lambda results: results,
        "control": "uniform attention",
    }
    return Claim(published=published, tolerance=tolerance, null=null, **(given | fields))


def test_the_whole_row():
    row = decide(claim(0.5, 0.25, null=lambda results: [0.5, 1.0]), [0.25, 0.75], RUN)
    assert row == {
        "id": "000-1",
        "source": "paper",
        "statement": "VDI settles",
        "published": 0.5,
        "tolerance": 0.25,
        "measured": 0.5,
        "interval": [0.25, 0.75],
        "null": 0.75,
        "control": "uniform attention",
        "verdict": "reproduced",
        "n": 2,
        "observed": 2,
        "reason": None,
    }


@pytest.mark.parametrize(
    ("values", "controls", "verdict"),
    [
        ([0.612, 0.6125], None, "reproduced"),
        ([0.612], [], "reproduced"),
        ([0.612], [0.9], "reproduced"),
        ([0.612], [0.612, 0.9], "reproduced"),
        ([0.612], [math.nan], "reproduced"),
        ([0.612], [0.6121, 0.6119], "explained by null"),
        ([0.612, 0.9], [0.612], "not reproduced"),
        # The mean is right and each seed is wrong.
        ([0.512, 0.712], None, "not reproduced"),
        ([0.612, math.nan], [0.612], "not reproduced"),
        ([math.nan, math.nan], None, "not reproduced"),
        ([math.inf], None, "not reproduced"),
    ],
)
def test_verdicts(values, controls, verdict):
    assert decide(claim(null=lambda results: controls), values, RUN)["verdict"] == verdict


@pytest.mark.parametrize(
    ("value", "accepted"), [(2.9, False), (3.0, True), (5.0, True), (7.0, True), (7.1, False)]
)
def test_a_published_range_is_widened_by_the_tolerance(value, accepted):
    assert claim(published=(4.0, 6.0), tolerance=1.0).accepts(value) is accepted


def test_seeds_that_showed_nothing_are_counted_but_not_averaged():
    row = decide(claim(), [0.5, math.nan, 0.7], RUN)
    assert (row["measured"], row["interval"]) == (0.6, [0.5, 0.7])
    assert (row["n"], row["observed"]) == (3, 2)


def test_rows_are_strict_json_also_when_nothing_was_seen():
    row = decide(claim(published=(0.5, 0.7), null=lambda results: [math.nan]), [math.nan], RUN)
    again = json.loads(json.dumps(row, allow_nan=False))
    assert again == row
    assert (row["measured"], row["interval"], row["null"]) == (None, None, None)
    assert row["published"] == [0.5, 0.7]


@pytest.mark.parametrize(
    ("published", "tolerance", "words"),
    [
        (0.611992, 1e-5, "0.611992 ± 1e-05"),
        ([0.53, 0.56], 0.02, "0.53 to 0.56 ± 0.02"),
        ((0, 1), 0, "0 to 1"),
        (9362, 0.0, "9362"),
    ],
)
def test_the_tolerance_stands_beside_what_was_published(published, tolerance, words):
    assert in_words(published, tolerance) == words


def test_a_stored_row_has_a_tolerance():
    row = decide(claim(), [0.6], RUN)
    assert row_fault(row) is None
    assert row_fault(row | {"tolerance": None}) == "tolerance is None"
    del row["tolerance"]
    assert row_fault(row) == "tolerance is None"


def block(results):
    raise Blocked("needs its weights", options="--models t5-small")


@pytest.mark.parametrize("part", ["measure", "null"])
def test_blocked_says_what_is_missing_and_what_to_run(part):
    row = decide(claim(**{part: block}), [0.612], RUN)
    command = "probekit run terrain --preset paper --models t5-small"
    assert (row["verdict"], row["reason"]) == ("blocked", f"needs its weights; run `{command}`")
    assert (row["measured"], row["interval"], row["null"], row["n"]) == (None, None, None, 0)


def test_a_runs_folder_names_its_recipe_and_preset():
    claims = [claim(), claim(id="000-2", measure=block)]
    one, other = decide_all(claims, [0.612], Path("runs/terrain/paper"))
    assert one == decide(claims[0], [0.612], RUN)
    assert other == decide(claims[1], [0.612], RUN)


def test_what_blocks_the_measure_leaves_its_control():
    row = decide(claim(measure=block, null=lambda results: [0.5, 0.6]), [0.612], RUN)
    assert (row["verdict"], row["measured"]) == ("blocked", None)
    assert row["null"] == pytest.approx(0.55)


def test_no_value_at_all_is_a_mistake_and_no_verdict():
    with pytest.raises(RunError) as caught:
        decide(claim(), [], RUN)
    message = "claim 000-1 measured nothing: `measure` gives one value per seed"
    assert str(caught.value) == message


@pytest.mark.parametrize(("published", "tolerance"), [((2.0, 1.0), 0.0), (1.0, -0.1)])
def test_a_claim_that_nothing_can_meet_is_refused(published, tolerance):
    with pytest.raises(RunError) as caught:
        claim(published=published, tolerance=tolerance)
    assert str(caught.value) == (
        "claim 000-1: published must be a number or (low, high) and tolerance not negative;"
        f" given {published!r} and {tolerance!r}"
    )


@pytest.mark.parametrize(
    ("tolerance", "measured"), [(0.0, "0.612"), (1e-3, "0.612"), (1e-5, "0.611992")]
)
def test_a_number_has_the_digits_that_its_tolerance_needs(tolerance, measured) -> None:
    found = shown(row(tolerance=tolerance, measured=0.6119916, null=0.6119916, n=1, observed=1))
    assert found["measured"] == measured
    assert found["null or control"].startswith(f"{measured}: ")


def test_what_is_published_as_one_number_and_exact_is_shown_in_six_digits() -> None:
    found = shown(row(published=38552, measured=38552.0, n=1, observed=1))
    assert (found["published"], found["measured"]) == ("38552", "38552")
