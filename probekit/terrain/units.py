"""Units of recipes that read pretrained models: a model's card, and what of it is read.

A unit whose weights are not to be had writes why, so that the other models' numbers stand and the
claims say what is missing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..claims import Blocked
from ..errors import CardError
from ..hooked.load import random_twin
from ..hooked.model import HookedModel
from ..pretrained import pretrained, tokenizer_of
from ..runs import RunDir

PRETRAINED, TWIN = "pretrained", "twin"
Readings = dict[str, Any]
Results = Mapping[str, Mapping[str, Sequence[Readings]]]  # model -> kind -> readings


def named(entry: str) -> str:
    """The card of ``name`` or ``name=folder``."""
    return entry.partition("=")[0]


def unit_folder(run_dir: Path, entry: str, kind: str) -> RunDir:
    """Where a unit writes."""
    return RunDir(run_dir / named(entry) / kind.replace(" ", "-"))


def read_or_missing(
    entry: str,
    kind: str,
    run_dir: Path,
    readings: Callable[[HookedModel, Any], Readings],
    *,
    text: bool = True,
) -> None:
    """Write what ``readings`` finds in a model, or why its weights are not to be had; once.

    Args:
        kind: "twin SEED" takes a random twin, anything else the pretrained model.
        readings: from the model and its tokenizer.
        text: whether a model without a tokenizer is missing; if not, ``readings`` gets None.
    """
    run = unit_folder(run_dir, entry, kind)
    if was_read(run):
        return
    try:
        model = pretrained(entry)
        tokenizer = _tokenizer(model, text)
    except CardError as error:
        run.write_json("readings.json", missing(error))
        return
    name, _, seed = kind.partition(" ")
    run.write_json(
        "readings.json",
        readings(random_twin(model, int(seed)) if name == TWIN else model, tokenizer),
    )


def was_read(run: RunDir) -> bool:
    """Whether a unit has its readings; weights that were missing are looked for again."""
    if not (run.path / "readings.json").exists():
        return False
    return "missing" not in run.read_json("readings.json")


def missing(error: CardError) -> Readings:
    """What a unit writes whose weights are not to be had: why."""
    why, _, _ = str(error).partition("; ")  # what follows is how to call pk.load
    return {"missing": why}


def _tokenizer(model: HookedModel, needed: bool) -> Any:
    try:
        return tokenizer_of(model)
    except CardError:
        if needed:
            raise
        return None


def collect_kinds(units: Sequence[tuple[str, str]], run_dir: Path) -> dict[str, Any]:
    """What the units wrote: by model and kind, twins of all seeds in one list."""
    found: dict[str, dict[str, list[Readings]]] = {}
    for entry, kind in units:
        runs = found.setdefault(named(entry), {})
        label = TWIN if kind.startswith(TWIN) else kind
        readings = unit_folder(run_dir, entry, kind).read_json("readings.json")
        runs.setdefault(label, []).append(readings)
    return found


def here(results: Results) -> Results:
    """The models whose weights were to be had."""
    return {name: kinds for name, kinds in results.items() if "missing" not in kinds[PRETRAINED][0]}


def known(results: Results, model: str | None = None, option: str = "--models") -> Results:
    """The models whose weights were to be had, or the one that is asked for.

    Args:
        option: of the recipe, that names its models.

    Raises:
        Blocked: none was, or not that one.
    """
    found = here(results)
    if model is None:
        if not found:
            why = "; ".join(kinds[PRETRAINED][0]["missing"] for kinds in results.values())
            raise Blocked(why, options=f"{option} {' '.join(results)}")
        return found
    if model not in found:
        why = f"{model} is not among {option}"
        if model in results:
            why = results[model][PRETRAINED][0]["missing"]
        raise Blocked(why, options=f"{option} {model}")
    return {model: found[model]}


def reading(
    *path: str, kind: str = PRETRAINED, model: str | None = None
) -> Callable[[Results], list[float]]:
    """A measure of claims: a number by its path, a value a run of every model that is here.

    Args:
        kind: "twin" for the random twins.
        model: only this one; blocked where its weights are not to be had.
    """

    def measure(results: Results) -> list[float]:
        runs = [run for kinds in known(results, model).values() for run in kinds[kind]]
        return [number(run, path) for run in runs]

    return measure


def number(readings: Mapping[str, Any], path: Sequence[str]) -> float:
    """A number by its path; NaN where it is not defined."""
    found: Any = readings
    for name in path:
        found = found[name]
    return math.nan if found is None else float(found)
