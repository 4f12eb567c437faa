"""How recipes on pretrained models end: what is here is shown, and what is not says why."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..claims import Claim
from ..recipe_report import present_results
from .units import PRETRAINED, Results, known

Rows = Sequence[Mapping[str, Any]]
Kinds = Mapping[str, Sequence[Mapping[str, Any]]]  # kind -> readings


def present_models(
    title: str,
    text: str,
    claims: Sequence[Claim],
    results: Results,
    run_dir: Path,
    *,
    tables: Callable[[Results], Mapping[str, Rows]],
    figures: Callable[[Kinds], Mapping[str, tuple[Figure, str]]],
) -> None:
    """:func:`~probekit.recipe_report.present_results` of the models whose weights are here.

    Args:
        tables: rows by heading, from the models that are here; what has no row is not shown.
        figures: of one model by name, with captions; the model's name is added to both.
    """
    reasons = [kinds[PRETRAINED][0].get("missing") for kinds in results.values()]
    shown: dict[str, Rows] = {}
    drawn: dict[str, tuple[Figure, str]] = {}
    if any(reasons):
        shown["missing"] = [{"reason": reason} for reason in reasons if reason]
    if not all(reasons):
        here = known(results)
        shown |= {heading: rows for heading, rows in tables(here).items() if rows}
        for model, kinds in here.items():
            for name, (figure, caption) in figures(kinds).items():
                drawn[f"{name}-{model}"] = (figure, f"{model}. {caption}")
    present_results(title, text, claims, results, run_dir, tables=shown, figures=drawn)
