"""Units on joblib's other backends: threads, a wide one, and dask with a worker that is killed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import joblib
import pytest
from joblib._parallel_backends import ThreadingBackend
from processes import ENVIRONMENT, ROOT, wait_until
from runfolders import contents

from probekit import recipes
from probekit.errors import RunError

WALK = Path(__file__).parent / "walk.py"


@pytest.fixture
def walk() -> Any:
    return recipes.load(WALK)


class Wide(ThreadingBackend):
    """Four at once, whatever is asked: as dask, which goes by the size of its cluster."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        return 4

    def configure(self, n_jobs: int = 1, **options: Any) -> int:
        return super().configure(4, **options)


def most_at_once(walk: Any, monkeypatch: Any, out: Path, jobs: int) -> int:
    """How many units were in progress at once on the wide backend."""
    inside: list[int] = []
    most: list[int] = []

    def run_unit(config: Any, unit: int, run_dir: Path, position: int) -> None:
        inside.append(unit)
        most.append(len(inside))
        time.sleep(0.05)
        inside.remove(unit)

    monkeypatch.setattr(walk, "run_unit", run_unit)
    monkeypatch.setattr(walk, "collect", lambda config, run_dir: [0.0])
    joblib.register_parallel_backend("wide", Wide)
    with joblib.parallel_config("wide"):
        recipes.run(walk, walk.Config(seeds=tuple(range(12))), "wide", out, jobs=jobs)
    assert len(most) == 12
    return max(most)


def test_units_in_threads_of_one_process_take_turns(walk, monkeypatch, tmp_path) -> None:
    assert most_at_once(walk, monkeypatch, tmp_path, jobs=3) == 1


@pytest.mark.parametrize("jobs", [2, 3])
def test_jobs_is_a_bound_on_any_backend(walk, monkeypatch, tmp_path, jobs) -> None:
    monkeypatch.setattr(recipes, "_one_at_a_time", nullcontext())
    assert most_at_once(walk, monkeypatch, tmp_path, jobs) == jobs


def test_a_unit_waits_for_the_one_that_is_at_it_elsewhere(walk, tmp_path) -> None:
    folder = tmp_path / "walk" / "quick"
    config = walk.Config(seeds=(0,), steps=5, pause=0.0)
    run = threading.Thread(target=recipes.run, args=(walk, config, "quick", tmp_path))
    folder.mkdir(parents=True)
    with recipes._sole_writer(folder, 0):
        run.start()
        wait_until((folder / "config.json").exists, seconds=60)
        run.join(0.5)
        assert not (folder / "seed0").exists()
    run.join(60)
    assert (folder / "summary.json").exists()


def test_a_units_lock_that_cannot_be_written_is_an_error(walk, tmp_path) -> None:
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk" / ".quick.units").touch()
    with pytest.raises(RunError, match=r"^cannot write .*\.quick\.units.*; choose another --out$"):
        recipes.run(walk, walk.Config(seeds=(0,)), "quick", tmp_path)


def test_what_killed_processes_left_half_written_is_cleared(walk, tmp_path) -> None:
    left = tmp_path / "walk" / "quick" / "seed0" / ".summary.json.123.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("{")
    left.with_name(".of-someone-else.tmp").mkdir()
    recipes.run(walk, walk.Config(seeds=(0,), steps=5, pause=0.0), "quick", tmp_path)
    assert not left.exists()
    assert (left.parent / "summary.json").exists()


@pytest.mark.slow
def test_a_dask_worker_killed_in_mid_sweep(walk, tmp_path, record_property) -> None:
    """The page's own program, on another recipe."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    (program,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "dask" in b]
    assert program.count('"routing-swap"') == 1
    (tmp_path / "sweep.py").write_text(program.replace('"routing-swap"', repr(str(WALK))))
    sweep = subprocess.Popen([sys.executable, "sweep.py"], cwd=tmp_path, env=ENVIRONMENT)
    folder = tmp_path / "runs" / "walk" / "quick"
    try:
        wait_until(lambda: in_progress(folder) or sweep.poll() is not None, seconds=600)
        unit, worker = in_progress(folder)[0]
        os.kill(worker, signal.SIGKILL)
        assert sweep.wait(timeout=900) == 0
    finally:
        sweep.kill()
        sweep.wait()
    logs = {seed: log_of(folder, seed) for seed in walk.Config.quick().seeds}
    begun = {
        seed: [line.split()[1:] for line in log if line != "end"] for seed, log in logs.items()
    }
    assert [log.count("end") for log in logs.values()] == [1] * 6
    assert {seed: len(each) for seed, each in begun.items()} == dict.fromkeys(logs, 1) | {unit: 2}
    (first, _), (second, rows) = begun[unit]
    assert (int(first), int(rows) >= 10) == (worker, True)  # it went on from its checkpoint
    assert str(sweep.pid) not in {process for each in begun.values() for process, _ in each}
    assert second != first

    recipes.run(walk, walk.Config.quick(), "quick", tmp_path / "serial")
    assert contents(folder) == contents(tmp_path / "serial" / "walk" / "quick")
    record_property(
        "counts",
        f"{len(logs)} units on 2 dask workers, 1 worker killed in unit {unit} at row {rows}; "
        f"{sum(map(len, begun.values()))} starts, {len(logs)} ends, files as of the serial run",
    )


def log_of(folder: Path, seed: int) -> list[str]:
    log = folder.with_name(f"unit{seed}.log")
    return log.read_text().splitlines() if log.exists() else []


def in_progress(folder: Path) -> list[tuple[int, int]]:
    """Units that have begun and are well past their second checkpoint, with their process."""
    found = []
    for seed in range(6):
        rows, log = folder / f"seed{seed}" / "metrics.jsonl", log_of(folder, seed)
        if log and log[-1] != "end" and rows.exists() and rows.read_text().count("\n") > 12:
            found.append((seed, int(log[-1].split()[1])))
    return found
