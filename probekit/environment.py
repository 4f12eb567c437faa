"""What a number may depend on: versions of packages, the machine, the commit of a checkout."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from probekit.paths import checkout

_PACKAGES = ("probekit", "torch", "transformer-lens", "transformers")


@cache
def environment() -> dict[str, str | None]:
    """Versions (None: not installed), the machine in words, and the commit in a checkout."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
        "machine": machine_text(machine()),
    }


def machine() -> dict[str, Any]:
    """The processor, how many of its cores this process may use, and the memory (None: unknown)."""
    cpu, memory = platform.processor(), None
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        cpu = next(filter(None, named), cpu)
    with suppress(AttributeError, OSError, ValueError):  # not on Windows
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.machine()}",
    }


def machine_text(found: Mapping[str, Any]) -> str:
    """What :func:`machine` found, in a line.

    Example:
        >>> machine_text({"cpu": "EPYC", "cores": 2, "memory_gib": 24, "system": "Linux x86_64"})
        'EPYC, 2 cores, 24 GiB, Linux x86_64'
    """
    return f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, {found['system']}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # probekit itself, when a checkout is used without being installed


def _commit() -> str | None:
    root = checkout()
    if root is None:
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, no repository, or no commit yet
    return done.stdout.strip()
