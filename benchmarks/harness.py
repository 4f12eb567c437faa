"""What the benchmarks share: arms that take turns, ratios within a round, tables, results in files.

Every round runs each arm once, in random order, after one round of warming up. A ratio is the
median over rounds of arm / reference within the round, so that what slows the machine for a while
slows both; in parentheses stands the ratio of the fastest runs, which other programs disturb
least. A benchmark opens one :class:`Report`, which prints what it is given and, when its block ends
without an error, replaces ``results/<name>.json``; ``tables.py`` makes README.md from these.
"""

import importlib.metadata
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self, TypeVar

import torch
import tyro
from scipy.stats import binom
from tqdm.auto import trange

from probekit.console import print_rows
from probekit.environment import environment, machine
from probekit.runs import json_safe, write_atomic

RESULTS = Path(__file__).parent / "results"
_KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}


@dataclass(frozen=True)
class Settings:
    """What every benchmark can be told."""

    rounds: int = 20
    """Times that each arm runs, after a round of warming up."""
    threads: int = 2
    """Threads of torch."""
    save: bool = True
    """Replace results/<name>.json; --no-save for a glance."""


Chosen = TypeVar("Chosen", bound=Settings)


def settings(default: Chosen, doc: str | None) -> Chosen:
    """What the command line says; torch gets its threads."""
    chosen = tyro.cli(type(default), default=default, description=doc)
    torch.set_num_threads(chosen.threads)
    return chosen


def keep_freed_memory() -> None:
    """Start this process anew so that it keeps the memory that it frees, for every arm alike.

    By default glibc hands 12 MB blocks back to the kernel, and the page faults of getting them
    again fall on one arm or another as their addresses happen to lie: from one process to the next
    the ratio of the same two arms was seen to move between 0.95 and 1.13.
    """
    if not _KEEP_FREED_MEMORY.items() <= os.environ.items():  # read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_KEEP_FREED_MEMORY})


class Times(dict[str, list[float]]):
    """Seconds of each arm in each round."""

    def ratio(self, arm: str, reference: str) -> float:
        """How many times ``reference`` the arm takes: the median over rounds."""
        return median(a / b for a, b in zip(self[arm], self[reference], strict=True))

    def interval(self, arm: str, reference: str) -> tuple[float, float]:
        """Between which of the rounds' ratios the median of more rounds lies, at 95 %."""
        ratios = sorted(a / b for a, b in zip(self[arm], self[reference], strict=True))
        beyond = max(int(binom.ppf(0.025, len(ratios), 0.5)) - 1, 0)  # order statistics, exact
        return ratios[beyond], ratios[-1 - beyond]

    def fastest(self, arm: str, reference: str) -> float:
        """The same for the fastest run of either."""
        return min(self[arm]) / min(self[reference])

    def beyond(self, arm: str, reference: str) -> float:
        """How many seconds more the arm takes: the median over rounds."""
        return median(a - b for a, b in zip(self[arm], self[reference], strict=True))

    def median(self, arm: str) -> float:
        """Seconds of the arm: the median over rounds."""
        return median(self[arm])


def timed(
    arms: Mapping[str, Callable[[], object]],
    rounds: int,
    title: str = "",
    items: Mapping[str, int] | None = None,
) -> Times:
    """Run every arm in every round.

    Args:
        items: how many things an arm does in one call, where not one: times are of one thing.
    """
    times = Times({name: [] for name in arms})
    for round_ in trange(rounds + 1, desc=title, leave=False):
        for name in random.sample(list(arms), len(arms)):
            begin = time.perf_counter()
            arms[name]()
            taken = time.perf_counter() - begin
            if round_:
                times[name].append(taken / (items or {}).get(name, 1))
    return times


class Report:
    """What one benchmark finds; a context manager.

    Args:
        script: the benchmark's ``__file__``; ``doc`` its docstring.
    """

    def __init__(self, script: str, doc: str | None, chosen: Settings) -> None:
        self.name, self._chosen = Path(script).stem, chosen
        self._begin = time.perf_counter()
        self.found: dict[str, Any] = {
            "benchmark": self.name,
            "asks": (doc or "").partition("\n")[0],
            "settings": chosen,
            "date": time.strftime("%Y-%m-%d"),
            "load": round(os.getloadavg()[0], 2),
            "machine": machine(),
            "versions": versions(),
            "rows": [],
            "limits": [],
            "notes": [],
        }

    def table(
        self, question: str, times: Times, over: Sequence[str], unit: str = "ms", scale: float = 1e3
    ) -> None:
        """A row per arm: its median, and its ratios to the arms ``over``."""
        rows = [
            {
                "question": question,
                "arm": arm,
                "median": scale * times.median(arm),
                "unit": unit,
                "ratios": {other: times.ratio(arm, other) for other in over},
                "fastest": {other: times.fastest(arm, other) for other in over},
            }
            for arm in times
        ]
        self.found["rows"] += rows
        print_rows(question, shown(rows))

    def value(self, question: str, arm: str, value: float, unit: str) -> None:
        """A row that is no time."""
        row = {"question": question, "arm": arm, "median": value, "unit": unit}
        self.found["rows"].append({**row, "ratios": {}, "fastest": {}})
        print(f"{question}: {arm} {value:.4g} {unit}")

    def limit(
        self,
        what: str,
        measured: float,
        limit: float,
        unit: str = "times",
        interval: tuple[float, float] | None = None,
    ) -> None:
        """A number that may be at most ``limit``, and where that of more rounds would lie."""
        row = {"what": what, "measured": measured, "limit": limit, "unit": unit}
        row["interval"] = interval
        self.found["limits"].append(row)
        print(f"{what}: {measured_text(row)} (limit {limit:g}, {verdict(row)})")

    def note(self, text: str) -> None:
        """What could not be measured, or must be known to read the rest."""
        self.found["notes"].append(text)
        print(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._chosen.save:
            self.found["seconds"] = round(time.perf_counter() - self._begin)
            RESULTS.mkdir(exist_ok=True)
            text = json.dumps(json_safe(self.found), indent=1, ensure_ascii=False) + "\n"
            write_atomic(RESULTS / f"{self.name}.json", text.encode())


def shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows of one question as they are printed."""
    return [
        {
            "arm": row["arm"],
            "median": f"{row['median']:.4g} {row['unit']}",
            **{
                f"/ {other}": f"{ratio:.3g} ({row['fastest'][other]:.3g})"
                for other, ratio in row["ratios"].items()
            },
        }
        for row in rows
    ]


def measured_text(limit: Mapping[str, Any]) -> str:
    """What was measured, with its interval where it has one, and its unit."""
    low_high = limit.get("interval")
    spread = f" ({low_high[0]:.4g} to {low_high[1]:.4g})" if low_high else ""
    return f"{limit['measured']:.4g}{spread} {limit['unit']}"


def verdict(limit: Mapping[str, Any]) -> str:
    """Whether what was measured lies within its limit."""
    return "holds" if limit["measured"] <= limit["limit"] else "exceeded"


def versions() -> dict[str, str | None]:
    """Of this package, of what it stands on, and of what it is compared with."""
    found = dict(environment())
    for package in ("nnsight", "pyvene", "torchdeq", "nltk"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
