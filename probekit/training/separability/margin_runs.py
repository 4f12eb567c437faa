"""Logs of margins by arm and modulus, read after equal epochs or updates; and tables of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..tables import interval_rows
from .margin_readings import rising_shares

#: after equal epochs, after equal updates, at the end of the log, or after so many updates
Where = Literal["epochs", "updates", "end"] | int


@dataclass(frozen=True, eq=False)
class MarginRun:
    """The log of one network.

    Args:
        rows: of the log, by step; a reading is a list of one number.
        ends: the steps of :data:`Where`.
        leak: what :func:`~probekit.training.find_leak` found, in words; None if nothing.
    """

    rows: Mapping[int, Mapping[str, Any]]
    ends: Mapping[str, int]
    leak: str | None

    def read(self, where: Where, what: str) -> float:
        """One reading; ``updates`` is the number of updates itself."""
        step = where if isinstance(where, int) else self.ends[where]
        return float(step) if what == "updates" else self.rows[step][what][0]


@dataclass(frozen=True, eq=False)
class MarginRuns:
    """Networks by arm and modulus, one a seed; ``sequence`` is the published arm."""

    runs: Mapping[str, Mapping[int, Sequence[MarginRun]]]

    @property
    def moduli(self) -> list[int]:
        """Of the published arm, ascending."""
        return sorted(self.runs["sequence"])

    def read(self, arm: str, modulus: int, where: Where, what: str) -> list[float]:
        """A number a seed."""
        return [run.read(where, what) for run in self.runs[arm][modulus]]

    def by_modulus(self, arm: str, where: Where, what: str) -> dict[int, list[float]]:
        """A number a seed by modulus, ascending."""
        return {p: self.read(arm, p, where, what) for p in sorted(self.runs[arm])}

    def one_by_updates(self, what: str) -> dict[int, list[float]]:
        """The largest modulus alone, read after as many updates as each has in equal epochs.

        The control of equal epochs: here nothing but the number of updates varies.
        """
        alone, steps = (
            self.runs["sequence"][self.moduli[-1]],
            self.by_modulus("sequence", "epochs", "updates"),
        )
        return {p: [run.read(int(n[0]), what) for run in alone] for p, n in steps.items()}

    def rising(self, arm: str, where: Where, what: str) -> list[float]:
        """:func:`rising_shares` over moduli."""
        return rising_shares(list(self.by_modulus(arm, where, what).values()))

    def rising_where_learned(self, arm: str, what: str, accuracy: float) -> list[float]:
        """:meth:`rising` at the end; NaN for a seed that failed at some modulus."""
        learned = self.by_modulus(arm, "end", "accuracy_there").values()
        good = [min(each) >= accuracy for each in zip(*learned, strict=True)]
        shares = self.rising(arm, "end", what)
        return [s if well else math.nan for s, well in zip(shares, good, strict=True)]

    def rising_with_vocabulary(self, what: str) -> list[float]:
        """Of the moduli of ``vocabulary``, the share whose reading is higher among more tokens."""
        shares = [
            rising_shares(
                [self.read(arm, p, "updates", what) for arm in ("sequence", "vocabulary")]
            )
            for p in self.runs["vocabulary"]
        ]
        return [sum(each) / len(each) for each in zip(*shares, strict=True)]


def margin_rows(
    runs: MarginRuns, published: Mapping[str, Mapping[int, float]]
) -> list[dict[str, str]]:
    """A row a modulus: margins at equal epochs and updates, and what stands beside them.

    Args:
        published: by document and modulus.
    """
    columns = {"all": "margin", '"="': "margin_there", '"=", distance': "distance_there"}
    alone, largest = runs.one_by_updates("margin"), runs.moduli[-1]
    rows: dict[str, Any] = {}
    for p in runs.moduli:
        row = rows[f"p = {p}"] = {
            "epochs, in updates": runs.read("sequence", p, "epochs", "updates")
        }
        row |= {name: [values[p]] for name, values in published.items() if p in values}
        row["epochs: all"] = runs.read("sequence", p, "epochs", "margin")
        row[f"p = {largest}, as many updates"] = alone[p]
        for name, what in columns.items():
            row[f"updates: {name}"] = runs.read("sequence", p, "updates", what)
    return interval_rows(rows, "modulus")


def part_rows(runs: MarginRuns) -> list[dict[str, str]]:
    """What margins are made of where the sum is predicted, a row an arm and modulus."""
    columns = {"accuracy": "accuracy_there", "margin": "margin_there", "|W - W'|": "gap_there"}
    columns |= {"distance": "distance_there", "spread of logits": "spread_there"}
    columns |= {"margin, all positions": "margin"}
    where: dict[str, Where] = {"sequence": "updates", "vocabulary": "updates", "leak-free": "end"}
    return interval_rows(
        {
            f"{arm}, p = {p}": {name: runs.read(arm, p, at, what) for name, what in columns.items()}
            for arm, at in where.items()
            for p in sorted(runs.runs[arm])
        },
        "arm",
    )


def leak_rows(runs: MarginRuns) -> list[dict[str, str]]:
    """In how many runs the answer was found among the inputs, and how in the first of them."""
    rows = []
    for arm, by_modulus in runs.runs.items():
        for p, own in sorted(by_modulus.items()):
            words = [run.leak for run in own if run.leak]
            first = words[0] if words else "no leak found"
            rows.append(
                {"arm": arm, "p": str(p), "leaks": f"{len(words)} of {len(own)}", "found": first}
            )
    return rows
