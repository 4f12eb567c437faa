"""The query-key circuit of each head, as a bilinear form on the residual stream.

Head h scores a query token x and a key token y with ``x^T C y``, ``C = W_Q W_K^T`` [d_model,
d_model] of rank d_head. (W_Q, W_K) -> (W_Q M, W_K M^-T) leaves C as it is, whatever the invertible
M; every number here is one of C alone, so that it does not see M either. C is never formed: all
comes from the factors' small matrices.

The signs of the symmetric part's eigenvalues are no evidence: with 2 d_head <= d_model they are
d_head above and d_head below 0 for any two factors in general position, by Sylvester's law. What
can differ is how much of its energy is above.

Rotary positions turn W_Q against W_K by the distance of the tokens: the numbers are those at
distance 0. In cross-attention x and y live in two residual streams, where eigenvalues and the
symmetric part have no meaning; the stable rank has.

Source: N. Elhage et al. 2021, "A mathematical framework for transformer circuits" (the score); the
terrain write-up's critique, section B9.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError


@dataclass(frozen=True, eq=False)
class HeadCircuits:
    """Per query head, in float64; nulls in :func:`circuit_null`.

    ``score``           ``sum Re(lambda) / sum |lambda|`` of the eigenvalues of C, from -1 to 1
    ``positive_energy`` share of positive eigenvalues in the sum of squares of (C + C^T) / 2
    ``stable_rank``     ``|C|_F^2 / |C|_2^2``
    ``norm``            ``|C|_F``
    """

    score: Float[Tensor, " head"]
    positive_energy: Float[Tensor, " head"]
    stable_rank: Float[Tensor, " head"]
    norm: Float[Tensor, " head"]


@dataclass(frozen=True)
class CircuitNull:
    """What independent Gaussian factors read, with the deviation of one head."""

    score: float
    score_sd: float
    positive_energy: float
    positive_energy_sd: float
    stable_rank: float


def head_circuits(
    W_Q: Float[Tensor, "head d_model d_head"],
    W_K: Float[Tensor, "kv_head width d_key"],
    b_Q: Float[Tensor, "head d_head"] | None = None,
    b_K: Float[Tensor, "kv_head d_key"] | None = None,
) -> HeadCircuits:
    """The circuits of all heads of one attention.

    Fold the scales of the norm before it first (:func:`fold_norm`). Biases count as one more input
    that is always 1: one more row of each factor. Under a gauge M they are ``b_Q M`` and
    ``b_K M^-T``.

    Args:
        W_Q, W_K: in TransformerLens's layout; fewer key heads are shared by groups of query heads.
        b_Q, b_K: biases; None is 0.

    Raises:
        ProbekitError: heads that are no multiple of the key heads, or more than d_model wide.

    Example:
        >>> W = torch.eye(4)[None, :, :2]
        >>> head_circuits(W, W).score
        tensor([1.], dtype=torch.float64)
    """
    fits = W_Q.shape[1:] == W_K.shape[1:] and W_Q.shape[2] <= W_Q.shape[1]
    if not fits or W_Q.shape[0] % W_K.shape[0]:
        raise ProbekitError(
            f"head_circuits needs [head, d_model, d_head] with d_head <= d_model and a multiple of "
            f"the key heads, not W_Q {tuple(W_Q.shape)} and W_K {tuple(W_K.shape)}"
        )
    group = W_Q.shape[0] // W_K.shape[0]
    q = _with_bias(W_Q, b_Q, b_K is not None)
    k = _with_bias(W_K, b_K, b_Q is not None).repeat_interleave(group, 0)
    rows, d = torch.cat([q.mT, k.mT], -2), q.shape[-1]
    gram = rows @ rows.mT
    of_q, of_k, crossed = gram[:, :d, :d], gram[:, d:, d:], gram[:, d:, :d]
    eigenvalues = torch.linalg.eigvals(crossed)
    score = eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1)
    energy = (of_q * of_k).sum((-2, -1))
    root = _gram_root(of_k)
    largest = torch.linalg.eigvalsh(root.mT @ of_q @ root)[:, -1]
    # [q k] = Q0 R^T with Q0 orthonormal: in that basis the circuit is R_q^T R_k.
    r_q, r_k = _gram_root(gram).split(d, dim=-2)
    circuit = r_q.mT @ r_k
    symmetric = torch.linalg.eigvalsh((circuit + circuit.mT) / 2)
    positive = symmetric.clamp(min=0).square().sum(-1) / symmetric.square().sum(-1)
    return HeadCircuits(score, positive, energy / largest, energy.sqrt())


def circuit_null(d_model: int, d_head: int) -> CircuitNull:
    """The circuit of independent Gaussian factors, whatever their scales.

    Score 0 and positive energy .5 by the symmetry W_Q -> -W_Q; the deviations ``1.5 / d_head`` and
    ``.5 / d_head`` are simulated, right to a fifth from d_head = 8 on. The stable rank is
    ``d_head / x`` with x the upper edge of the product of two Marchenko-Pastur laws of ratio
    y = d_head / d_model: ``x = (1 + z) (1 + y z)^2 / z`` at ``z = (sqrt(y^2 + 8 y) - y) / (4 y)``.
    It is 4 n / 27 for y = 1; of finite matrices it is higher, by some percent at d_head = 64.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1.
    """
    check_sizes(d_model=d_model, d_head=d_head)
    y = d_head / d_model
    z = (math.sqrt(y**2 + 8 * y) - y) / (4 * y)
    edge = (1 + z) * (1 + y * z) ** 2 / z
    return CircuitNull(0.0, 1.5 / d_head, 0.5, 0.5 / d_head, d_head / edge)


def fold_norm(
    W: Float[Tensor, "head d_model d_head"],
    b: Float[Tensor, "head d_head"] | None,
    gamma: Float[Tensor, " d_model"],
    beta: Float[Tensor, " d_model"] | None = None,
) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head"] | None]:
    """Scales and offset of the LayerNorm or RMSNorm that a projection reads, moved into it.

    ``(diag(gamma) W, b + beta W)``, in float64: what acts on normalised vectors.
    """
    W, gamma = W.double(), gamma.double()
    folded = gamma[:, None] * W
    if beta is None:
        return folded, None if b is None else b.double()
    offset = torch.einsum("d,hde->he", beta.double(), W)
    return folded, offset if b is None else b.double() + offset


def split_heads(
    weight: Float[Tensor, "rows d_model"], heads: int
) -> Float[Tensor, "head d_model d_head"]:
    """A Linear layer's weight [heads * d_head, d_model] as W_Q, W_K or W_V of TransformerLens.

    Raises:
        ProbekitError: rows that are no multiple of heads.
    """
    check_sizes(heads=heads)
    if len(weight) % heads:
        raise ProbekitError(
            f"{len(weight)} rows do not divide among {heads} heads; weight is a Linear layer's, "
            "[heads * d_head, d_model]"
        )
    return weight.unflatten(0, (heads, -1)).mT


def _gram_root(gram: Float[Tensor, "head n n"]) -> Float[Tensor, "head n n"]:
    """R with ``R R^T`` a Gram matrix, singular or not."""
    root, failed = torch.linalg.cholesky_ex(gram)
    if not failed.any():
        return root
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()[:, None, :]


def _with_bias(W: Tensor, b: Tensor | None, other: bool) -> Tensor:
    W = W.double()
    if b is None and not other:
        return W
    row = torch.zeros_like(W[:, 0]) if b is None else b.to(W)
    return torch.cat([W, row[:, None]], 1)
