"""Branches keep Q, K and V, and their logs hold the cosine to the anchor."""

import pytest
import torch

import probekit as pk
from probekit.runs import RunDir
from probekit.training import (
    BranchRuns,
    InterleavedTask,
    ModularTask,
    Optimisation,
    Stack,
    Task,
    branch,
)
from probekit.training.separability.branch_runs import geometry

TASK = ModularTask(modulus=7, fraction=0.6)
HOW = Optimisation(steps=60, batch=32, lr=3e-3, log_every=20)


def stack(seed=0, layers=1):
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 24, "n_layers": layers, **TASK.config}
    return Stack([pk.load("modular-deep-2", seed=seed, **sizes)])


def runs_in(folder, task: Task = TASK):
    return BranchRuns(RunDir(folder), task, 3, "", 0)


def test_geometry_is_the_packed_matrix_of_all_layers() -> None:
    expected = [
        f"layers.{layer}.attn.{part}.{kind}"
        for layer in range(2)
        for part in "qkv"
        for kind in ("weight", "bias")
    ]
    assert sorted(geometry(stack(layers=2))) == sorted(expected)


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """Two probes that start as their anchor; the second is asked to leave it."""
    runs, anchor = runs_in(tmp_path_factory.mktemp("probed")), stack()
    probes = branch([(anchor, 0)] * 2)
    runs.probes("probes", probes, branch([(anchor, 0)] * 2), HOW, (1, 1), {1: "cosine"})
    return runs, anchor, probes


def test_probes_keep_the_geometry_and_nothing_else(probed) -> None:
    _, anchor, probes = probed
    kept = geometry(anchor)
    for name, parameter in probes.parameters.items():
        same = [torch.equal(parameter[run], anchor.parameters[name][0]) for run in range(2)]
        assert same == [name in kept] * 2, name


def test_only_the_penalised_probe_leaves_its_anchor(probed) -> None:
    runs, anchor, probes = probed
    free, asked = (runs.curve("probes", run, "cosine") for run in range(2))
    assert list(free) == [0, 20, 40, 60]
    assert free[0] == asked[0] == pytest.approx(1.0)
    assert asked[60] < 0.5 < free[60]
    own = runs.solution(anchor, 0)
    found = runs.compare(own, {"asked": runs.solution(probes, 1)})["asked"]
    assert found["cosine"] == pytest.approx(asked[60], abs=1e-6)
    assert found["accuracy"] == pytest.approx(runs.curve("probes", 1)[60])
    assert runs.curves("probes", ("one", "two"))["two"] == runs.curve("probes", 1)


def test_training_takes_batches_by_number(tmp_path) -> None:
    runs, one = runs_in(tmp_path), branch([(stack(), 0)] * 3)
    short = Optimisation(steps=4, batch=32, lr=3e-3, log_every=2)
    kept = runs.train("one", one, short, (5, 5, 6), at=2, frozen=geometry(one))
    same, other = one.parameters["head.weight"][1:] - one.parameters["head.weight"][0]
    assert not same.any()
    assert other.any()
    assert not torch.equal(kept.parameters["head.weight"], one.parameters["head.weight"])
    assert torch.equal(kept.parameters[geometry(one)[0]], one.parameters[geometry(one)[0]])
    assert RunDir(tmp_path / "one").read_json("config.json")["config"]["seeds_of_runs"] == [
        35,
        35,
        36,
    ]


def test_the_leak_detector_reads_every_position(tmp_path) -> None:
    class Copying(Stack):
        """The token to the right, as logits."""

        def __init__(self):
            pass

        def final(self, tokens, read):
            following = tokens.roll(-1, -1)
            return torch.nn.functional.one_hot(following, 9)[None].float()

        def unembed(self, final):
            return final

    runs = runs_in(tmp_path, InterleavedTask(9, 8, held_out=60))
    assert runs.leak(Copying()).startswith("leak: the label is the input token 1 after")
    assert runs_in(tmp_path).leak(stack()) == "no leak found"
