"""The write-up's "QK manifold", under its own name: not the form that the model computes.

``M = W_q W_k^T`` of two Linear weights [inner, d_model] contracts d_model and is [inner, inner]. It
is no bilinear form on the residual stream, its blocks off the diagonal couple one head's query with
another's key, and it is not gauge invariant: (W_Q, W_K) -> (M W_Q, M^-T W_K) within a head changes
every number here and no output of the model. Use :func:`probekit.weights.head_circuits`.

Source: the terrain write-up, sections 4 to 6; its critique, section B9.
"""

import math
import statistics
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError
from ..geometry import participation_ratio
from .spectra import singular_values

_FLOOR = 1e-10  # the write-up's, in the symmetry deviation
_SIZE = 160  # of the simulated matrices
_DRAWS = 12


@dataclass(frozen=True)
class PublishedQK:
    """Of ``M = W_q W_k^T`` [inner, inner].

    ``stable_rank`` and ``participation`` are those of its singular values (PR_s),
    ``symmetry_deviation`` is ``|M - M^T|_F / (|M|_F + 1e-10)``, ``n_positive`` and ``n_negative``
    count eigenvalues of (M + M^T) / 2, of which ``top`` are the five largest, descending.
    """

    inner: int
    stable_rank: float
    participation: float
    symmetry_deviation: float
    n_positive: int
    n_negative: int
    top: tuple[float, ...]

    @property
    def positive_fraction(self) -> float:
        """``n_positive / inner``."""
        return self.n_positive / self.inner

    @property
    def negative_fraction(self) -> float:
        """``n_negative / inner``."""
        return self.n_negative / self.inner


@dataclass(frozen=True)
class PublishedQKNull:
    """Mean and deviation over simulated independent Gaussian factors of the same shape.

    ``positive_fraction`` is .5 by symmetry; its deviation is that of .8 to 1 eigenvalue, whatever
    inner is: a binomial interval would be far too wide.
    """

    stable_rank: float
    stable_rank_sd: float
    participation: float
    participation_sd: float
    symmetry_deviation: float
    symmetry_deviation_sd: float
    positive_fraction: float
    positive_fraction_sd: float


def published_qk(
    W_q: Float[Tensor, "inner d_model"], W_k: Float[Tensor, "kv_inner width"]
) -> PublishedQK:
    """The published numbers, in float64.

    Raises:
        ProbekitError: different shapes, as of grouped key heads: there the product is not square.
    """
    if W_q.shape != W_k.shape:
        raise ProbekitError(
            f"published_qk needs two weights of one shape, not {tuple(W_q.shape)} and "
            f"{tuple(W_k.shape)}; of grouped heads there is no such product, use head_circuits"
        )
    product = W_q.double() @ W_k.double().mT
    singular = singular_values(product)
    eigenvalues = torch.linalg.eigvalsh((product + product.mT) / 2).flip(0)
    deviation = (product - product.mT).norm() / (product.norm() + _FLOOR)
    return PublishedQK(
        inner=len(product),
        stable_rank=float(singular.square().sum() / singular[0].square()),
        participation=float(participation_ratio(singular)),
        symmetry_deviation=float(deviation),
        n_positive=int((eigenvalues > 0).sum()),
        n_negative=int((eigenvalues < 0).sum()),
        top=tuple(eigenvalues[:5].tolist()),
    )


@lru_cache(maxsize=64)
def published_qk_null(inner: int, d_model: int, *, seed: int = 0) -> PublishedQKNull:
    """Monte Carlo over independent Gaussian factors, simulated small and scaled up.

    Stable rank and participation grow with inner at a fixed inner / d_model, the rest does not; so
    12 draws of 160 rows at most answer for every size: .561 n, sqrt 2 and .5 for inner = d_model =
    n, to 1 %. The stable rank tends to ``inner / x``, ``x = (1 + z)^2 (1 + y z) / z`` at ``z =
    (sqrt(1 + 8 y) - 1) / (4 y)``, y = inner / d_model (4 n / 27 for y = 1); what the draws have
    beyond it shrinks with inner^(-2/3). The deviations are of one matrix.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1.
    """
    check_sizes(inner=inner, d_model=d_model)
    scale = max(1.0, inner / _SIZE)
    rows, width = round(inner / scale), max(1, round(d_model / scale))
    generator = torch.Generator().manual_seed(seed)

    def draw() -> PublishedQK:
        q, k = torch.randn(2, rows, width, dtype=torch.float64, generator=generator)
        return published_qk(q, k)

    drawn = [draw() for _ in range(_DRAWS)]
    ranks = [each.stable_rank for each in drawn]
    beyond = statistics.mean(ranks) / rows - 1 / _edge(inner / d_model)
    ratios = [each.participation * scale for each in drawn]
    deviations = [each.symmetry_deviation for each in drawn]
    counts = [each.n_positive for each in drawn]
    return PublishedQKNull(
        inner * (1 / _edge(inner / d_model) + beyond * scale ** (-2 / 3)),
        statistics.stdev(ranks) * scale ** (1 / 3),
        statistics.mean(ratios),
        statistics.stdev(ratios),
        statistics.mean(deviations),
        statistics.stdev(deviations) / scale,
        0.5,
        statistics.stdev(counts) / inner,
    )


def _edge(y: float) -> float:
    """Largest squared singular value of the product, over the mean one, as sizes grow."""
    z = (math.sqrt(1 + 8 * y) - 1) / (4 * y)
    return (1 + z) ** 2 * (1 + y * z) / z
