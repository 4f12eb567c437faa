"""Processes that tests start, watch and kill."""

import os
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: A child process finds this probekit and not another one.
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
