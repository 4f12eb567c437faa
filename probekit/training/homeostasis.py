"""Homeostatic loss terms: attention entropy as a training target, by functions of live patterns.

The write-up's names and what they are: *convergence* is the standard deviation over heads of the
normalised attention entropy, *set-point* its squared distance from a target, *compensation* a
hinge on how much of the residual's change the second layer adds. As published the patterns were
detached when they were cached, so that none of them has a gradient; ``Homeostasis.attached`` is
the switch. Source: "Homeostatic Crystallization", metric definition 4.2 and section 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError, unknown

ROWS = ("length", "visible")
#: The published guard inside the logarithm.
_EPSILON = 1e-10
#: The gradient of a standard deviation at 0 is NaN; this variance is far below what is logged.
_LEAST_VARIANCE = 1e-16


@dataclass(frozen=True)
class Homeostasis:
    """The loss weights of one condition: what is added to the cross-entropy.

    Args:
        convergence, set_point: weights of the terms.
        compensation: published weight of a term that was never computed, and that a model of one
            layer has not (:func:`compensation`): kept in the record, it adds nothing.
        target: of the set-point, in fractions as ``rows`` normalises.
        attached: whether gradients flow through the patterns; as published they do not.
        rows: ``"length"`` divides every row's entropy by ln T (as published: six causal positions
            reach 0.612 at most); ``"visible"`` by ln of the keys that the query may see.
    """

    convergence: float = 0.0
    set_point: float = 0.0
    compensation: float = 0.0
    target: float = 0.61
    attached: bool = False
    rows: str = "length"

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise ProbekitError(unknown("rows", self.rows, ROWS))


def live_vdi(
    pattern: Float[Tensor, "*runs batch head query key"], rows: str = "length"
) -> Float[Tensor, "*runs head"]:
    """Entropy of the batch's mean pattern, averaged over queries and normalised; differentiable.

    As :class:`probekit.VDI` with ``order="pattern-first"`` on causal patterns without padding.
    With ``rows="visible"`` the first query, which sees one key, is left out.
    """
    mean = pattern.mean(-4)
    entropy = -(mean * (mean + _EPSILON).log()).sum(-1)
    length = pattern.shape[-1]
    if rows == "length":
        return entropy.mean(-1) / torch.tensor(float(length)).log()
    visible = torch.arange(2, length + 1, device=pattern.device, dtype=pattern.dtype)
    return (entropy[..., 1:] / visible.log()).mean(-1)


def convergence(vdi: Float[Tensor, "*runs head"]) -> Float[Tensor, "*runs"]:
    """Sample standard deviation over heads; of two heads ``|v0 - v1| / sqrt 2``."""
    return vdi.var(-1).clamp(min=_LEAST_VARIANCE).sqrt()


def set_point(
    vdi: Float[Tensor, "*runs head"], target: float | Float[Tensor, "*runs"]
) -> Float[Tensor, "*runs"]:
    """``(mean over heads - target)^2``."""
    return (vdi.mean(-1) - target) ** 2


def compensation(
    embed: Float[Tensor, "*runs batch pos d_model"],
    first: Float[Tensor, "*runs batch pos d_model"],
    second: Float[Tensor, "*runs batch pos d_model"],
    margin: float = 0.01,
) -> Float[Tensor, "*runs"]:
    """``relu(P - R + margin)``, P and R the mean squared changes by the first and second layer.

    As published it was never given these streams, and is 0; a model of one layer has no second.
    """
    moved = ((first - embed) ** 2).mean((-3, -2, -1))
    answered = ((second - first) ** 2).mean((-3, -2, -1))
    return torch.relu(moved - answered + margin)


def loss_terms(
    patterns: Float[Tensor, "run batch head query key"], conditions: Sequence[Homeostasis]
) -> dict[str, Float[Tensor, " run"]]:
    """Convergence and set-point of each run, unweighted, attached or not as its condition says.

    Raises:
        ValueError: not one condition a run.
    """
    if len(conditions) != len(patterns):
        raise ValueError(f"{len(conditions)} conditions for {len(patterns)} runs")
    vdi = torch.stack(
        [
            live_vdi(pattern if one.attached else pattern.detach(), one.rows)
            for pattern, one in zip(patterns, conditions, strict=True)
        ]
    )
    targets = vdi.new_tensor([one.target for one in conditions])
    return {"convergence": convergence(vdi), "set_point": set_point(vdi, targets)}


def total(
    task: Float[Tensor, " run"],
    terms: dict[str, Float[Tensor, " run"]],
    conditions: Sequence[Homeostasis],
) -> Float[Tensor, " run"]:
    """Cross-entropy plus the weighted terms, a run each."""
    loss = task
    for name, values in terms.items():
        loss = loss + values * values.new_tensor([getattr(one, name) for one in conditions])
    return loss
