"""Published claims and the verdict on each: decided by the numbers of a run, never typed by hand.

    reproduced          every seed lies in [published - tolerance, published + tolerance]
    explained by null   reproduced, and so does the stated control: the reading needs no effect
    not reproduced      some seed lies outside, or did not show the thing at all (NaN)
    blocked             it cannot be measured here; `Blocked` says what is missing

"Reproduced" asks for every seed, not for the mean: a mean can sit between two wrong readings.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probekit.checks import is_whole
from probekit.errors import RunError
from probekit.runs import json_safe

#: What :func:`decide` answers.
VERDICTS = ("reproduced", "explained by null", "not reproduced", "blocked")


class Blocked(Exception):
    """Raised by a claim's `measure` or `null`, which lacks something.

    Args:
        why: what is missing.
        options: of `probekit run`, such as `--models t5-small`: with them it would be there, or
            what comes nearest.
    """

    def __init__(self, why: str, *, options: str) -> None:
        super().__init__(why)
        self.options = options


@dataclass(frozen=True)
class Claim:
    """One published number, how to measure it, and what it is held against."""

    id: str
    """Such as `"000-1"`."""
    source: str
    """Where it was published; begins "the same" or "not published" where nobody did."""
    statement: str
    """The claim in one sentence."""
    published: float | tuple[float, float]
    """A number, or the (low, high) range that was published."""
    tolerance: float
    """Added on both sides of what was published."""
    measure: Callable[[Any], Sequence[float]]
    """From a recipe's results one value per seed; NaN where the thing was not observed."""
    null: Callable[[Any], Sequence[float] | None]
    """From the same results what the control or the closed form reads; None without one."""
    control: str
    """What that control or closed form is, in words."""

    def __post_init__(self) -> None:
        low, high = self._range
        if not (low <= high and self.tolerance >= 0):
            raise RunError(
                f"claim {self.id}: published must be a number or (low, high) and tolerance not"
                f" negative; given {self.published!r} and {self.tolerance!r}"
            )

    @property
    def _range(self) -> tuple[float, float]:
        if isinstance(self.published, tuple):
            return self.published
        return self.published, self.published

    def accepts(self, value: float) -> bool:
        """Whether `value` is what was published, within the tolerance; never for NaN."""
        low, high = self._range
        return low - self.tolerance <= value <= high + self.tolerance


def decide_all(claims: Sequence[Claim], results: Any, run_dir: Path) -> list[dict[str, Any]]:
    """The rows of a recipe's claims, in their order; see :func:`decide`.

    Args:
        run_dir: `OUT/<recipe>/<preset>`, the folder of the run.
    """
    run = f"probekit run {run_dir.parent.name} --preset {run_dir.name}"
    return [decide(claim, results, run) for claim in claims]


def decide(claim: Claim, results: Any, run: str) -> dict[str, Any]:
    """Measure a claim on a recipe's results and return its row of `summary.json`.

    Args:
        run: the command that the results are of, such as `probekit run terrain --preset paper`;
            the reason of a blocked claim ends in it, with the options that are needed.

    Returns:
        `id, source, statement, published, tolerance, measured, interval, null, control, verdict, n,
        observed, reason`, all JSON-safe. `measured` is the mean and `interval` the [least,
        greatest] over the `observed` of `n` seeds, `null` the mean of the control, `reason` what
        blocks the claim.

    Raises:
        RunError: the claim's `measure` returned no value at all.
    """
    controls: list[float] = []
    try:
        controls = [float(value) for value in claim.null(results) or ()]
        values = [float(value) for value in claim.measure(results)]
    except Blocked as blocked:
        reason = f"{blocked}; run `{run} {blocked.options}`"
        return _row(claim, [], controls, "blocked", reason)
    if not values:
        raise RunError(f"claim {claim.id} measured nothing: `measure` gives one value per seed")
    return _row(claim, values, controls, _verdict(claim, values, controls))


def _verdict(claim: Claim, values: list[float], controls: list[float]) -> str:
    if not all(map(claim.accepts, values)):
        return "not reproduced"
    if controls and all(map(claim.accepts, controls)):
        return "explained by null"
    return "reproduced"


def _row(
    claim: Claim,
    values: list[float],
    controls: list[float],
    verdict: str,
    reason: str | None = None,
) -> dict[str, Any]:
    observed = [value for value in values if not math.isnan(value)]
    row = {
        "id": claim.id,
        "source": claim.source,
        "statement": claim.statement,
        "published": claim.published,
        "tolerance": claim.tolerance,
        "measured": _mean(observed),
        "interval": [min(observed), max(observed)] if observed else None,
        "null": _mean(controls),
        "control": claim.control,
        "verdict": verdict,
        "n": len(values),
        "observed": len(observed),
        "reason": reason,
    }
    return json_safe(row)


def row_fault(row: Any) -> str | None:
    """What a stored row lacks to be one of :func:`decide`; None where nothing."""
    if not isinstance(row, dict):
        return f"it is {row!r}"
    for name, kinds in _ROW.items():
        value = row.get(name)
        pair = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
        fits = {"pair": pair, "number": _is_number(value), "none": value is None}
        fits |= {"text": isinstance(value, str), "count": is_whole(value)}
        if name not in row or not any(fits[kind] for kind in kinds.split()):
            return f"{name} is {value!r}"
    return None if row["verdict"] in VERDICTS else f"verdict is {row['verdict']!r}"


#: Of what kinds the values of a row may be.
_ROW = {
    **dict.fromkeys(("id", "source", "statement", "control", "verdict"), "text"),
    **dict.fromkeys(("measured", "null"), "number none"),
    **dict.fromkeys(("n", "observed"), "count"),
    "published": "number pair",
    "tolerance": "number",
    "interval": "pair none",
    "reason": "text none",
}


def _is_number(value: Any) -> bool:
    return is_whole(value) or isinstance(value, float)


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of :func:`decide` as a table shows it, its numbers as text."""
    reason = f": {row['reason']}" if row["reason"] else ""
    null = "" if row["null"] is None else f"{_number(row['null'], row)}: "
    return {
        "verdict": f"{row['verdict']}{reason}",
        "claim": f"{row['id']}: {row['statement']}",
        "published": in_words(row["published"], row["tolerance"]),
        "measured": _measured(row),
        "null or control": f"{null}{row['control']}",
    }


def in_words(published: float | int | Sequence[float | int], tolerance: float | int) -> str:
    """What was published, a number or "low to high", and "± tolerance" where there is one."""
    ends = published if isinstance(published, Sequence) else [published]
    added = f" ± {tolerance:.6g}" if tolerance else ""
    return " to ".join(f"{end:.6g}" for end in ends) + added


def _measured(row: Mapping[str, Any]) -> str:
    if row["measured"] is None or row["interval"] is None:
        return "" if row["verdict"] == "blocked" else "not observed"
    low, high = (_number(end, row) for end in row["interval"])
    spread = f" ({low} to {high}, n {row['n']})" if row["n"] > 1 else ""
    missing = f", seen in {row['observed']} of {row['n']}" if row["observed"] < row["n"] else ""
    return f"{_number(row['measured'], row)}{spread}{missing}"


def _number(value: float | int, row: Mapping[str, Any]) -> str:
    """In four digits, or six (as what was published) where four do not show the tolerance."""
    tolerance, exact = row["tolerance"], not isinstance(row["published"], Sequence)
    fine = abs(value) > 1e3 * tolerance if tolerance else exact
    return f"{value:.6g}" if fine else f"{value:.4g}"
