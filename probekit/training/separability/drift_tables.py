"""Tables of drift: rows for a report, a part or an arm each, over the seeds of an arm."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..drift import published_onset_step, published_stabilisation_step, published_stable_step
from ..tables import interval_rows, interval_text
from .drift_log import DriftRun, Head, half_way

Row = dict[str, Any]
_LOGS = np.arange(41)
#: Series of 41 logs whose course is known.
MADE_UP: Mapping[str, list[float]] = MappingProxyType(
    {
        "constant speed": _LOGS.astype(float).tolist(),
        "random walk, sqrt(t)": np.sqrt(_LOGS).tolist(),
        "approach, 5 logs a factor e": (1 - np.exp(-_LOGS / 5)).tolist(),
        "a jump": (_LOGS >= 10).astype(float).tolist(),
    }
)
_RULES = {
    '"stable" (third log at the earliest)': published_stable_step,
    '"stabilised" (fifth log at the earliest)': published_stabilisation_step,
}


def part_rows(
    arms: Mapping[str, Sequence[DriftRun]],
    parts: Sequence[str],
    row: Callable[[Sequence[DriftRun], str], Row],
) -> list[Row]:
    """A row an arm and part, such as :func:`last_row`."""
    return [{"arm": arm} | row(runs, part) for arm, runs in arms.items() for part in parts]


def head_rows(arms: Mapping[str, Mapping[int, Sequence[Head]]]) -> list[Row]:
    """A row an arm, seed and head."""
    return [
        {
            "arm": arm,
            "seed": seed,
            "head": index,
            "1 - entropy, at most": _rounded(head.from_uniform),
            "uniform": "yes" if head.uniform else "no",
            "norm": _rounded(head.norm),
            "rate": _rounded(head.rate),
        }
        for arm, seeds in arms.items()
        for seed, heads in seeds.items()
        for index, head in enumerate(heads)
    ]


def last_row(runs: Sequence[DriftRun], part: str) -> Row:
    """A part at the last log, means over seeds: its norm beside its velocity."""

    def mean(what: str, log: int = -1) -> float:
        return _mean([run.part(part, what)[log] for run in runs])

    own = [run.part(part, "velocity")[-1] / run.part(part, "norm")[-2] for run in runs]
    return {
        "part": part,
        "norm at start": mean("norm", 0),
        "norm": mean("norm"),
        "velocity": mean("velocity"),
        "beyond decay": mean("beyond_decay"),
        "velocity / norm": _mean(own),
        "displacement": mean("displacement"),
        "gradient (rms)": mean("gradient"),
        "only decays from": steps_text([run.only_decays(part) for run in runs]),
    }


def rule_row(runs: Sequence[DriftRun], part: str, every: int) -> Row:
    """What the published rules answer about a part's drift at every so many logs, seed by seed."""
    return {"part": part} | {
        name: steps_text([run.answer(rule, part, every) for run in runs])
        for name, rule in _RULES.items()
    }


def made_up_rows() -> list[Row]:
    """What the published rules answer about series whose course is known, as the number of a log.

    The onset rule puts the onset of anything that grows steadily at 60 % of the run.
    """
    rules = {
        "stable (2 at the earliest)": published_stable_step,
        "stabilised (4 at the earliest)": published_stabilisation_step,
        "onset": published_onset_step,
    }
    return [
        {"series": name}
        | {rule: steps_text([ask(_LOGS.tolist(), values)]) for rule, ask in rules.items()}
        for name, values in MADE_UP.items()
    ]


def half_way_rows(
    arms: Mapping[str, Sequence[DriftRun]], parts: Sequence[str], less: str | None = None
) -> list[Row]:
    """When each part's drift, and accuracy, is half-way to its last value (fraction of the run).

    Args:
        arms: by arm its runs, one a seed.
        less: a part whose fraction is subtracted, seed by seed.
    """
    found = {arm: _half_ways(runs, parts) for arm, runs in arms.items()}
    if less:
        found = {a: {name: own - f[less] for name, own in f.items()} for a, f in found.items()}
    names = (*parts, "accuracy")
    return list(
        interval_rows({n: {arm: list(found[arm][n]) for arm in arms} for n in names}, "part")
    )


def _half_ways(runs: Sequence[DriftRun], parts: Sequence[str]) -> dict[str, np.ndarray]:
    steps = {part: [run.settled(part) for run in runs] for part in parts}
    steps["accuracy"] = [half_way(run.steps, list(run.score("accuracy"))) for run in runs]
    last = np.array([run.steps[-1] for run in runs])
    return {name: np.array(own) / last for name, own in steps.items()}


def attention_row(runs: Sequence[DriftRun]) -> Row:
    """Accuracy and attention at the last log; uniform attention has entropy 1."""
    least = [float(run.entropy[-1].min()) for run in runs]
    return {
        "accuracy .90 at": steps_text([run.grokked for run in runs]),
        "accuracy": _mean([run.score("accuracy")[-1] for run in runs]),
        "training accuracy": _mean([run.score("train_accuracy")[-1] for run in runs]),
        "entropy of the least uniform head, at start": _mean([r.entropy[0].min() for r in runs]),
        "at the end": interval_text(least),
        "uniform attention": 1.0,
    }


def _mean(values: Sequence[float]) -> float:
    return _rounded(float(np.mean(values)))


def _rounded(value: float) -> float:
    """To four digits, enough for a table."""
    return float(f"{value:.4g}")


def steps_text(steps: Sequence[int | float | None]) -> str:
    """Steps in a row, a dash for None and NaN."""
    return ", ".join("-" if step is None or np.isnan(step) else f"{step:.0f}" for step in steps)
