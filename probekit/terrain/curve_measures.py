"""What claims read off the curves of modulators along alpha: bends, readings, differences.

Each function returns a measure, which reads a list of numbers, one a model and seed, off what the
recipe ``phase-boundary`` collected.

Source: "Geometric Terrain Analysis", section 10, which prints two constants for one.
"""

import math
from collections.abc import Callable
from typing import Any

from .change_point import bend_readings
from .modulation import MODULATED
from .resampling import difference
from .units import PRETRAINED, Results, known

PRINTED = (0.29154, 0.29514)
DEALT = "deals"
MEASURES = ("pearson", "nouns", "gradient", "preservation")


def bends_of(curve: Any) -> dict[str, Any]:
    """Where each reading of a curve bends."""
    return {
        name: bend_readings(curve["alphas"], curve[name], curve["resampled"][name])
        for name in MEASURES
    }


def runs_of(results: Results, kind: str, model: str | None = None) -> list[Any]:
    """The curves of one kind, one a model and seed."""
    label = PRETRAINED if kind == MODULATED else kind
    return [run for kinds in known(results, model).values() for run in kinds[label]]


def bend(name: str, kind: str = MODULATED) -> Callable[[Results], list[float]]:
    """Where a curve bends; NaN where a cubic without a bend describes it nearly as well."""

    def measure(results: Results) -> list[float]:
        bends = [run["bends"][name] for run in runs_of(results, kind)]
        return [found["at"] if found["sharper"] else math.nan for found in bends]

    return measure


def spread(name: str, kind: str = MODULATED) -> Callable[[Results], list[float]]:
    """Width of the interval of where resampled curves bend."""

    def measure(results: Results) -> list[float]:
        bends = [run["bends"][name] for run in runs_of(results, kind)]
        return [found["high"] - found["low"] for found in bends]

    return measure


def at(
    name: str, alpha: float, kind: str = MODULATED, less: float | None = None,
    model: str | None = None,
) -> Callable[[Results], list[float]]:  # fmt: skip
    """A reading at an alpha, or what it is above the reading at another."""

    def measure(results: Results) -> list[float]:
        return [
            read(run, name, alpha) - (0 if less is None else read(run, name, less))
            for run in runs_of(results, kind, model)
        ]

    return measure


def read(run: Any, name: str, alpha: float) -> float:
    return run[name][run["alphas"].index(alpha)]


def best(
    name: str, kind: str = MODULATED, model: str | None = None
) -> Callable[[Results], list[float]]:
    """The largest reading at any alpha above 0, over the reading at 0."""

    def measure(results: Results) -> list[float]:
        runs = runs_of(results, kind, model)
        return [
            max(value for value, alpha in zip(run[name], run["alphas"], strict=True) if alpha)
            / read(run, name, 0.0)
            for run in runs
        ]

    return measure


def apart(name: str, kind: str = MODULATED) -> Callable[[Results], list[float]]:
    """How far a reading at one printed constant is from that at the other."""

    def measure(results: Results) -> list[float]:
        return [abs(found) for found in at(name, PRINTED[1], kind, PRINTED[0])(results)]

    return measure


def surely(name: str, kind: str, other: str) -> Callable[[Results], list[float]]:
    """The low end of the 95 % interval of one kind less another, at the first constant.

    Above 0 where resampled definitions agree that one kind reads more.
    """

    def measure(results: Results) -> list[float]:
        pairs = zip(runs_of(results, kind), runs_of(results, other), strict=True)
        return [difference(one, two, name, PRINTED[0])[1] for one, two in pairs]

    return measure


def as_high(name: str, kind: str) -> Callable[[Results], list[float]]:
    """Share of deals of the rows that read as high as a kind, itself counted with them."""

    def measure(results: Results) -> list[float]:
        pairs = zip(runs_of(results, kind), runs_of(results, DEALT), strict=True)
        return [
            (1 + sum(value >= read(run, name, PRINTED[0]) for value in dealt[name]))
            / (1 + len(dealt[name]))
            for run, dealt in pairs
        ]

    return measure
