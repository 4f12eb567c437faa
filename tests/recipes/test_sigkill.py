"""A recipe that is killed outright, at random moments and between any two file operations."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from processes import ENVIRONMENT, wait_until
from runfolders import contents

KILLS = 20
HOW = ("of all its processes", "of the runner alone")
#: About ten seconds of work on two cores: seven units, a checkpoint a second or so.
FLAGS = {
    "seed": (0, 1),
    "control-seeds": (0,),
    "steps": 600,
    "control-steps": 400,
    "batch": 64,
    "log-every": 20,
    "monitor-every": 40,
    "jobs": 2,
}


def start(out: Path) -> subprocess.Popen:
    """`probekit run crystallization` in a process group of its own."""
    code = "from probekit.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, "run", "crystallization", "--out", str(out)]
    for name, value in FLAGS.items():
        command += [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, **quiet)


def wait_for_work(process: subprocess.Popen, out: Path) -> None:
    """Until the process has written something, or ended."""
    began = time.time_ns()

    def worked() -> bool:
        files = (path for path in out.glob("*/quick/**/*") if path.is_file())
        return any(path.stat().st_mtime_ns > began for path in files)

    wait_until(lambda: process.poll() is not None or worked(), seconds=600)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_files(tmp_path, record_property) -> None:
    """Of working time mostly, one kill in four while processes are being started."""
    whole, starting, working = undisturbed(tmp_path / "whole")
    moments, counts, ended = random.Random(0), Counter(), 0
    while True:
        out = tmp_path / f"killed{ended}"
        process = start(out)
        counts["starts"] += 1
        early, alone = moments.random() < 0.25, moments.random() < 0.5
        try:
            if sum(counts[how] for how in HOW) < KILLS:
                if not early:
                    wait_for_work(process, out)
                wait_or_kill(process, moments.uniform(0, starting if early else working), alone)
            assert process.wait(timeout=900) in (0, -signal.SIGKILL)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            counts[HOW[alone]] += 1
            counts["while starting" if early else "while working"] += 1
            continue
        assert contents(out) == whole
        ended += 1
        if sum(counts[how] for how in HOW) == KILLS:
            break
    assert min(counts[how] for how in HOW) >= 3
    said = ", ".join(f"{count} {what}" for what, count in counts.items())
    record_property(
        "counts",
        f"{KILLS} SIGKILLs ({said}), {ended} runs to their end, all {len(whole)} files as of the "
        f"undisturbed run of {starting:.0f} + {working:.0f} s",
    )


def undisturbed(out: Path) -> tuple[dict[str, Any], float, float]:
    """What is left, and the seconds before the first file and after."""
    began, process = time.monotonic(), start(out)
    wait_for_work(process, out)
    worked = time.monotonic()
    assert process.wait(timeout=900) == 0
    return contents(out), worked - began, time.monotonic() - worked


def wait_or_kill(process: subprocess.Popen, seconds: float, alone: bool) -> None:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        if alone:  # its workers end by themselves
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_killed_between_any_two_file_operations_a_unit_ends_the_same(record_property) -> None:
    command = [sys.executable, str(Path(__file__).parent / "killed_between.py")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    operations, same = map(int, done.stdout.split())
    assert operations == same > 20
    record_property("counts", f"{operations} SIGKILLs, one before each file operation of a unit")
