"""README.md of this folder and the limits in the project's own, from ``results/``.

python benchmarks/tables.py        # done by `make bench`
"""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import RESULTS, measured_text, shown, verdict

from probekit.environment import machine_text
from probekit.findings import markdown_table
from probekit.runs import write_atomic

UNSHOWN = ("commit", "machine", "platform")
README = Path(__file__).parent / "README.md"
FRONT = README.parent.parent / "README.md"
BEGIN, END = "<!-- limits -->\n", "<!-- /limits -->"
INTRO = """\
Written by `python benchmarks/tables.py` from `benchmarks/results/`, which `make bench` replaces;
no number here is typed. Each benchmark is one process in which the arms take turns: every round
runs each of them once, in random order. A ratio is the median over rounds of the ratio within the
round; in parentheses stands the ratio of the fastest runs, which other programs disturb least.
Ratios below 1 are faster than what the column names. In the limits' parentheses stand the 95 %
bounds of the median, by order statistics: where they lie on both sides of a limit, the verdict is a
tie that the rounds happened to decide."""


def read(folder: Path = RESULTS) -> list[Mapping[str, Any]]:
    """The results of every benchmark, by name."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The text of README.md."""
    if not results:
        return f"# Benchmarks\n\n{INTRO}\n\nNothing has run yet.\n"
    parts = ["# Benchmarks", INTRO, "## Limits", markdown_table(limits(results))]
    for found in results:
        parts += [f"## {found['benchmark']}", found["asks"]]
        for question, rows in groupby(found["rows"], key=lambda row: row["question"]):
            parts += [f"**{question}**", markdown_table(shown(list(rows)))]
        parts += [f"- {note}" for note in found["notes"]]
    parts += ["## Runs", markdown_table([run(found) for found in results])]
    return "\n\n".join(parts) + "\n"


def front(text: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The project's README.md with the limits of ``results`` between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{markdown_table(limits(results))}\n{END}{after}"


def limits(results: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row for every limit of every benchmark."""
    return [
        {
            "benchmark": found["benchmark"],
            "what": limit["what"],
            "measured": measured_text(limit),
            "at most": f"{limit['limit']:g}",
            "verdict": verdict(limit),
        }
        for found in results
        for limit in found["limits"]
    ]


def run(found: Mapping[str, Any]) -> dict[str, str]:
    """When, where and with what one benchmark ran."""
    versions = [each for each in found["versions"].items() if each[0] not in UNSHOWN]
    return {
        "command": f"`python benchmarks/{found['benchmark']}.py`",
        "took": f"{found['seconds']} s",
        "date": found["date"],
        "load before": f"{found['load']:g}",
        "machine": machine_text(found["machine"]),
        "versions": ", ".join(f"{name} {version}" for name, version in versions),
    }


if __name__ == "__main__":
    write_atomic(README, markdown(read()).encode())
    write_atomic(FRONT, front(FRONT.read_text(), read()).encode())
