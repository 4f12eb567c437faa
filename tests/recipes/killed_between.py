"""Kill a unit before its first file operation, before its second, and so on; finish it each time.

Prints how many operations there are, and after how many of the kills the files came out the same.
A program of its own, since it forks: a child starts with everything imported.
"""

import itertools
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from runfolders import contents

from probekit import recipes

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir")
RECIPE = recipes.load(recipes.find("crystallization"))
CONFIG = RECIPE.Config(steps=8, control_steps=8, batch=8, log_every=2, monitor_every=4)


def killed(folder: Path, before: int | None) -> bool:
    """Run the unit in a child, which kills itself before its so-manieth operation on a file."""
    child = os.fork()
    if child == 0:
        count = itertools.count()

        def watch(event: str, arguments: Any) -> None:
            if event in OPERATIONS and str(arguments[0]).startswith(str(folder)):  # noqa: SIM102
                if next(count) == before:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            RECIPE.run_unit(CONFIG, ("published", 0), folder, 0)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        killed(out / "whole", before=None)
        whole, same = contents(out / "whole"), 0
        for operation in itertools.count():
            folder = out / str(operation)
            if not killed(folder, before=operation):
                break
            killed(folder, before=None)
            for left in folder.rglob(".*.tmp"):
                left.unlink()
            same += contents(folder) == whole
        print(operation, same)


if __name__ == "__main__":
    main()
