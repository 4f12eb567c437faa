"""The command line and the runner behind it, on a recipe small enough to run in a blink."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from families import tiny_native
from processes import ROOT, wait_until

from probekit import cli, pretrained, recipes
from probekit.paths import data_dir

COIN = '''"""Is a coin fair?

Flip it and see.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

import probekit.recipes
from probekit.claims import Claim
from probekit.runs import RunDir

NAME = "coin"


@dataclass(frozen=True)
class Config:
    seeds: tuple[int, ...] = (0, 1)
    flips: int = 100  # how often
    break_at: int = -1
    beats: int = 0

    @classmethod
    def quick(cls):
        return cls()

    @classmethod
    def paper(cls):
        return cls(flips=1000)


CLAIMS = [
    Claim("coin-1", "folklore", "it is fair [sic]", 0.5, 0.2, lambda r: r, lambda r: [1.0], "fake"),
    Claim("coin-2", "folklore", "always heads", 1.0, 0.0, lambda r: r, lambda r: None, "none"),
]


def units(config):
    return config.seeds


def run_unit(config, unit, run_dir, position):
    run = RunDir(run_dir / f"seed{unit}")
    run.start(config, unit)
    if run.done:
        return
    if unit == config.break_at and not Path("repaired").exists():
        raise KeyboardInterrupt
    for _ in range(config.beats):
        with open(run.path / "beats", "a") as file:
            file.write(".")
        time.sleep(0.05)
    flips = torch.rand(config.flips, generator=torch.Generator().manual_seed(unit)).round()
    run.append({"step": 0})
    run.write_json("summary.json", {"heads": flips.mean(), "threads": torch.get_num_threads()})


def collect(config, run_dir):
    return [RunDir(run_dir / f"seed{s}").read_json("summary.json")["heads"] for s in config.seeds]


def present(config, results, run_dir):
    RunDir(run_dir).write_text("report.html", str(results))


if __name__ == "__main__":
    probekit.recipes.main(__file__)
