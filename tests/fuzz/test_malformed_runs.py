"""Run folders, results and flags that are not what they should be."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from claimrows import row
from hypothesis import given
from hypothesis import strategies as st
from malformed import (
    as_json,
    changed_bytes,
    changed_tensors,
    changed_trees,
    contents,
    examples,
    nodes,
    only_reads,
    refused_well,
)
from resumable import COIN
from safetensors.torch import save

from probekit import cli, recipes
from probekit.errors import ProbekitError, RunError
from probekit.findings import read_findings
from probekit.runs import RunDir

CONFIG = {"seeds": [0, 1], "steps": 100, "lr": 1e-3, "name": "x"}
ROWS = [{"step": 0, "loss": 0.5}, {"step": 10, "loss": 0.25, "each": [1, 2]}, {"step": 20}]


def lines(rows: list[Any]) -> bytes:
    return b"".join(as_json(row) + b"\n" for row in rows)


@given(changed_trees({"config": CONFIG, "seed": 3, "environment": {"torch": "2"}}))
@examples(20)
def test_a_config_of_other_values(tmp_path, tree):
    run = RunDir(tmp_path / "run")
    file = run.path / "config.json"
    file.write_bytes(as_json(tree))
    before = file.read_bytes()
    with refused_well(run.path):
        try:
            run.start(CONFIG, 3)
        except ProbekitError:
            assert file.read_bytes() == before
            raise
        assert json.loads(file.read_bytes())["config"] == CONFIG
    assert [path.name for path in run.path.iterdir()] == ["config.json"]


@given(st.one_of(changed_bytes(as_json({"config": CONFIG})), nodes.map(as_json)))
@examples(12)
def test_a_config_whose_bytes_changed(tmp_path, content):
    run = RunDir(tmp_path / "run")
    (run.path / "config.json").write_bytes(content)
    with refused_well(run.path):
        run.start(CONFIG)
    only_reads(tmp_path, lambda: run.read_json("config.json"), run.path / "config.json")


@given(st.one_of(changed_trees(ROWS).map(lines), changed_bytes(lines(ROWS))))
@examples(30)
def test_metrics_that_were_tampered_with(tmp_path, content):
    run = RunDir(tmp_path / "run")
    file = run.path / "metrics.jsonl"
    file.write_bytes(content)
    rows = only_reads(tmp_path, run.rows, file)
    with refused_well(file):
        run.truncate(10)
    if rows is None:
        assert file.read_bytes() == content
    else:
        steps = [row["step"] for row in run.rows()]
        assert steps == [row["step"] for row in rows if row["step"] <= 10]


@given(st.data())
@examples(30)
def test_a_checkpoint_that_was_tampered_with(tmp_path, data):
    run = RunDir(tmp_path / "run")
    tensors = {"w": torch.ones(2, 3), "optimizer.0.step": torch.zeros(())}
    good = save(tensors, {"step": "7", "meta": json.dumps({"best": [0.5, None]})})
    file = run.path / "checkpoint.safetensors"
    file.write_bytes(data.draw(changed_tensors(good)))
    found = only_reads(tmp_path, run.load_checkpoint, file)
    if found is not None:
        step, tensors, meta = found
        assert step >= 0 and isinstance(meta, dict)


@pytest.mark.parametrize("step", ["", "x", "-1", "9" * 5000, "1.5"])
@pytest.mark.parametrize("meta", ["", "[]", "[" * 10_000, "{}"])
def test_a_checkpoint_of_other_words(tmp_path, step, meta):
    run = RunDir(tmp_path)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(save({}, {"step": step, "meta": meta}))
    with pytest.raises(RunError) as error:
        run.load_checkpoint()
    assert str(error.value).startswith(f"{file} is no checkpoint: ")
    assert str(error.value).endswith("; delete it to start this run over")


@pytest.mark.parametrize("place", ["file/run", "a\0b", "y" * 300, "/proc/none/run"])
def test_folders_that_cannot_be_made(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"^no folder can be made at .*; choose another --out$"):
        RunDir(tmp_path / place)


# A whole run


@pytest.fixture(scope="module")
def coin(tmp_path_factory) -> tuple[recipes.Recipe, dict[str, bytes]]:
    """A recipe, and the files of a run of it that was cut off in its first unit."""
    folder = tmp_path_factory.mktemp("coin")
    (folder / "coin.py").write_text(COIN)
    recipe = recipes.load(recipes.find(str(folder / "coin.py")))
    recipes.run(recipe, recipe.Config(), "quick", folder / "runs")
    files = [path for path in (folder / "runs").rglob("*") if path.is_file()]
    kept = {str(path.relative_to(folder / "runs")): path.read_bytes() for path in files}
    del kept["coin/quick/seed0/summary.json"], kept["coin/quick/summary.json"]
    return recipe, kept


@given(st.data())
@examples(12)
def test_a_run_goes_on_from_a_folder_or_refuses_it(tmp_path_factory, coin, data):
    recipe, files = coin
    folder = tmp_path_factory.mktemp("runs")
    name = data.draw(st.sampled_from(sorted(name for name in files if "seed0" in name)))
    change = changed_tensors if name.endswith("tensors") else changed_bytes
    for each, content in files.items():
        (folder / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / each).write_bytes(data.draw(change(content)) if each == name else content)
    tampered = contents(folder)
    with refused_well("seed0"):
        try:
            recipes.run(recipe, recipe.Config(), "quick", folder)
        except ProbekitError:
            left = contents(folder)
            assert {path: left[path] for path in tampered} == tampered
            raise
    assert not list(folder.rglob("*.tmp"))


# Findings

ROW = row()
SUMMARY = {
    "recipe": "a",
    "preset": "quick",
    "config": {},
    "claims": [ROW, ROW | {"id": "009-2", "measured": None, "interval": None, "published": 1.0}],
    "environment": {"platform": "Linux", "torch": "2", "commit": "0123456789"},
}


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Callable[[bytes], Any]:
    """Reads and shows a folder with one summary, which holds these bytes."""
    monkeypatch.setattr(recipes, "discover", dict)
    file = tmp_path / "results" / "a" / "quick" / "summary.json"
    file.parent.mkdir(parents=True)

    def shown(content: bytes) -> Any:
        file.write_bytes(content)
        with refused_well(tmp_path):
            found = read_findings([tmp_path / "results"])
            return found.to_markdown().encode(), found.to_report(), found.to_frame()

    return shown


@given(tree=changed_trees(SUMMARY))
@examples(30)
def test_a_summary_of_other_values(ledger, tree):
    ledger(as_json(tree))


@given(content=changed_bytes(as_json(SUMMARY)))
@examples(10)
def test_a_summary_whose_bytes_changed(ledger, content):
    ledger(content)


@pytest.mark.parametrize("id", ["²", "1" * 5000, "٣", "-", "0"])
def test_any_id_has_a_place(ledger, id):
    changed = {**SUMMARY, "claims": [ROW, {**ROW, "id": id}]}
    assert ledger(as_json(changed)) is not None


# Flags

FLAGS = ["--steps", "--share", "--seed", "--jobs", "--preset", "--out", "--step", "-h", "--"]
GIVEN = ["", "1", "0", "-1", "1e999", "nan", "9" * 5000, "[]", "x", "None", "quick", "a\0b", "é"]


@given(st.lists(st.sampled_from([*FLAGS, *GIVEN]), min_size=1, max_size=5))
@examples(12)
def test_flags_of_a_run(tmp_path, monkeypatch, coin, flags):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "run", lambda *given: None)
    told(["run", coin[0].__file__, *flags])


WORDS = ["grokking", "3 7 10", "9" * 30, "9" * 5000, "-1", "", "x", "/etc/passwd", "1e999", "²"]
ABOUT = [
    "--label",
    "--decoder",
    "--position",
    "--top",
    "--checkpoint",
    "--seed",
    "--html",
    "--layer",
]


@given(st.lists(st.tuples(st.sampled_from(ABOUT), st.sampled_from(WORDS)), max_size=2), st.data())
@examples(10)
def test_flags_of_inspect(tmp_path, monkeypatch, flags, data):
    monkeypatch.chdir(tmp_path)
    given_input = data.draw(st.sampled_from(["3 7 10", *WORDS]))
    more = [word for flag in flags for word in flag]
    told(["inspect", "grokking", "--input", given_input, *more])


def told(args: list[str]) -> None:
    """The command ends with a status, never in an exception from below."""
    try:
        assert cli.main(args) in (0, 1)
    except SystemExit as end:
        assert end.code in (0, 2)
