"""What the arms of the language experiment learned, gathered over seeds; readings and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..language import LanguageTask
from ..stability import collapse_count, time_to_generalisation, time_to_stability
from ..stack import Stack
from ..tables import interval_rows
from .language_arms import CE, LANGUAGE_ARMS
from .next_token import guesses, prediction_rows, predictions

#: Validation accuracies that the write-up calls generalised, collapsed and stable.
GENERAL, COLLAPSED, STABLE = 0.30, 0.15, 0.25
COPIED, FOLLOWER = "token to the right", "most frequent follower"


def arm_logs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``step``, and ``accuracy`` and ``cosine`` by arm, from the rows of a log of all arms."""
    return {"step": [row["step"] for row in rows]} | {
        what: {arm: [row[what][i] for row in rows] for i, arm in enumerate(LANGUAGE_ARMS)}
        for what in ("accuracy", "cosine")
    }


@dataclass(frozen=True, eq=False)
class LanguageResults:
    """Readings by mask, and guessers that no training made.

    Args:
        masks: by mask what :func:`~.language_arms.read_arms` gives, ``critical``, ``log`` of
            :func:`arm_logs` and ``other seeds``, every number a list over the seeds.
        guesses: by name the accuracy at each position.
    """

    masks: Mapping[str, Mapping[str, Any]]
    guesses: Mapping[str, Sequence[float]]

    def accuracies(self, mask: str, arm: str = CE) -> list[float]:
        """Over all positions, a number a seed."""
        return [float(np.mean(shares)) for shares in self.masks[mask]["by position"][arm]]

    def last(self, mask: str, arm: str = CE) -> list[float]:
        """At the last position, a number a seed."""
        return [shares[-1] for shares in self.masks[mask]["by position"][arm]]

    def guessed(self, name: str) -> float:
        """A guesser's accuracy over all positions."""
        return float(np.mean(self.guesses[name]))

    def flagged(self, mask: str) -> list[float]:
        """The share of arms in which a leak is found, a number a seed."""
        found = (leak["found"] for leak in self.masks[mask]["leak"].values())
        return [float(np.mean(each)) for each in zip(*found, strict=True)]

    def cost(self, mask: str, arm: str) -> list[float]:
        """Accuracy of an arm less that of "CE only", a number a seed."""
        pairs = zip(self.accuracies(mask, arm), self.accuracies(mask), strict=True)
        return [one - other for one, other in pairs]

    def collapses(self, mask: str, arms: Sequence[str] = LANGUAGE_ARMS) -> list[float]:
        """Collapses of all ``arms``, a number a seed."""
        logs = (self.masks[mask]["log"]["accuracy"][arm] for arm in arms)
        return [
            float(sum(collapse_count(log, below=COLLAPSED, after=GENERAL) for log in own))
            for own in zip(*logs, strict=True)
        ]

    def on_random(self, mask: str) -> list[float]:
        """Accuracy on random text over that on text, a number a seed."""
        pairs = zip(self.masks[mask]["random text"][CE], self.accuracies(mask), strict=True)
        return [noise / text for noise, text in pairs]

    def above_pairs(self, mask: str) -> list[float]:
        """Accuracy less that of the most frequent follower, a number a seed."""
        return [one - self.guessed(FOLLOWER) for one in self.accuracies(mask)]

    def above_pairs_at_last(self, mask: str) -> list[float]:
        """The same at the last position alone."""
        return [one - self.guesses[FOLLOWER][-1] for one in self.last(mask)]

    def log_curve(self, mask: str, what: str, arm: str) -> dict[float, list[float]]:
        """By step, a number a seed."""
        log = self.masks[mask]["log"]
        pairs = zip(log["step"][0], zip(*log[what][arm], strict=True), strict=True)
        return {float(step): list(values) for step, values in pairs}


def accuracy_rows(results: LanguageResults, published: Mapping[str, float]) -> list[dict[str, str]]:
    """Accuracy by mask and arm, over all positions, at the last, and on random text; guessers."""
    rows: dict[str, dict[str, Sequence[float]]] = {}
    for mask, found in results.masks.items():
        for arm in LANGUAGE_ARMS:
            rows[f"{mask}, {arm}"] = {
                "all positions": results.accuracies(mask, arm),
                "last position": results.last(mask, arm),
                "random text": found["random text"][arm],
            }
            if mask == next(iter(results.masks)):
                rows[f"{mask}, {arm}"]["published"] = [published[arm]]
    for name, shares in results.guesses.items():
        rows[name] = {"all positions": [results.guessed(name)], "last position": [shares[-1]]}
    return interval_rows(rows, "accuracy")


def cosine_rows(results: LanguageResults) -> list[dict[str, str]]:
    """Cosines with the anchor, and those that no penalty made."""
    rows: dict[str, dict[str, Sequence[float]]] = {}
    for mask, found in results.masks.items():
        for arm, values in found["cosine"].items():
            rows.setdefault(arm, {})[mask] = values
        for name in ("rotated", "other seeds"):
            rows.setdefault(f'"{CE}", {name}', {})[mask] = found[name]
        for name, norms in found["gradients"].items():
            rows.setdefault(f"norm of the penalty's gradient, {name}", {})[mask] = norms
    return interval_rows(rows, "cosine with the anchor")


def event_rows(results: LanguageResults) -> list[dict[str, str]]:
    """Steps of the published events, over the seeds that have one; and collapses."""
    rows: dict[str, dict[str, list[float]]] = {}
    for mask, found in results.masks.items():
        steps = found["log"]["step"][0]
        for arm, logs in found["log"]["accuracy"].items():
            events = {
                "generalised (.30) at step": [
                    time_to_generalisation(steps, log, at=GENERAL) for log in logs
                ],
                "stable (.25) from step": [
                    time_to_stability(steps, log, at=STABLE) for log in logs
                ],
            }
            row = {name: [float(e) for e in each if e is not None] for name, each in events.items()}
            row["collapses"] = results.collapses(mask, [arm])
            rows[f"{mask}, {arm}"] = {name: values for name, values in row.items() if values}
    return interval_rows(rows, "arm")


def leak_rows(results: LanguageResults) -> list[dict[str, str]]:
    """In how many seeds a leak was found, and what in the first; a row a mask and arm."""
    return [
        {"arm": f"{mask}, {arm}", "leaks": f"{sum(leak['found'])} of {len(leak['found'])}"}
        | {"first seed": leak["words"][0]}
        for mask, found in results.masks.items()
        for arm, leak in found["leak"].items()
    ]


def sample_rows(
    task: LanguageTask, networks: Mapping[str, Stack], shown: int = 12
) -> list[dict[str, str]]:
    """The end of a held-out window, and what the first run of each stack says comes next.

    Args:
        networks: by name.
        shown: the last positions, as many.
    """
    window, label = (each[:1] for each in task.validation())
    said = {"next": label[0]}
    said |= {name: predictions(stack, window)[0, 0] for name, stack in networks.items()}
    said[FOLLOWER] = guesses(task, window)[FOLLOWER][0]
    return prediction_rows(task.words(), window[0], said)[-shown:]
