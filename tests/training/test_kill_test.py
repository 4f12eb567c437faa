"""The kill test: exactly nothing in the perturbed layer, drift against a stale baseline."""

import pytest
import torch

import probekit as pk
from probekit.training import (
    OMEGAS,
    compensating_heads,
    compensation_score,
    kill_scores,
    kill_test,
    modular_split,
    modular_tokens,
)

TOKENS = modular_tokens(modular_split()[1][:16])[0]


def test_fresh_baseline_is_exactly_zero_in_the_perturbed_layer():
    responses = kill_test(pk.load("grokking", seed=0), TOKENS)
    assert tuple(responses) == OMEGAS
    assert compensation_score(responses, responses[1.0]) == 0.0


def test_later_layers_do_answer():
    responses = kill_test(pk.load("grokking", seed=0, n_layers=2), TOKENS)
    change = (responses[0.5] - responses[1.0]).abs()
    assert (change[0] == 0).all() and (change[1] > 0).all()
    assert compensation_score(responses, responses[1.0]) > 0


def test_score_averages_over_other_heads_and_omegas():
    baseline = torch.tensor([[0.9, 0.5, 0.5]])
    responses = {
        0.5: torch.tensor([[0.0, 0.7, 0.6]]),  # shifts 0.2 and 0.1
        1.0: torch.tensor([[0.0, 9.0, 9.0]]),  # not counted
        1.5: torch.tensor([[0.0, 0.5, 0.1]]),  # shifts 0 and 0.4
    }
    assert compensation_score(responses, baseline) == pytest.approx((0.15 + 0.2) / 2)


def test_compensation_needs_sign_and_size():
    baseline = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    response = torch.tensor([[0.9, 0.52, 0.505, 0.4]])
    assert compensating_heads(response, baseline, omega=0.5) == 1  # up; 0.005 is too little
    assert compensating_heads(response, baseline, omega=1.5) == 1  # down


def test_published_score_is_drift():
    def test_at(step, shift):
        vdi = [[0.4, 0.4 + shift]]
        return {"step": step, "kill_test": {str(omega): vdi for omega in OMEGAS}}

    first, last = kill_scores([test_at(500, 0.0), {"step": 1000}, test_at(1500, 0.15)])
    assert first["stale"] == 0
    assert last["stale"] == last["undisturbed"] == pytest.approx(0.15)
    assert last["fresh"] == 0
