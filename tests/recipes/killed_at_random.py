"""Kill a recipe at random moments, start it again each time, and compare what it leaves.

Prints the counts as JSON. A program of its own, since it forks: what it starts has everything
imported, so that moments of work are hit and not of imports. Workers are forked as well (joblib's
multiprocessing), where `--jobs` by itself starts new ones.
"""

import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import joblib
from runfolders import contents

from probekit import cli, recipes

KILLS = 20
#: Seven units; a checkpoint of each every 40 steps.
FLAGS = ["--seed", "0", "1", "--control-seeds", "0", "--steps", "160", "--control-steps", "120"]
FLAGS += ["--batch", "16", "--log-every", "20", "--monitor-every", "40", "--jobs", "2"]
HOW = ("the runner with its workers", "the runner alone")


def start(out: Path) -> int:
    """A process that runs `probekit run crystallization --jobs 2`, with a group of its own."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    status = 1
    try:
        with joblib.parallel_config("multiprocessing"):
            status = cli.main(["run", "crystallization", "--out", str(out), *FLAGS])
    finally:
        os._exit(status)


def ended(child: int, within: float) -> int | None:
    """The exit status, negative for a signal; None if it has none after so many seconds."""
    deadline = time.monotonic() + within
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)


def killed_and_compared(out: Path) -> dict[str, Any]:
    began = time.monotonic()
    assert ended(start(out / "whole"), within=3000) == 0
    seconds = time.monotonic() - began
    whole, moments = contents(out / "whole"), random.Random(0)
    status, counts = None, Counter(dict.fromkeys(HOW, 0))
    runs = {"finished": 0, "same": 0, "starts": 0}
    while sum(counts.values()) < KILLS or status:
        folder = out / f"killed{runs['finished']}"
        child = start(folder)
        runs["starts"] += 1
        kill = sum(counts.values()) < KILLS
        status = ended(child, within=moments.uniform(0, seconds) if kill else 3000)
        if status is None:
            alone = moments.random() < 0.5
            (os.kill if alone else os.killpg)(child, signal.SIGKILL)
            status = ended(child, within=60)
            assert status == -signal.SIGKILL
            counts[HOW[alone]] += 1
        else:
            assert status == 0
            runs["finished"] += 1
            runs["same"] += contents(folder) == whole
    return {"seconds": seconds, "files": len(whole), "kills": dict(counts), **runs}


def main() -> None:
    recipes.load(recipes.find("crystallization"))
    with tempfile.TemporaryDirectory() as made:
        print(json.dumps(killed_and_compared(Path(made))))


if __name__ == "__main__":
    main()
