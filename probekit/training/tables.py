"""Numbers of many runs as tables: nested readings gathered over seeds, means with intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ProbekitError
from .outcome import t_interval

#: label -> series -> values, one a seed
Table = Mapping[str, Mapping[str, Sequence[float]]]


def gather(found: Sequence[Any]) -> Any:
    """One nested mapping of lists from a list of nested mappings of one shape.

    Example:
        >>> gather([{"V": {"B": 0.1}}, {"V": {"B": 0.2}}])
        {'V': {'B': [0.1, 0.2]}}

    Raises:
        ProbekitError: they have different keys.
    """
    if not all(isinstance(each, Mapping) for each in found):
        return list(found)
    for each in found:
        if each.keys() != found[0].keys():
            raise ProbekitError(
                f"gather needs the same keys in all, not {', '.join(map(str, found[0]))} and "
                f"{', '.join(map(str, each))}"
            )
    return {key: gather([each[key] for each in found]) for key in found[0]}


def series_of(table: Table) -> list[str]:
    """The series of all labels, each once, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in table.values() for name in row))


def interval_text(values: Sequence[float]) -> str:
    """The mean and half of its 95 % t-interval, to three decimals; a single value alone.

    Example:
        >>> interval_text([0.1, 0.2, 0.3])
        '0.200±0.248'
    """
    mean, (_, high) = float(np.mean(values)), t_interval(values)
    return f"{mean:.3f}±{high - mean:.3f}" if math.isfinite(high) else f"{mean:.3f}"


def interval_rows(table: Table, heading: str) -> list[dict[str, str]]:
    """A row a label, a column a series; empty where a label lacks the series."""
    series = series_of(table)
    return [
        {heading: label, **{s: interval_text(row[s]) if s in row else "" for s in series}}
        for label, row in table.items()
    ]
