"""How far and how fast groups of parameters move, and the rules that call them frozen.

A part is a name for some parameters, such as ``{"QK": ["layers.0.attn.q.weight", ...]}``; the
write-up's "QK" held V and the offsets too where they are packed. Read the norm beside every
change: decay alone, with nothing learned, makes a part shrink by ``lr * wd`` a step, so that its
velocity falls to 0 like a part that froze (:func:`log_slope` tells), and its displacement ends at
exactly 1.

Source: "The Conservation of Separability", experiments 2, 2B and the grokking run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError, unknown
from .monitor import velocity
from .stability import check_log


def parameter_norm(
    parameters: Mapping[str, Tensor], names: Sequence[str], *, stacked: bool = False
) -> Float[Tensor, "*run"]:
    """``|theta|``: the L2 norm of the named parameters as one vector, in float64.

    Args:
        stacked: parameters are ``[run, ...]`` (:class:`Stack`); gives a norm a run.

    Raises:
        ProbekitError: no names, an unknown one, or no common axis of runs.
    """
    return _norm([_rows(parameters, name, stacked) for name in names])


def parameter_distance(
    after: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    names: Sequence[str],
    *,
    stacked: bool = False,
) -> Float[Tensor, "*run"]:
    """``|theta - theta'|``: of two logs the published "velocity", from the start "QK drift".

    Absolute: neither per step nor relative to the norm, and parts of other sizes do not compare.

    Raises:
        ProbekitError: as :func:`parameter_norm`, or parameters of two shapes.
    """
    changes = []
    for name in names:
        new, old = _rows(after, name, stacked), _rows(before, name, stacked)
        if new.shape != old.shape:
            raise ProbekitError(
                f"{name!r} was {list(before[name].shape)} and is {list(after[name].shape)}; "
                "compare snapshots of one model"
            )
        changes.append(new - old.to(new.device))
    return _norm(changes)


def parameter_displacement(
    now: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    names: Sequence[str],
    *,
    stacked: bool = False,
) -> Float[Tensor, "*run"]:
    """``|theta_t - theta_0| / |theta_0|``; infinite for a part that starts at 0, such as offsets.

    1 for a part that has decayed to 0, sqrt(2) for one as long in an unrelated direction.
    """
    distance = parameter_distance(now, start, names, stacked=stacked)
    return distance / parameter_norm(start, names, stacked=stacked)


class DriftTracker:
    """Norm, velocity, drift and displacement of each part, log after log.

    Args:
        parameters: as they are at the start.
        parts: by name, the names of their parameters; one may be in several.
        stacked: parameters are ``[run, ...]``, and so is each number ``[run]``.

    Attributes:
        state: the parameters at the start and at the last log, ``drift.first.<name>`` and
            ``drift.last.<name>``, changed in place: give it to :func:`train` as ``state``, and a
            run that is killed goes on with the same numbers.

    Raises:
        ProbekitError: no part, one without parameters, an unknown one, or no common axis of runs.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        parts: Mapping[str, Sequence[str]],
        *,
        stacked: bool = False,
    ) -> None:
        if not parts:
            raise ProbekitError("parts map a name to the names of its parameters; given none")
        self.parts = {part: tuple(names) for part, names in parts.items()}
        self.stacked = stacked
        for names in self.parts.values():
            parameter_norm(parameters, names, stacked=stacked)  # refuses what cannot be tracked
        together = dict.fromkeys(name for names in self.parts.values() for name in names)
        self._first, self._last = (
            {name: parameters[name].detach().clone() for name in together} for _ in range(2)
        )
        self.state: dict[str, Tensor] = {
            f"drift.{when}.{name}": tensor
            for when, snapshot in (("first", self._first), ("last", self._last))
            for name, tensor in snapshot.items()
        }

    def log(self, parameters: Mapping[str, Tensor]) -> dict[str, dict[str, Float[Tensor, "*run"]]]:
        """``{part: {"norm", "velocity", "drift", "displacement"}}`` of the parameters as of now.

        The velocity is the change since the last call, or since the start.

        Raises:
            ProbekitError: a parameter is missing, or has another shape than at the start.
        """
        row = {part: self._part(parameters, names) for part, names in self.parts.items()}
        for name, tensor in self._last.items():
            tensor.copy_(parameters[name].detach())
        return row

    def _part(
        self, now: Mapping[str, Tensor], names: Sequence[str]
    ) -> dict[str, Float[Tensor, "*run"]]:
        stacked = self.stacked
        return {
            "norm": parameter_norm(now, names, stacked=stacked),
            "velocity": parameter_distance(now, self._last, names, stacked=stacked),
            "drift": parameter_distance(now, self._first, names, stacked=stacked),
            "displacement": parameter_displacement(now, self._first, names, stacked=stacked),
        }


