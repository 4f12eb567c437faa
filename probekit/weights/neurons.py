"""Dead neurons of an MLP, by its weights as published, and by what it does.

The importance of a neuron is the product of the norms of its weights in and out. That of a random
MLP varies by 1 / sqrt(d_model) only, so that no neuron is "dead" at initialisation: "0 dead" is the
null, not a finding. What a neuron does on text is measured by :class:`probekit.probes.DeadNeurons`.

Source: the terrain write-up, sections 4 to 6; its critique, section B10.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError

DEAD, WEAK = 0.01, 0.10
"""Shares of the layer's mean importance below which a neuron counts as dead, or weak."""


@dataclass(frozen=True, eq=False)
class NeuronImportance:
    """``importance`` of each neuron, in units of weight squared (cubed where gated)."""

    importance: Float[Tensor, " neuron"]
    n_dead: int
    n_weak: int
    cv: float

    @property
    def n_neurons(self) -> int:
        """How many there are."""
        return len(self.importance)


def neuron_importance(
    W_in: Float[Tensor, "d_mlp d_model"],
    W_out: Float[Tensor, "out_model out_mlp"],
    W_gate: Float[Tensor, "gate_mlp gate_model"] | None = None,
    gamma: Float[Tensor, " width"] | None = None,
) -> NeuronImportance:
    """``|row of W_in| |column of W_out|``, times ``|row of W_gate|`` where gated.

    Scaling a ReLU neuron's input by s and its output by 1 / s changes no output and not this
    product; of a gated one that holds for W_in and W_out only, the gate's norm is not fixed by the
    function. Null: :func:`importance_cv_null`, and no dead or weak neuron.

    Args:
        W_in, W_out, W_gate: the weights of Linear layers: [d_mlp, d_model], W_out the other way.
        gamma: scales of the norm before the MLP, folded into W_in and W_gate; None is as published.

    Raises:
        ProbekitError: shapes that do not fit.
    """
    fits = W_in.shape == W_out.mT.shape and (W_gate is None or W_gate.shape == W_in.shape)
    if not fits or (gamma is not None and len(gamma) != W_in.shape[1]):
        raise ProbekitError(
            f"neuron_importance needs W_in and W_gate [d_mlp, d_model], W_out [d_model, d_mlp] and "
            f"gamma [d_model], not {tuple(W_in.shape)}, {_shape(W_gate)}, {tuple(W_out.shape)} and "
            f"{_shape(gamma)}; these are Linear layers' weights"
        )
    importance = _row_norms(W_in, gamma) * _row_norms(W_out.mT, None)
    if W_gate is not None:
        importance = importance * _row_norms(W_gate, gamma)
    mean = importance.mean()
    return NeuronImportance(
        importance,
        int((importance < DEAD * mean).sum()),
        int((importance < WEAK * mean).sum()),
        float(importance.std(correction=0) / mean),
    )


def importance_cv_null(d_model: int, *, gated: bool = False) -> float:
    """``std / mean`` of a random MLP's: ``1 / sqrt(d_model)``, gated ``sqrt(1.5 / d_model)``.

    Each norm of d Gaussian numbers varies by ``1 / sqrt(2 d)``, to first order. One MLP of n
    neurons reads it within ``1.4 / sqrt n``, relatively, at 95 %.

    Raises:
        ProbekitError: d_model is no whole number from 1.
    """
    check_sizes(d_model=d_model)
    return math.sqrt((1.5 if gated else 1.0) / d_model)


def wilson(count: int, number: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson: 0 of 24,576 reach up to 1.6e-4.

    Raises:
        ProbekitError: no ``0 <= count <= number`` with number from 1.
    """
    from scipy.stats import binomtest

    check_sizes(number=number)
    if not 0 <= count <= number:
        raise ProbekitError(f"count must be from 0 to number = {number}, not {count!r}")
    interval = binomtest(count, number).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _row_norms(W: Tensor, gamma: Tensor | None) -> Tensor:
    if gamma is None:
        return torch.linalg.vector_norm(W, dim=1, dtype=torch.float64)
    return torch.linalg.vector_norm(W * gamma.to(W), dim=1, dtype=torch.float64)


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
