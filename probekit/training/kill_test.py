"""The kill test: scale one head, and ask whether the others' attention entropy answers.

Source: "Homeostatic Crystallization", metric definition 4.6, which reads the score as "Le
Chatelier compensation". Its baseline was taken once, at the first test, and never again, so that
the published score is the drift of VDI since then; with a baseline of the same step it is exactly
0 for heads of the perturbed layer, whose patterns are computed before z.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attachment import attach
from ..interventions import HeadScale
from ..probes import VDI

OMEGAS = (0.5, 0.7, 1.0, 1.3, 1.5)
#: The least change of VDI that counts as an answer.
RESPONSE = 0.01


def kill_test(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    *,
    layer: int = 0,
    head: int = 0,
    omegas: Sequence[float] = OMEGAS,
) -> dict[float, Float[Tensor, "layer head"]]:
    """VDI of every head while ``head``'s output is scaled by each omega."""
    responses: dict[float, Tensor] = {}
    for omega in omegas:
        with torch.no_grad(), attach(model, HeadScale(layer, head, omega), VDI()) as run:
            model(tokens)
        responses[omega] = run["vdi"].values
    return responses


def compensation_score(
    responses: Mapping[float, Float[Tensor, "layer head"]],
    baseline: Float[Tensor, "layer head"],
    *,
    layer: int = 0,
    head: int = 0,
) -> float:
    """Mean over omega != 1, and over the other heads, of ``|VDI - baseline|``; sign ignored."""
    shifts = [
        _others((response - baseline).abs(), layer, head).mean()
        for omega, response in responses.items()
        if omega != 1
    ]
    return float(torch.stack(shifts).mean())


def compensating_heads(
    response: Float[Tensor, "layer head"],
    baseline: Float[Tensor, "layer head"],
    omega: float,
    *,
    layer: int = 0,
    head: int = 0,
) -> int:
    """How many other heads move by more than 0.01 with the sign of ``1 - omega``.

    "Le Chatelier detected" asks for two, which a layer of two heads cannot give.
    """
    shift = _others(response - baseline, layer, head)
    return int(((shift.sign() == _sign(1 - omega)) & (shift.abs() > RESPONSE)).sum())


def _others(values: Tensor, layer: int, head: int) -> Tensor:
    kept = torch.ones_like(values, dtype=torch.bool)
    kept[layer, head] = False
    return values[kept]


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)
