"""Runs stop where they got somewhere, each at its own log, whatever the others do."""

import pytest
import torch

import probekit as pk
from probekit.runs import RunDir
from probekit.training import ModularTask, Optimisation, Stack, fit, fit_until

TASK = ModularTask(modulus=7, fraction=0.6)
OPTIMISATION = Optimisation(steps=40, batch=16, lr=3e-3, log_every=10)


def stack():
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 24, "n_layers": 1, **TASK.config}
    return Stack([pk.load("modular-deep-2", seed=seed, **sizes) for seed in (0, 1)])


def until(folder, reached, optimisation=OPTIMISATION, **more):
    own = stack()
    where = {"title": "", "position": 0, **more}
    return fit_until(RunDir(folder), own, TASK, optimisation, [0, 1], reached, **where), own


def plain(folder, steps):
    own, optimisation = stack(), Optimisation(steps, batch=16, lr=3e-3, log_every=10)
    fit(RunDir(folder), own, TASK, optimisation, [0, 1], title="", position=0)
    return own


class LogCount:
    """Reached at the second log by the run that is asked first, at the fourth by the other."""

    def __init__(self):
        self.seen = {}

    def __call__(self, accuracies):
        calls = self.seen.setdefault(len(accuracies), [])
        calls.append(accuracies)
        first = len(calls) == 1 and len(accuracies) <= 2
        return len(accuracies) == (2 if first else 4)


def test_each_run_keeps_the_weights_of_its_own_log(tmp_path) -> None:
    steps, own = until(tmp_path / "until", LogCount())
    assert steps == [10, 30]
    rows = RunDir(tmp_path / "until").rows()
    assert [row["step"] for row in rows] == [0, 10, 20, 30]  # ends with the last
    for index, step in enumerate(steps):
        there = plain(tmp_path / str(step), step)
        for name, parameter in own.parameters.items():
            assert torch.equal(parameter[index], there.parameters[name][index])


def test_a_run_that_never_gets_there_has_its_last_weights(tmp_path) -> None:
    steps, own = until(tmp_path / "until", lambda accuracies: False)
    assert steps == [None, None]
    there = plain(tmp_path / "plain", 40)
    for name, parameter in own.parameters.items():
        assert torch.equal(parameter, there.parameters[name])


def test_it_is_asked_of_all_logs_so_far(tmp_path) -> None:
    asked = []
    until(tmp_path, lambda accuracies: asked.append(list(accuracies)) or False)
    rows = RunDir(tmp_path).rows()
    assert asked[-1] == [row["accuracy"][1] for row in rows]
    assert asked[2] == asked[4][:2] or len(asked[2]) == 2


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("logs", [1, 2, 3, 4])  # seen before it is killed
def test_killed_and_resumed_it_keeps_the_same(tmp_path, logs) -> None:
    def reached(kill):
        calls = iter(range(100))  # two a log while neither run is there

        def ask(accuracies):
            if len(accuracies) > kill:
                raise Interrupted
            return len(accuracies) == (2 if next(calls) % 2 else 5)

        return ask

    whole, own = until(tmp_path / "whole", reached(100))
    with pytest.raises(Interrupted):
        until(tmp_path / "cut", reached(logs))
    resumed, again = until(tmp_path / "cut", lambda seen: len(seen) == 5)
    finished, third = until(tmp_path / "cut", reached(0))  # done: asks nothing
    assert whole == [40, 10]
    assert resumed == finished == (whole if logs > 1 else [40, 40])
    if logs > 1:
        for name, parameter in own.parameters.items():
            assert torch.equal(parameter, again.parameters[name])
            assert torch.equal(parameter, third.parameters[name])
