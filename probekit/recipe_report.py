"""What every recipe ends with: tables on the terminal, figures, and a page that holds them all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .claims import Claim, decide_all, shown
from .console import print_rows
from .report import Report


def present_results(
    title: str,
    text: str,
    claims: Sequence[Claim],
    results: Any,
    run_dir: Path,
    *,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    figures: Mapping[str, tuple[Figure, str]],
) -> None:
    """Print the tables, write the figures and ``report.html``, which shows the verdicts too.

    Args:
        tables: rows by heading.
        figures: with captions, by file name.
    """
    rows = decide_all(claims, results, run_dir)
    report = Report(title).text(text).table([shown(row) for row in rows])
    for heading, rows in tables.items():
        print_rows(heading, rows)
        report.text(f"### {heading}").table(rows)
    report.figures(dict(figures), run_dir)
    report.save(run_dir / "report.html")