@dataclass(frozen=True)
class LogSlope:
    """Slope of ln(value) a step, its standard error, and its 95 % interval."""

    per_step: float
    standard_error: float
    interval: tuple[float, float]


def log_slope(steps: Sequence[int], values: Sequence[float]) -> LogSlope:
    """Least squares of ``ln(values)`` on steps: the rate of an exponential decay.

    AdamW without a gradient gives ``ln(1 - lr * wd)``, about ``-lr * wd``; 0 without decay. The
    interval takes logs as independent, which those of one run are not: for a claim take the
    slope of each seed and :func:`t_interval`.

    Raises:
        ProbekitError: fewer than three logs, values not above 0, or steps that do not increase.
    """
    check_log(steps, values)
    if len(steps) < 3 or not all(0 < value < np.inf for value in values):
        raise ProbekitError(
            f"log_slope needs three values at least, all positive, not {[*values]}; leave out the "
            "logs where the value is 0"
        )
    line: Any = scipy.stats.linregress(steps, np.log(values))
    slope = float(line.slope)
    error = float(np.nan_to_num(line.stderr))  # SciPy's is NaN where all values are equal
    half = float(scipy.stats.t.ppf(0.975, len(steps) - 2)) * error
    return LogSlope(slope, error, (slope - half, slope + half))


def published_stable_step(steps: Sequence[int], drifts: Sequence[float]) -> int | None:
    """The first log, from the third on, to which drift grew by less than 0.01 a step; or None.

    The rule behind "QK is stable at 1000, before grokking": its floor is the third log, step 1000
    of logs every 500 from step 0, where it lets a drift grow by 5; a falling one passes too. It
    is absolute, and looks at one interval only.

    Raises:
        ProbekitError: not one value a step, or steps that do not increase.
    """
    check_log(steps, drifts)
    growth = zip(steps[2:], velocity(steps, drifts)[1:], strict=False)
    return next((step for step, rate in growth if rate < 0.01), None)


def published_stabilisation_step(steps: Sequence[int], drifts: Sequence[float]) -> int | None:
    """The first log whose last five drifts have ``std / mean |drift| < 0.03``; or None.

    Population standard deviation. Its floor is the fifth log, and a drift that grows by 2 % of
    itself a log passes: at constant speed any part has stabilised after some fifty logs.

    Raises:
        ProbekitError: not one value a step, or steps that do not increase.
    """
    check_log(steps, drifts)
    for step, *last in zip(steps[4:], *(drifts[i:] for i in range(5)), strict=False):
        if np.std(last) < 0.03 * np.mean(np.abs(last)):
            return step
    return None


def published_onset_step(steps: Sequence[int], values: Sequence[float]) -> int | None:
    """The first value above ``max(1.5 * 20th percentile of the first ten, 60th of all)``; or None.

    As the second percentile is of the whole log, the answer depends on how long the run went on.

    Raises:
        ProbekitError: as :func:`published_stable_step`.
    """
    check_log(steps, values)
    if not len(values):
        return None
    threshold = max(1.5 * np.percentile(values[:10], 20), np.percentile(values, 60))
    above = (step for step, value in zip(steps, values, strict=True) if value > threshold)
    return next(above, None)


def _rows(parameters: Mapping[str, Tensor], name: str, stacked: bool) -> Float[Tensor, "*run n"]:
    """A parameter as one vector, or one a run, in float64."""
    if name not in parameters:
        raise ProbekitError(unknown("parameter", name, parameters))
    parameter = parameters[name].detach().double()
    return parameter.reshape(*parameter.shape[: int(stacked)], -1)


def _norm(vectors: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, "*run"]:
    """Of all vectors together, or of each run's."""
    norms = [torch.linalg.vector_norm(vector, dim=-1) for vector in vectors]
    if len({norm.shape for norm in norms}) != 1:
        raise ProbekitError(
            "a part needs a parameter at least, and stacked ones the same number of runs; given "
            f"{[list(norm.shape) for norm in norms]}"
        )
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)
