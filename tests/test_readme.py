"""README keeps its promises: its code runs, its table is what is measured, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import causality
import pytest
import torch
import transformers

import probekit as pk
from probekit import recipes

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_first_lines_draw_a_bert(minilm_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = BLOCKS[0].replace("path/to/your/bert", str(minilm_folder))
    names: dict = {}
    exec(code, names)
    assert names["run"]["vdi"].values.shape == (6, 12)
    assert names["run"]["vdi"].plot().images  # a picture of heads
    assert (tmp_path / "vdi.png").stat().st_size > 10_000


def test_first_screen_ends_with_the_number_it_says():
    *body, last = BLOCKS[1].strip().split("\n")
    expression, _, promised = last.partition("#")
    names: dict = {"pk": pk}
    exec("\n".join(body), names)
    assert eval(expression, names) == float(promised)
    assert names["run"]["vdi"].dims == ("layer", "head")


def test_the_interventions_shown_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (shown,) = [block for block in BLOCKS if "pk.SwapQK" in block]
    names: dict = {"pk": pk}
    exec(BLOCKS[1] + shown, names)
    assert names["run"]["vdi"].values.shape == (1, 2)
    assert len(names["branches"]) == 4


def test_the_relaxed_model_shown_is_diagnosed():
    (shown,) = [block for block in BLOCKS if "equilibrium" in block]
    names: dict = {"pk": pk, "torch": torch}
    exec(shown, names)
    assert names["run"]["vdi"].values.shape[-1] == names["model"].cfg.n_heads
    assert names["diagnosis"]
    assert float(names["model"].blocks[0].attn.o.weight.grad.norm()) > 0


def test_the_battery_shown_has_chance_beside_every_score():
    config = transformers.T5Config(
        vocab_size=60, d_model=32, d_kv=8, num_heads=4, d_ff=64, num_layers=2
    )
    names = {"pk": pk, "transformers": transformers, "config": config}
    exec(next(block for block in BLOCKS if "weight_battery" in block), names)
    assert len(names["battery"].qk) == 4 * (2 + 2 + 2)


def test_causality_table_is_what_is_measured():
    shown = TEXT.partition(causality.BEGIN)[2].partition(causality.END)[0]
    measured = causality.table()
    assert shown == measured, "README is out of date: run python tests/causality.py"
    assert "NO EFFECT" not in measured


@pytest.mark.parametrize("line", re.findall(r"^probekit (.*)$", TEXT, re.MULTILINE))
def test_commands_are_understood(line):
    words = line.partition("#")[0].split()
    if words[0] == "run":
        assert words[1] in recipes.discover()
        words = words[:2]
    command = [sys.executable, "-c", "from probekit.cli import main; raise SystemExit(main())"]
    done = subprocess.run([*command, *words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_layout_names_every_folder():
    named = set(re.findall(r"^\| `(\w+)/`", TEXT, re.MULTILINE))
    there = {
        path.parts[0]
        for path in map(Path, _tracked())
        if len(path.parts) > 1 and not path.parts[0].startswith(".")
    }
    assert named == there


def _tracked() -> list[str]:
    command = ["git", "-C", str(README.parent), "ls-files"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
