"""Tables and figure of networks under noise, from what :func:`injure` read, gathered over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from ..tables import interval_rows
from .noise_pictures import curves_figure
from .swap_pictures import Marks, similarity_figure

#: By network and sigma.
Published = Mapping[str, Mapping[float, float]]
#: By label and sigma a number a seed.
Curves = dict[str, dict[float, list[float]]]
AS_LOUD = "baseline, as loud"


def accuracies(found: Mapping[str, Any]) -> Curves:
    """Accuracy of every network and control."""
    curves = residuals(found, "accuracy")
    for name, row in found["alone"].items():
        curves[f"{name}, noise alone"] = _curve(row)
    curves[AS_LOUD] = _curve(found["as loud"])
    return curves


def residuals(found: Mapping[str, Any], what: str = "residual") -> Curves:
    """The residual stream's length, or another score, of every network."""
    return {
        name: _curve({sigma: scores[what] for sigma, scores in by_sigma.items()})
        for name, by_sigma in found["noise"].items()
    }


def noise_rows(curves: Curves, published: Published, heading: str) -> list[dict[str, str]]:
    """A row a label, with what was published below, a column a sigma."""
    every = {**curves}
    for name, points in published.items():
        every[f"{name}, published"] = {sigma: [value] for sigma, value in points.items()}
    table = {n: {f"σ = {s:g}": v for s, v in row.items()} for n, row in every.items()}
    return interval_rows(table, heading)


def injury_tables(
    results: Mapping[str, Mapping[str, Any]],
    accuracy: Published,
    residual: Published,
    seeds: Sequence[int],
) -> dict[str, list[dict[str, Any]]]:
    """Rows by heading: accuracies, lengths, the first task's clamped network, similarities, leaks.

    Args:
        results: by task; the first is the published one, and has ``sedated``.
        accuracy, residual: what was published.
    """
    first = next(iter(results))
    tables: dict[str, Any] = {}
    for name, found in results.items():
        known = accuracy if name == first else {}
        tables[f"accuracy under noise, {name}"] = noise_rows(accuracies(found), known, "network")
    for name, found in results.items():
        known = residual if name == first else {}
        heading = f"length of the residual stream, {name}"
        tables[heading] = noise_rows(residuals(found), known, "network")
    signals = {name: found["length"] for name, found in results.items()}
    tables["length of the signal where the noise is added"] = interval_rows(signals, "task")
    sedated = {words: _curve(row) for words, row in results[first]["sedated"].items()}
    tables["clamped, noise after the final norm"] = noise_rows(sedated, {}, "what answers")
    for name, found in results.items():
        tables[f"how alike, {name}"] = interval_rows(found["similarity"], "pair")
    tables["is the answer among the inputs?"] = [
        {"task": name, "network": network, "seed": seed, "found": words}
        for name, found in results.items()
        for network in ("baseline", "hardened")
        for seed, words in zip(seeds, found["leak"][network]["words"], strict=True)
    ]
    return tables


def injury_figure(
    results: Mapping[str, Mapping[str, Any]], accuracy: Published, residual: Published, clamped: Any
) -> Figure:
    """Accuracy and length of the residual stream against sigma, a panel a task; and ``sedated``.

    Args:
        results: by task; the first is the published one, and has ``sedated``.
        accuracy, residual: what was published.
        clamped: the same of the clamped network.
    """
    first = next(iter(results))
    panels: dict[str, Any] = {f"{name}: accuracy": accuracies(results[name]) for name in results}
    sedated = {name: _curve(row) for name, row in results[first]["sedated"].items()}
    panels[f"{first}: clamped"] = {  # without noise a clamp changes nothing
        name: {sigma: values for sigma, values in row.items() if sigma}
        for name, row in sedated.items()
    }
    for name, found in results.items():
        panels[f"{name}: residual stream"] = residuals(found)
    labels = list(panels[f"{first}: accuracy"])
    nulls = [n for n in labels if n.endswith(("noise alone", "loud")) or n.startswith("untrained")]
    return curves_figure(
        panels,
        "σ of the noise",
        [*["accuracy"] * (len(results) + 1), *["mean L2 norm"] * len(results)],
        published={
            f"{first}: accuracy": accuracy,
            f"{first}: clamped": clamped,
            f"{first}: residual stream": residual,
        },
        dashed=[*nulls, *(name for name in sedated if name not in labels)],
    )


def pairs_figure(results: Mapping[str, Mapping[str, Any]], published: Marks) -> Figure:
    """How alike pairs of networks are, a panel a task; what was published is of the first."""
    figure = similarity_figure({n: found["similarity"] for n, found in results.items()}, published)
    for axis in figure.axes:
        axis.set(ylabel="similarity", ylim=(-0.6, 1.05))
    return figure


def _curve(row: Mapping[str, list[float]]) -> dict[float, list[float]]:
    return {float(sigma): values for sigma, values in row.items()}
