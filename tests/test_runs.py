import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from probekit.environment import environment
from probekit.errors import ProbekitError, RunError
from probekit.runs import (
    RunDir,
    json_safe,
    optimizer_tensors,
    restore_optimizer,
    write_atomic,
    write_together,
)


@dataclass(frozen=True)
class Config:
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 100
    lr: float = 1e-3


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path / "recipe" / "quick" / "seed0")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file_and_nothing_else(run, monkeypatch, call):
    run.write_json("summary.json", {"value": 1})

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, call, crash)
    with pytest.raises(ProbekitError) as caught:
        run.write_json("summary.json", {"value": 2})
    assert str(caught.value) == (
        f"cannot write {run.path / 'summary.json'}: disk full; what was there is kept: make room,"
        " or choose another place"
    )
    assert run.read_json("summary.json") == {"value": 1}
    assert [path.name for path in run.path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("taken", ["a", "b"])
def test_files_that_go_together_are_kept_where_a_folder_is_in_the_way(tmp_path, taken):
    (kept,) = {"a", "b"} - {taken}
    (tmp_path / taken).mkdir()
    (tmp_path / kept).write_text("old")
    with pytest.raises(ProbekitError, match=r"^cannot write .*Is a directory.*; what was there is"):
        write_together({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert (tmp_path / kept).read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_config_that_could_not_be_read_back_is_refused(run):
    with pytest.raises(
        RunError, match=r"^this config could not be read back: a whole number in it"
    ):
        run.start({"seeds": [2**63]})
    assert not list(run.path.iterdir())


def test_what_cannot_be_json_does_not_touch_the_file(run):
    run.write_json("a.json", 1)
    with pytest.raises(TypeError, match=r"^no JSON form for set: \{1\}$"):
        run.write_json("a.json", {1})
    assert run.read_json("a.json") == 1


def test_write_atomic_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"long content")
    write_atomic(path, b"short")
    assert path.read_bytes() == b"short"


def test_json_safe_gives_json_types():
    given = {
        1: (math.nan, math.inf, 0.5),
        "tensor": torch.tensor([1.0, math.nan]),
        "numpy": np.float64(2.0),
        "path": Path("a/b"),
        "config": Config(),
    }
    assert json_safe(given) == {
        "1": [None, None, 0.5],
        "tensor": [1.0, None],
        "numpy": 2.0,
        "path": "a/b",
        "config": {"seeds": [0, 1], "steps": 100, "lr": 0.001},
    }


def test_config_holds_config_seed_and_versions(run):
    run.start(Config(), seed=0)
    written = run.read_json("config.json")
    assert written["config"] == {"seeds": [0, 1], "steps": 100, "lr": 0.001}
    assert written["seed"] == 0
    assert written["environment"] == environment()
    assert written["environment"]["torch"] == torch.__version__


def test_the_same_config_may_start_again_with_more_seeds(run):
    run.start(Config(), seed=0)
    run.start(Config(seeds=(0, 1, 2)), seed=0)
    assert run.read_json("config.json")["config"]["seeds"] == [0, 1, 2]


def test_another_config_is_refused_and_the_fields_are_named(run):
    run.start(Config(), seed=0)
    with pytest.raises(RunError) as caught:
        run.start(Config(steps=200, lr=0.01), seed=1)
    assert str(caught.value) == (
        f"{run.path} holds a run with another config: steps (100 there, 200 here),"
        " lr (0.001 there, 0.01 here), seed (0 there, 1 here);"
        " choose another --out or delete the folder"
    )
    assert run.read_json("config.json")["config"]["steps"] == 100


def test_a_config_that_is_not_json_names_the_file_and_the_fix(run):
    run.write_text("config.json", "")
    with pytest.raises(RunError) as caught:
        run.start(Config())
    assert str(caught.value) == (
        f"cannot read {run.path / 'config.json'}: Expecting value: line 1 column 1 (char 0);"
        f" delete {run.path} and run again"
    )


def test_done_once_the_summary_is_there(run):
    assert not run.done
    run.write_json("summary.json", {})
    assert run.done


def test_rows_come_back_as_written(run):
    assert run.rows() == []
    run.append({"step": 0, "loss": 0.1 + 0.2})
    run.append({"step": 100, "loss": math.nan})
    assert run.rows() == [{"step": 0, "loss": 0.1 + 0.2}, {"step": 100, "loss": None}]


def test_a_row_without_a_step_is_refused(run):
    with pytest.raises(RunError) as caught:
        run.append({"loss": 1.0, "vdi": 0.6})
    assert str(caught.value) == "a metrics row needs a 'step'; given: loss, vdi"
    assert run.rows() == []


@pytest.mark.parametrize("torn", ['{"step": 20', '{"step": 20}'])
def test_a_torn_last_line_is_dropped_and_does_not_spoil_the_next(run, torn):
    run.append({"step": 10})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(torn)
    assert run.rows() == [{"step": 10}]
    run.truncate(10)
    run.append({"step": 20, "again": True})
    assert run.rows() == [{"step": 10}, {"step": 20, "again": True}]


def test_truncate_drops_the_rows_after_the_step(run):
    for step in (0, 10, 20, 30):
        run.append({"step": step})
    run.truncate(10)
    assert run.rows() == [{"step": 0}, {"step": 10}]


def test_a_broken_row_in_the_middle_is_an_error(run):
    run.write_text("metrics.jsonl", '{"step": 0}\nnonsense\n{"step": 2}\n')
    with pytest.raises(RunError) as caught:
        run.rows()
    assert str(caught.value) == (
        f"cannot read {run.path / 'metrics.jsonl'}: row 2: Expecting value: line 1 column 1"
        f" (char 0); delete {run.path} and run again"
    )


def test_checkpoint_round_trip_keeps_bits_dtypes_and_shared_tensors(run):
    assert run.load_checkpoint() is None
    tied = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    tensors = {
        "embed": tied,
        "unembed": tied,
        "transposed": tied.T,
        "rng": torch.Generator().manual_seed(7).get_state(),
        "nan": torch.tensor([math.nan, -0.0], dtype=torch.float64),
        "scalar": torch.tensor(3.0),
    }
    run.save_checkpoint(100, tensors, {"best": 0.1 + 0.2, "first": [1, None]})
    step, loaded, meta = run.load_checkpoint()
    assert step == 100
    assert meta == {"best": 0.1 + 0.2, "first": [1, None]}
    torch.testing.assert_close(loaded, tensors, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("content", ["empty", "truncated", "foreign"])
def test_a_damaged_checkpoint_names_the_file_and_the_fix(run, content):
    run.save_checkpoint(1, {"w": torch.ones(100)}, {})
    path = run.path / "checkpoint.safetensors"
    whole = path.read_bytes()
    foreign = b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "  # safetensors, but without a step
    path.write_bytes({"empty": b"", "truncated": whole[:-1], "foreign": foreign}[content])
    with pytest.raises(RunError) as caught:
        run.load_checkpoint()
    before = f"{path} is no checkpoint: " if content == "foreign" else f"cannot read {path}: "
    assert str(caught.value).startswith(before)
    assert str(caught.value).endswith("; delete it to start this run over")


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        data = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()


def model_and_optimizer() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0)


def test_training_goes_on_bit_for_bit_from_a_checkpoint(run):
    model, optimizer = model_and_optimizer()
    train(model, optimizer, range(5))
    run.save_checkpoint(5, {**model.state_dict(), **optimizer_tensors(optimizer)}, {})
    train(model, optimizer, range(5, 9))

    other, fresh = model_and_optimizer()
    _, tensors, _ = run.load_checkpoint()
    other.load_state_dict({name: tensors[name] for name in other.state_dict()})
    restore_optimizer(fresh, tensors)
    train(other, fresh, range(5, 9))
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert set(optimizer_tensors(fresh)) == {
        f"optimizer.{index}.{what}"
        for index in (0, 1)
        for what in ("exp_avg", "exp_avg_sq", "step")
    }


def test_restoring_does_not_share_memory_with_the_tensors_given():
    model, optimizer = model_and_optimizer()
    train(model, optimizer, range(1))
    saved = {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}
    before = {name: value.clone() for name, value in saved.items()}
    restore_optimizer(optimizer, saved)
    train(model, optimizer, range(1, 3))
    torch.testing.assert_close(saved, before, rtol=0, atol=0)


def test_state_of_another_model_is_refused():
    model, optimizer = model_and_optimizer()
    train(model, optimizer, range(1))
    smaller = torch.optim.AdamW(torch.nn.Linear(1, 1).parameters())
    with pytest.raises(RunError) as caught:
        restore_optimizer(smaller, {"optimizer.0.exp_avg": torch.zeros(2, 3)})
    assert str(caught.value) == (
        "optimizer.0.exp_avg of shape [2, 3] fits none of the optimizer's 2 parameters;"
        " the checkpoint is of another model"
    )


def test_environment_is_json_and_names_the_versions():
    names = ["python", "probekit", "torch", "transformer-lens", "transformers", "commit"]
    assert list(json.loads(json.dumps(environment()))) == [*names, "machine"]
