"""Margins, what they are made of, and where logs of them are read."""

import math

import pytest
import torch

import probekit as pk
from probekit.training import (
    ModularTask,
    Stack,
    margin_readings,
    rising_shares,
    scores,
    updates_per_epoch,
)
from probekit.training.separability.margin_runs import (
    MarginRun,
    MarginRuns,
    leak_rows,
    margin_rows,
)

TASK = ModularTask("sequence", 7, 0.5, seed=0)
SIZES = {"d_model": 16, "d_head": 4, "d_mlp": 16, **TASK.config}
EQUALS = 3


@pytest.fixture(scope="module")
def stack():
    return Stack([pk.load("interleaved", seed=seed, **SIZES) for seed in (0, 1)])


@torch.no_grad()
def logits_there(stack, final, at):
    return stack.unembed(final)[:, :, at]


def test_the_distance_is_how_far_the_boundary_is(stack) -> None:
    tokens, labels = TASK.validation()
    tokens, labels = tokens[:1], labels[:1]  # one example: means are its own numbers
    found = margin_readings(stack, tokens, labels, EQUALS)
    final = stack.final(tokens, tokens.shape[1]).detach()
    label = int(labels[0, EQUALS])
    for run in range(2):
        logits = logits_there(stack, final, EQUALS)[run, 0]
        others = [token for token in range(len(logits)) if token != label]
        rival = max(others, key=lambda token: float(logits[token]))
        assert float(found["margin_there"][run]) == pytest.approx(
            float(logits[label] - logits[rival]), abs=1e-5
        )
        rows = stack.parameters["head.weight"][run].detach()
        away = rows[label] - rows[rival]
        moved = final.clone()
        moved[run, 0, EQUALS] -= found["distance_there"][run] * away / away.norm()
        there = logits_there(stack, moved, EQUALS)[run, 0]
        assert float(there[label]) == pytest.approx(float(there[rival]), abs=1e-5)
        assert float(found["gap_there"][run]) == pytest.approx(float(away.norm()), rel=1e-5)
        assert float(found["spread_there"][run]) == pytest.approx(float(logits.std()), rel=1e-5)


def test_one_position_of_fits_own_scores(stack) -> None:
    task = ModularTask("two-token", 7, 0.5)
    sizes = {**SIZES, **task.config}
    alone = Stack([pk.load("interleaved", seed=3, **sizes)])
    tokens, labels = task.validation()
    own, other = margin_readings(alone, tokens, labels), scores(alone, tokens, labels)
    assert float(own["margin_there"]) == pytest.approx(float(other["margin"]), abs=1e-6)
    assert float(own["accuracy_there"]) == float(other["accuracy"])


def test_an_untrained_norm_has_gain_one(stack) -> None:
    found = margin_readings(stack, *TASK.validation(), EQUALS)
    assert found["gain"].tolist() == pytest.approx([1, 1], rel=1e-3)
    assert found["norm"].tolist() == pytest.approx([4, 4], rel=1e-3)


def test_published_updates_an_epoch() -> None:
    tasks = [ModularTask("sequence", p, 0.5) for p in (7, 13, 41, 113, 227)]
    assert [updates_per_epoch(task, 64) for task in tasks] == [1, 2, 14, 100, 403]


def test_rising_counts_steps_up() -> None:
    assert rising_shares([[1.0, 3.0], [2.0, 2.0], [3.0, 4.0]]) == [1.0, 0.5]
    assert rising_shares([[1.0], [1.0]]) == [0.0]


def run_of(values, epochs, accuracy=1.0, leak=None):
    """A log whose margin at step i is values[i], read at the end, at 1, or after its epochs."""
    rows = {
        step: {"margin": [value], "margin_there": [value], "distance_there": [value / 2]}
        | {"accuracy_there": [accuracy]}
        for step, value in enumerate(values)
    }
    return MarginRun(rows, {"epochs": epochs, "updates": 1, "end": len(values) - 1}, leak)


@pytest.fixture
def runs():
    return MarginRuns(
        {
            # Equal epochs: 1.0 < 3.0; equal updates: 1.0 > 0.5; the second alone: 0.5 < 3.0
            "sequence": {5: [run_of([0.0, 1.0, 1.5], 1, leak="leak: there")],
                         3: [run_of([0.0, 1.0, 1.2], 1)],
                         11: [run_of([0.0, 0.5, 3.0], 2)]},
            "vocabulary": {3: [run_of([0.0, 0.8], 1)]},
            "leak-free": {5: [run_of([0.0, 1.0], 1)], 11: [run_of([0.0, 2.0], 1, accuracy=0.9)]},
        }
    )  # fmt: skip


def test_logs_are_read_where_they_should(runs) -> None:
    assert runs.moduli == [3, 5, 11]
    assert runs.by_modulus("sequence", "epochs", "margin") == {3: [1.0], 5: [1.0], 11: [3.0]}
    assert runs.by_modulus("sequence", "updates", "margin") == {3: [1.0], 5: [1.0], 11: [0.5]}
    assert runs.by_modulus("sequence", "epochs", "updates") == {3: [1.0], 5: [1.0], 11: [2.0]}
    assert runs.one_by_updates("margin") == {3: [0.5], 5: [0.5], 11: [3.0]}
    assert runs.rising("sequence", "epochs", "margin") == [0.5]
    assert runs.rising("sequence", "updates", "margin") == [0.0]
    assert runs.rising_with_vocabulary("margin") == [0.0]


def test_a_seed_that_did_not_learn_is_not_observed(runs) -> None:
    assert math.isnan(runs.rising_where_learned("leak-free", "margin_there", 0.95)[0])
    assert runs.rising_where_learned("leak-free", "margin_there", 0.85) == [1.0]


def test_rows_say_what_was_read(runs) -> None:
    rows = margin_rows(runs, {"paper": {11: 6.5}})
    assert [row["modulus"] for row in rows] == ["p = 3", "p = 5", "p = 11"]
    assert rows[2]["paper"] == "6.500" and rows[0].get("paper", "") == ""
    assert rows[2]["p = 11, as many updates"] == "3.000"
    assert rows[0]["p = 11, as many updates"] == "0.500"
    found = {(row["arm"], row["p"]): row["leaks"] for row in leak_rows(runs)}
    assert found["sequence", "5"] == "1 of 1" and found["leak-free", "5"] == "0 of 1"