'''


@pytest.fixture
def coin(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("coin.py").write_text(COIN)
    return "coin.py"


@pytest.fixture
def shipped(coin, monkeypatch) -> None:
    """Makes the coin the only recipe that comes along."""
    monkeypatch.setattr(recipes, "data_dir", lambda kind: Path.cwd())


def test_run_writes_the_summary_and_prints_the_verdicts(coin, capsys):
    assert cli.main(["run", coin]) == 0
    summary = json.loads(Path("runs/coin/quick/summary.json").read_text())
    assert list(summary) == ["recipe", "preset", "config", "claims", "environment"]
    assert (summary["recipe"], summary["preset"]) == ("coin", "quick")
    assert summary["config"] == {"seeds": [0, 1], "flips": 100, "break_at": -1, "beats": 0}
    verdicts = [claim["verdict"] for claim in summary["claims"]]
    assert verdicts == ["reproduced", "not reproduced"]
    assert Path("runs/coin/quick/report.html").exists()
    printed = capsys.readouterr().out
    assert "it is fair [sic]" in printed
    for heading in ("claim", "published", "measured", "null", "verdict", "not reproduced"):
        assert heading in printed


def test_flags_of_the_recipe_override_its_preset(coin):
    command = ["run", coin, "--preset", "paper", "--seed", "3", "5", "--break-at", "9"]
    assert cli.main([*command, "--out", "elsewhere"]) == 0
    summary = json.loads(Path("elsewhere/coin/paper/summary.json").read_text())
    assert summary["config"] == {"seeds": [3, 5], "flips": 1000, "break_at": 9, "beats": 0}


def test_the_number_of_jobs_changes_no_result(coin):
    for jobs in ("1", "2"):
        assert cli.main(["run", coin, "--jobs", jobs, "--out", jobs]) == 0
    one, two = (Path(jobs, "coin/quick/summary.json").read_text() for jobs in ("1", "2"))
    assert one == two


def test_units_run_on_one_thread_and_leave_the_callers_setting_alone(coin):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert cli.main(["run", coin]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    units = [json.loads(path.read_text()) for path in Path().glob("runs/coin/quick/*/summary.json")]
    assert [unit["threads"] for unit in units] == [1, 1]


def test_an_interrupted_run_goes_on_where_it_stopped(coin, capsys):
    command = ["run", coin, "--break-at", "1"]
    assert cli.main(command) == 130
    assert capsys.readouterr().err == (
        "\nprobekit: interrupted; finished work is kept:"
        " the same command again goes on where it stopped\n"
    )
    assert not Path("runs/coin/quick/summary.json").exists()
    Path("repaired").touch()
    assert cli.main(command) == 0
    assert Path("runs/coin/quick/summary.json").exists()
    # A second pass over seed 0 would have left a second row.
    assert Path("runs/coin/quick/seed0/metrics.jsonl").read_text() == '{"step": 0}\n'


def test_two_runs_do_not_write_to_one_folder(coin, capsys):
    """In a process of its own, as a lock does not hold against the process that has it."""
    command = "import sys; from probekit.cli import main; main(sys.argv[1:])"
    first = subprocess.Popen(
        [sys.executable, "-c", command, "run", coin, "--beats", "1000"],
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: Path("runs/coin/quick/seed0/beats").exists(), seconds=120)
        assert cli.main(["run", coin, "--beats", "1000"]) == 1
        said = capsys.readouterr().err
        assert "another run writes to runs/coin/quick; wait for its end or choose another" in said
        assert cli.main(["run", coin, "--out", "elsewhere"]) == 0
    finally:
        first.kill()
        first.wait()
    assert not Path("runs/coin/quick/summary.json").exists()
    shutil.rmtree("runs/coin/quick/seed0")
    Path("runs/coin/quick/config.json").unlink()
    assert cli.main(["run", coin]) == 0  # the lock went with its process


def test_a_killed_runner_takes_its_workers_along(coin):
    command = "import sys; from probekit.cli import main; main(sys.argv[1:])"
    runner = subprocess.Popen(
        [sys.executable, "-c", command, "run", coin, "--jobs", "2", "--beats", "1000"],
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    beats = [Path(f"runs/coin/quick/seed{seed}/beats") for seed in (0, 1)]
    wait_until(lambda: all(path.exists() for path in beats), seconds=120)
    runner.kill()
    runner.wait()
    wait_until(lambda: not grows(beats), seconds=10)  # by themselves they beat for 50 seconds


def grows(files: list[Path]) -> bool:
    before = [file.stat().st_size for file in files]
    time.sleep(0.5)
    return before != [file.stat().st_size for file in files]


def test_another_config_in_the_same_folder_is_refused(coin, capsys):
    assert cli.main(["run", coin]) == 0
    capsys.readouterr()
    assert cli.main(["run", coin, "--flips", "7"]) == 1
    assert capsys.readouterr().err == (
        "probekit: runs/coin/quick holds a run with another config: flips (100 there, 7 here);"
        " choose another --out or delete the folder\n"
    )


def test_help_shows_the_flags_of_the_recipe(coin, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", coin, "--preset", "paper", "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for part in ("Is a coin fair?", "--seed ", "--jobs INT", "how often (default: 1000)"):
        assert part in printed


@pytest.mark.parametrize("name", recipes.discover())
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_every_recipe_that_comes_along_takes_flags(name, preset, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", name, "--preset", preset, "--help"])
    assert caught.value.code == 0
    assert "--seed " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"), [(["--flip", "7"], "--flips"), (["--preset", "fast"], "'quick', 'paper'")]
)
def test_a_wrong_flag_is_answered_with_the_right_one(coin, capsys, flags, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", coin, *flags])
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--jobs", "0"], "jobs must be at least 1, given 0"),
        (["--seed", "0", "-3"], "seeds must be whole numbers from 0, given -3"),
    ],
)
def test_jobs_and_seeds_too_small_are_refused(coin, capsys, flags, message):
    assert cli.main(["run", coin, *flags]) == 1
    assert capsys.readouterr().err == f"probekit: {message}\n"
    assert not Path("runs").exists()


def test_sites_of_weights_in_a_folder(monkeypatch, capsys):
    seen: list[dict] = []

    def load(name: str, **kwargs: Any) -> Any:
        seen.append({"name": name, **kwargs})
        return tiny_native()

    monkeypatch.setattr(pretrained, "load", load)
    assert cli.main(["sites", "minilm=a/folder"]) == 0
    assert seen == [{"name": "minilm", "checkpoint": "a/folder"}]
    assert "0.pattern" in capsys.readouterr().out


@pytest.mark.usefixtures("shipped")
def test_ls_shows_names_and_titles(capsys):
    assert cli.main(["ls"]) == 0
    assert capsys.readouterr().out == "coin  Is a coin fair?\n"
    assert cli.main(["ls", "--names"]) == 0
    assert capsys.readouterr().out == "coin\n"


def test_a_reader_that_stops_reading_gets_no_traceback():
    """As in `probekit ls | head -1`."""
    command = [sys.executable, "-m", "probekit.cli", "ls"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    assert (child.stderr.read(), child.wait()) == (b"", 141)
    child.stderr.close()


def test_a_pipe_that_breaks_elsewhere_is_no_reader_that_left(monkeypatch):
    def broken(*_: object) -> None:
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr(cli, "_run_with_flags", broken)
    with pytest.raises(BrokenPipeError, match="a worker's"):
        cli.main(["run", "coin"])


@pytest.mark.usefixtures("shipped")
def test_show_prints_the_docstring(capsys):
    assert cli.main(["show", "coin"]) == 0
    expected = f"Is a coin fair?\n\nFlip it and see.\n\nfile: {Path.cwd() / 'coin.py'}\n"
    assert capsys.readouterr().out == expected


@pytest.mark.usefixtures("shipped")
def test_cp_copies_and_never_overwrites(capsys):
    assert cli.main(["cp", "coin", "mine.py"]) == 0
    said = "copied to mine.py; run it with `probekit run mine.py`\n"
    assert capsys.readouterr().out == said
    assert Path("mine.py").read_text() == COIN
    assert cli.main(["cp", "coin"]) == 1
    message = "probekit: coin.py exists; name another file or delete it\n"
    assert capsys.readouterr().err == message


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("command", ["run", "show", "cp"])
def test_an_unknown_recipe_points_at_ls(capsys, command):
    assert cli.main([command, "coins"]) == 1
    assert capsys.readouterr().err == (
        "probekit: unknown recipe 'coins'; valid: coin; closest: 'coin'; see `probekit ls`\n"
    )


def test_a_missing_recipe_file_points_at_ls(coin, capsys):
    assert cli.main(["run", "mine.py"]) == 1
    message = "probekit: no recipe file mine.py; see `probekit ls` for those that come along\n"
    assert capsys.readouterr().err == message


def test_a_file_that_is_no_recipe_lacks_names(coin, capsys):
    Path("empty.py").write_text('"""Nothing."""\nNAME = "empty"\n')
    assert cli.main(["run", "empty.py"]) == 1
    assert capsys.readouterr().err == (
        f"probekit: recipe {Path.cwd() / 'empty.py'} lacks CLAIMS, Config, units, run_unit,"
        " collect, present; see probekit/recipes.py\n"
    )


def test_a_recipe_runs_as_a_script(coin):
    script = [sys.executable, Path(coin).resolve(), "--seed", "4", "--out", "direct"]
    subprocess.run(script, check=True, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    summary = json.loads(Path("direct/coin/quick/summary.json").read_text())
    assert summary["config"]["seeds"] == [4]


def test_listing_imports_neither_torch_nor_a_recipe():
    code = (
        "import sys; from probekit.cli import main; main(['ls', '--names']);"
        "print([name for name in ('torch', 'transformers', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    *names, imported = done.stdout.splitlines()
    assert names == [path.stem for path in sorted(data_dir("recipes").glob("*.py"))]
    assert imported == "[]"


def test_the_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"probekit {importlib.metadata.version('probekit')}\n"
