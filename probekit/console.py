"""What a run prints: its resolved configuration before, its claims and verdicts after."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from probekit.claims import in_words
from probekit.environment import environment

_VERDICTS = {
    "reproduced": "green",
    "explained by null": "yellow",
    "not reproduced": "red",
    "blocked": "magenta",
}


def print_run(recipe: str, preset: str, config: Any, folder: Path) -> None:
    """Print the configuration, the versions and the commit that a run starts with."""
    table = Table(title=f"{recipe}, preset {preset}", show_header=False, title_justify="left")
    for field in dataclasses.fields(config):
        table.add_row(field.name, Text(repr(getattr(config, field.name))))
    for name, value in environment().items():
        table.add_row(Text(name, style="dim"), Text(str(value), style="dim"))
    table.add_row("folder", Text(str(folder)))
    _console().print(table)


def print_claims(claims: list[dict[str, Any]], summary: Path) -> None:
    """Print a row per claim, and where the same stands as JSON."""
    table = Table(title="claims", title_justify="left", show_lines=True)
    for heading in ("claim", "published", "measured", "null", "verdict"):
        table.add_column(heading, ratio=3 if heading == "claim" else 1)
    for claim in claims:
        verdict = Text(claim["verdict"], style=_VERDICTS[claim["verdict"]])
        if claim["reason"] is not None:
            verdict.append(f": {claim['reason']}")
        table.add_row(
            Text(f"{claim['id']} {claim['statement']}"),
            in_words(claim["published"], claim["tolerance"]),
            _measured(claim),
            f"{_number(claim['null'])}\n{claim['control']}",
            verdict,
        )
    _console().print(table)
    _console().print(Text(f"written to {summary}"))


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of plain rows with the same keys."""
    table = Table(title=title, title_justify="left")
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = (_number(v) if isinstance(v, float) else str(v) for v in row.values())
        table.add_row(*map(Text, cells))
    _console().print(table)


def _measured(claim: dict[str, Any]) -> str:
    lines = [_number(claim["measured"])]
    if claim["interval"] is not None and claim["interval"][0] != claim["interval"][1]:
        lines.append(" to ".join(map(_number, claim["interval"])))
    if claim["observed"] < claim["n"]:
        lines.append(f"in {claim['observed']} of {claim['n']} seeds")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _console() -> Console:
    # A pipe has no width; rich would assume 80 columns and break every number in two.
    return Console(width=None if sys.stdout.isatty() else 120)
