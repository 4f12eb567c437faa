"""How alike the matrices of different layers are: cosines of weights, and of circuits.

Unrelated matrices have a cosine of ``0 +- 1 / sqrt(numel)``: .000 to three decimals from 512 x 512
on. Functions that are identical but written in rotated head bases read the same. So read
``z = cos sqrt(numel)``, and beside it the cosine of the head-summed circuit ``W_Q^T W_K``, which no
basis of a head changes (null ``0 +- 1 / d_model``).

All comes from one Gram matrix over the layers, filled by blocks of rows, each read for itself:
matrices are never all held at once.

Source: the terrain write-up, sections 4 to 6; its critique, section B10.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError

_FLOOR = 1e-8  # the write-up's, in the denominator of the cosine
_BLOCK = 2**24  # numbers of all layers held at once, in float64: 128 MiB

#: Some rows of a layer's matrix, [rows, ...]
Read = Callable[[slice], Tensor]


@dataclass(frozen=True, eq=False)
class LayerCosines:
    """``cosines`` [layer, layer] of L matrices, with ``numel`` entries that could differ freely."""

    cosines: Float[Tensor, "layer layer"]
    dof: int

    @property
    def z(self) -> Float[Tensor, "layer layer"]:
        """Cosines in units of their null's deviation, ``1 / sqrt(dof)``."""
        return self.cosines * math.sqrt(self.dof)

    @property
    def adjacent(self) -> Float[Tensor, " pair"]:
        """Cosines of neighbours: (0, 1), (1, 2), ..."""
        return self.cosines.diagonal(1)

    @property
    def null_sd(self) -> float:
        """Deviation of one cosine of unrelated matrices, whose mean is 0."""
        return 1 / math.sqrt(self.dof)

    @property
    def adjacent_mean_sd(self) -> float:
        """The same of the mean over neighbours."""
        return self.null_sd / math.sqrt(max(1, len(self.adjacent)))


def layer_cosines(
    reads: Sequence[Read], *, block: int = _BLOCK, dof: int | None = None
) -> LayerCosines:
    """Cosines of flattened matrices, ``a . b / (|a| |b| + 1e-8)``, computed in float64.

    Args:
        reads: for each layer a function that gives the rows of its matrix that it is asked for.
        block: numbers of all layers together held at once.
        dof: independent entries; None is the size of the matrix. See :func:`circuit_cosines`.

    Raises:
        ProbekitError: fewer than two layers, or matrices of different shapes.
    """
    if len(reads) < 2:
        raise ProbekitError(f"layer_cosines compares two layers at least, not {len(reads)}")
    shape = reads[0](slice(None)).shape
    width = shape[1:].numel()
    step = max(1, block // (len(reads) * max(1, width)))
    gram = torch.zeros(len(reads), len(reads), dtype=torch.float64)
    buffer = torch.empty(len(reads), min(step, shape[0]) * width, dtype=torch.float64)
    for start in range(0, shape[0], step):
        stop = start + step if start + step < shape[0] else None  # to the end, however far it is
        here = (min(step, shape[0] - start), *shape[1:])
        stacked = buffer[:, : here[0] * width]
        for at, read in enumerate(reads):
            part = read(slice(start, stop)).detach()
            if part.shape != here:
                raise ProbekitError(
                    f"layer_cosines needs matrices of one shape, not {tuple(shape)} and that of "
                    f"layer {at}, {tuple(read(slice(None)).shape)}"
                )
            stacked[at] = part.flatten()
        gram += stacked @ stacked.mT
    norms = gram.diagonal().sqrt()
    return LayerCosines(
        gram / (torch.outer(norms, norms) + _FLOOR), shape.numel() if dof is None else dof
    )


def circuit_cosines(
    queries: Sequence[Read],
    keys: Sequence[Read],
    heads: int,
    *,
    block: int = _BLOCK,
) -> LayerCosines:
    """Cosines between layers of the head-summed circuits ``sum_h W_Q^h^T W_K^h``.

    Of unrelated layers 0 +- 1 / d_model, of random factors of any rank: the deviation of
    ``<A, B> / (|A| |B|)`` for A random and any B is ``1 / sqrt(numel)``.

    Args:
        queries, keys: for each layer a function that gives rows of the Linear weight
            [inner, d_model].
        heads: query heads; fewer key heads are shared by groups of them.

    Raises:
        ProbekitError: as :func:`layer_cosines`, or sizes that do not fit.
    """
    reads = [_circuit(query, key, heads) for query, key in zip(queries, keys, strict=True)]
    return layer_cosines(reads, block=block)


def head_summed_circuit(
    W_q: Float[Tensor, "inner d_query"], W_k: Float[Tensor, "kv_inner d_key"], heads: int
) -> Float[Tensor, "d_query d_key"]:
    """``sum_h W_Q^h^T W_K^h`` of Linear weights: ``W_q^T W_k`` where each head has its own key.

    Some columns of a weight give the circuit's rows or columns at these.

    Raises:
        ProbekitError: rows that do not divide among the heads.
    """
    d_head = len(W_q) // heads
    if len(W_q) % heads or len(W_k) % d_head or heads % (len(W_k) // d_head):
        raise ProbekitError(
            f"{heads} heads do not fit W_q {tuple(W_q.shape)} and W_k {tuple(W_k.shape)}"
        )
    kv_heads = len(W_k) // d_head
    # Queries of one group meet the same key, so that their sum does.
    grouped = W_q.unflatten(0, (kv_heads, heads // kv_heads, d_head)).sum(1).flatten(0, 1)
    return grouped.mT @ W_k


def _circuit(query: Read, key: Read, heads: int) -> Read:
    every = slice(None)
    return lambda rows: head_summed_circuit(query(every)[:, rows], key(every), heads)
