"""Kill a recipe at random moments, start it again each time, and compare what it leaves.

Prints the counts as JSON. A program of its own, since it forks: what it starts has everything
imported, so that moments of work are hit and not of imports. Moments are CPU seconds, whatever else
the machine does. Workers are forked as well (joblib's
multiprocessing), where `--jobs` by itself starts new ones.
"""

import json
import math
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import psutil
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


def used(child: int) -> float:
    """CPU seconds of a process and its children so far."""
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(child)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                seconds += times.user + times.system
    return seconds


def ended(child: int, before: float) -> bool:
    """Whether the process ended, well, before it used so many CPU seconds with its children."""
    while used(child) < before:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return True
        time.sleep(0.01)
    return False


def killed_and_compared(out: Path) -> dict[str, Any]:
    _, status, usage = os.wait4(start(out / "whole"), 0)
    assert status == 0
    seconds, whole = usage.ru_utime + usage.ru_stime, contents(out / "whole")
    moments, counts = random.Random(0), Counter(dict.fromkeys(HOW, 0))
    runs, killed = {"finished": 0, "same": 0, "starts": 0}, True
    while counts.total() < KILLS or killed:
        folder = out / f"killed{runs['finished']}"
        child = start(folder)
        runs["starts"] += 1
        moment = moments.uniform(0, seconds) if counts.total() < KILLS else math.inf
        alone = moments.random() < 0.5
        killed = not ended(child, before=moment)
        if killed:
            (os.kill if alone else os.killpg)(child, signal.SIGKILL)
            # It may have ended by itself in between.
            killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
            counts[HOW[alone]] += killed
        if not killed:
            runs["finished"] += 1
            runs["same"] += contents(folder) == whole
    return {"seconds": seconds, "files": len(whole), "kills": dict(counts), **runs}


def main() -> None:
    recipes.load(recipes.find("crystallization"))
    with tempfile.TemporaryDirectory() as made:
        os.environ["JOBLIB_TEMP_FOLDER"] = made  # what killed processes leave goes with it
        print(json.dumps(killed_and_compared(Path(made))))


if __name__ == "__main__":
    main()
