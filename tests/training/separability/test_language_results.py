"""What is read of the language experiment's arms, on numbers made by hand; cosines of networks."""

import math

import pytest
import torch

import probekit as pk
from probekit.training import InterleavedTask, Stack
from probekit.training.separability.language_arms import (
    ANCHOR,
    CE,
    LANGUAGE_ARMS,
    ORTHO,
    independent_cosines,
)
from probekit.training.separability.language_results import (
    LanguageResults,
    accuracy_rows,
    arm_logs,
    event_rows,
)

SHARES = {CE: [0.8, 0.6], ANCHOR: [0.9, 0.7], ORTHO: [0.5, 0.1]}
LOGS = [[0.1, 0.4, 0.1], [0.2, 0.2, 0.2], [0.3, 0.14, 0.5], [0.31, 0.2, 0.1]]


def results() -> LanguageResults:
    rows = [
        {"step": 25 * at, "accuracy": list(values), "cosine": [1.0 - at / 10] * 4}
        for at, values in enumerate(zip(*LOGS, strict=True))
    ]
    log = arm_logs(rows)
    found = {
        "by position": {arm: [SHARES.get(arm, [0.0, 0.0])] for arm in LANGUAGE_ARMS},
        "random text": {arm: [0.35] for arm in LANGUAGE_ARMS},
        "leak": {arm: {"found": [arm != CE], "words": ["?"]} for arm in LANGUAGE_ARMS},
        "log": {"step": [log["step"]]}
        | {
            what: {arm: [log[what][arm]] for arm in LANGUAGE_ARMS}
            for what in ("accuracy", "cosine")
        },
    }
    guesses = {"token to the right": [1.0, 0.25], "most frequent follower": [0.25, 0.35]}
    return LanguageResults({"bidirectional": found}, guesses)


def test_readings_of_one_mask() -> None:
    own, mask = results(), "bidirectional"
    assert own.accuracies(mask) == pytest.approx([0.7])
    assert own.last(mask) == [0.6] and own.last(mask, ORTHO) == [0.1]
    assert own.guessed("token to the right") == 0.625
    assert own.cost(mask, ANCHOR) == pytest.approx([0.1])
    assert own.cost(mask, ORTHO) == pytest.approx([-0.4])
    assert own.flagged(mask) == [0.75]
    assert own.on_random(mask) == pytest.approx([0.5])
    assert own.above_pairs(mask) == pytest.approx([0.4])
    assert own.above_pairs_at_last(mask) == pytest.approx([0.25])


def test_collapses_need_a_log_of_30_before_one_below_15() -> None:
    own = results()
    each = [own.collapses("bidirectional", [arm]) for arm in LANGUAGE_ARMS]
    assert each == [[1.0], [0.0], [1.0], [1.0]]
    assert own.collapses("bidirectional") == [3.0]


def test_logs_become_curves_and_events() -> None:
    own = results()
    assert own.log_curve("bidirectional", "accuracy", CE) == {0.0: [0.1], 25.0: [0.4], 50.0: [0.1]}
    assert own.log_curve("bidirectional", "cosine", ORTHO) == {0.0: [1.0], 25.0: [0.9], 50.0: [0.8]}
    rows = {row["arm"]: row for row in event_rows(own)}
    assert rows[f"bidirectional, {CE}"]["generalised (.30) at step"] == "25.000"
    assert rows["bidirectional, anchor"]["stable (.25) from step"] == "50.000"
    assert rows["bidirectional, EMA"]["generalised (.30) at step"] == ""


def test_published_numbers_stand_beside_the_first_mask() -> None:
    rows = {
        row["accuracy"]: row for row in accuracy_rows(results(), dict.fromkeys(LANGUAGE_ARMS, 0.9))
    }
    assert rows[f"bidirectional, {CE}"]["published"] == "0.900"
    assert rows[f"bidirectional, {ORTHO}"]["last position"] == "0.100"
    assert rows["most frequent follower"]["all positions"] == "0.300"


def test_networks_are_compared_in_a_ring() -> None:
    task = InterleavedTask(11, 6, held_out=10)
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 16, **task.config}
    one, other = (Stack([pk.load("interleaved", seed=seed, **sizes)]) for seed in (0, 1))
    tokens, _ = task.validation()
    assert independent_cosines([one, one], tokens) == pytest.approx([1, 1], abs=1e-6)
    first, second, third = independent_cosines([one, one, other], tokens)
    means = [each.final(tokens, 6)[0].mean(1).detach() for each in (one, other)]
    expected = float(torch.cosine_similarity(*means).mean())
    assert first == pytest.approx(1, abs=1e-6)
    assert [second, third] == pytest.approx([expected] * 2, abs=1e-6)
    assert math.isnan(independent_cosines([one], tokens)[0])
