"""Ctrl-C ends a run with one line, and the same command goes on where it stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from resumable import COIN

from probekit import cli

ROOT = Path(cli.__file__).parents[1]
# Time to be interrupted in, between one step and the next, until the test has seen enough.
SLOW = COIN.replace(
    """        run.append({"step": step})
""",
    """        run.append({"step": step})
        while step == 1 and not Path("go-on").exists():
            time.sleep(0.05)
""",
).replace("NAME =", "import time\nfrom pathlib import Path\n\nNAME =")


def started(*more: str) -> subprocess.Popen:
    """A run in a session of its own, which Ctrl-C reaches whole, even where ours ignores it."""
    return subprocess.Popen(
        [sys.executable, "-m", "probekit.cli", "run", "coin.py", *more],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupted_run(tmp_path, monkeypatch, jobs):
    monkeypatch.chdir(tmp_path)
    Path("coin.py").write_text(SLOW)
    rows = [Path(f"runs/coin/quick/seed{seed}/metrics.jsonl") for seed in range(int(jobs))]
    run = started("--jobs", jobs)
    try:
        wait_until(lambda: all(path.exists() and len(lines(path)) == 2 for path in rows))
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130
    assert said == (
        "\nprobekit: interrupted; finished work is kept:"
        " the same command again goes on where it stopped\n"
    )
    assert not Path("runs/coin/quick/summary.json").exists()
    Path("go-on").touch()
    assert cli.main(["run", "coin.py"]) == 0
    assert cli.main(["run", "coin.py", "--out", "undisturbed"]) == 0
    one, other = (Path(out, "coin/quick/summary.json") for out in ("runs", "undisturbed"))
    assert one.read_text() == other.read_text()
    for path in rows:
        assert lines(path) == [f'{{"step": {step}}}' for step in range(3)]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def wait_until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
