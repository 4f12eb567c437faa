"""What the runs of ``lerp-training`` say: measures of its claims, and its tables.

Results are by host and kind, "OBJECTIVE from START" or "pretrained", the readings of each seed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..claims import Blocked
from ..terrain.units import PRETRAINED, Results, here
from .outcome import t_interval

Run = Mapping[str, Any]
FORMS = ("published", "repaired", "masked")


def runs_of(kinds: Mapping[str, Sequence[Run]], form: str) -> dict[float, list[Run]]:
    """The runs of one objective by their start."""
    prefix = f"{form} from "
    return {
        float(kind.removeprefix(prefix)): list(runs)
        for kind, runs in kinds.items()
        if kind.startswith(prefix)
    }


def each_run(
    value: Callable[[Run], float], *forms: str, start: float | None = 0.01
) -> Callable[[Results], list[float]]:
    """A measure: a number a run of these objectives from one start, or from all."""

    def measure(results: Results) -> list[float]:
        found = [
            value(run)
            for kinds in here(results).values()
            for form in forms
            for begun, runs in runs_of(kinds, form).items()
            if start in (None, begun)
            for run in runs
        ]
        return found or missing(results)

    return measure


def ends(run: Run) -> float:
    return math.fsum(run["alpha"][-1]) / len(run["alpha"][-1])


def inside(run: Run, band: Sequence[float]) -> float:
    """Share of layers whose alpha ends inside a band."""
    return sum(band[0] <= each <= band[1] for each in run["alpha"][-1]) / len(run["alpha"][-1])


def inside_others(results: Results) -> list[float]:
    """The same in the band of the next start, in turn; nothing where there is one start only."""
    found = []
    for kinds in here(results).values():
        for form in ("repaired", "masked"):
            runs = list(runs_of(kinds, form).values())
            others = runs[1:] + runs[:1] if len(runs) > 1 else []
            for own, other in zip(runs, others, strict=False):
                found += [inside(run, other[0]["band"][-1]) for run in own]
    return found


def shares(of: Callable[[Any], float]) -> Callable[[Results], list[float]]:
    """What starts or seeds are of the variance of the repaired runs' ends, a value a host."""

    def measure(results: Results) -> list[float]:
        found = (runs_of(kinds, "repaired") for kinds in here(results).values())
        ended = [{s: [run["alpha"][-1] for run in runs] for s, runs in e.items()} for e in found]
        return [of(each) for each in ended if each] or missing(results)

    return measure


def losses(*path: str) -> Callable[[Results], list[float]]:
    """A reading of the pretrained hosts that have decoders; of a list, the mean of its last ten."""

    def measure(results: Results) -> list[float]:
        found = []
        for kinds in here(results).values():
            value: Any = kinds[PRETRAINED][0]
            if "host" in value:
                for name in path:
                    value = value[name]
                last = value[-10:] if isinstance(value, list) else [value]
                found.append(math.fsum(last) / len(last))
        return found or missing(results)

    return measure


def gain(run: Run) -> float:
    """How much likelier training made the held-out words (nats)."""
    return run["epochs"][0]["lemma_nll"] - run["epochs"][-1]["lemma_nll"]


def missing(results: Results) -> list[float]:
    """Say why no host of some kind was read."""
    reasons = [kinds[PRETRAINED][0].get("missing") for kinds in results.values()]
    why = "; ".join(filter(None, reasons)) or "no host of this kind was asked for"
    raise Blocked(why, options="--hosts t5-wordnet")


def tables(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Ends by host, objective and start; losses with and without the encoder."""
    ended: list[dict[str, Any]] = []
    leaking: list[dict[str, Any]] = []
    for host, kinds in results.items():
        for form in FORMS:
            for start, runs in runs_of(kinds, form).items():
                ended.append({"host": host, "loss": form, **end_row(start, runs)})
        for model in ("host", "random T5-small"):
            for form, pair in kinds[PRETRAINED][0].get(model, {}).items():
                cells = {name: f"{value:.3g}" for name, value in pair.items()}
                name = host if model == "host" else model
                leaking.append({"model": name, "loss": form, **cells})
    return {"where alpha ends": ended, "losses with and without the encoder (nats)": leaking}


def end_row(start: float, runs: Sequence[Run]) -> dict[str, Any]:
    """One start's ends with the interval of their mean over runs, and what was learned."""
    low, high = t_interval([ends(run) for run in runs])
    reach = runs[0]["band"][-1]

    def change(name: str) -> str:
        before, after = ([run["epochs"][place][name] for run in runs] for place in (0, -1))
        return " to ".join(f"{math.fsum(each) / len(each):.3f}" for each in (before, after))

    return {
        "start": f"{start:g}",
        "end": f"{math.fsum(map(ends, runs)) / len(runs):.4f}",
        "interval": f"{low:.4f} to {high:.4f}" if len(runs) > 1 else "one run",
        "reach": f"{reach[0]:.4f} to {reach[1]:.4f}",
        "held-out loss": change("val_loss"),
        "NLL of the word": change("lemma_nll"),
        "median rank": change("lemma_rank"),
    }
