"""How sure a correlation over pairs is, when pairs share entries.

Half a million pairs of 3,000 entries are no half million observations: the deviation of a
correlation that is 0 is that of permuted entries (:func:`node_permutation`, and over all pairs
:func:`pk.geometry.mantel`), and that of another lexicon of the same kind that of resampled entries
(:func:`token_bootstrap`). Repeated seeds that draw from one fixed list say neither.

Source: Mantel 1967; Snijders and Borgatti 1999, "Non-parametric standard errors and tests for
network statistics" (resampling nodes, pairs of a node with itself left out).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from ..checks import check_sizes
from ..errors import ProbekitError
from .pairs import PairSample


@dataclass(frozen=True)
class NodePermutation:
    """Correlation ``r``; mean and deviation under permuted entries; ``p`` of that r or more.

    ``p = (1 + #{r* >= r}) / (1 + permutations)``, so no smaller than 1 / (1 + permutations).
    """

    r: float
    mean: float
    std: float
    p: float


@dataclass(frozen=True)
class Bootstrap:
    """Correlation ``r``, and of resampled entries the deviation and 95 % interval (percentiles)."""

    r: float
    std: float
    low: float
    high: float


def node_permutation(
    similarity: Float[Tensor, " pair"],
    cosines: Float[Tensor, "node node"],
    sample: PairSample,
    *,
    permutations: int = 20,
    seed: int = 0,
) -> NodePermutation:
    """Pearson correlation of similarity with ``cosines[i, j]``, nodes of the cosines permuted.

    Each permutation is ``rng.permutation(nodes)`` of NumPy's ``default_rng(seed)``. Pairs whose
    similarity is NaN are left out.

    Args:
        similarity: of the sample's pairs.
        cosines: of :func:`cosine_table`.
        sample: of :func:`sample_pairs`.
        permutations: how many; 20 give a deviation, 999 a p-value.
        seed: of those.

    Raises:
        ProbekitError: other pairs or nodes than the sample's, or permutations no whole number from
            1.
    """
    check_sizes(permutations=permutations)
    x, sample = _given(similarity, cosines, sample)
    rng = np.random.default_rng(seed)
    ones = torch.ones_like(x)
    r = _weighted_pearson(x, sample.of(cosines).double(), ones)
    drawn = torch.empty(permutations, dtype=torch.float64)
    for i in tqdm(range(permutations), desc="node permutations", delay=3):
        order = torch.from_numpy(rng.permutation(len(cosines)))
        y = cosines[order[sample.first], order[sample.second]].double()
        drawn[i] = _weighted_pearson(x, y, ones)
    return NodePermutation(
        r,
        float(drawn.mean()),
        float(drawn.std(correction=0)),
        (1 + int((drawn >= r).sum())) / (1 + permutations),
    )


def token_bootstrap(
    similarity: Float[Tensor, " pair"],
    cosines: Float[Tensor, "node node"],
    sample: PairSample,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Bootstrap:
    """Pearson correlation of similarity with cosine, entries resampled with replacement.

    A pair counts as often as its two entries were drawn, multiplied; pairs of an entry with itself
    are none. Pairs whose similarity is NaN are left out.

    Args:
        similarity: of the sample's pairs.
        cosines: of :func:`cosine_table`.
        sample: of :func:`sample_pairs`.
        draws: of all entries, each ``rng.integers(nodes, size=nodes)``.
        seed: of NumPy's ``default_rng``.

    Raises:
        ProbekitError: other pairs or nodes than the sample's, or draws no whole number from 1.
    """
    check_sizes(draws=draws)
    x, sample = _given(similarity, cosines, sample)
    y, nodes = sample.of(cosines).double(), len(cosines)
    rng = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for i in tqdm(range(draws), desc="token bootstrap", delay=3):
        counts = torch.from_numpy(np.bincount(rng.integers(nodes, size=nodes), minlength=nodes))
        drawn[i] = _weighted_pearson(x, y, (counts[sample.first] * counts[sample.second]).double())
    low, high = np.quantile(drawn, [0.025, 0.975])
    r = _weighted_pearson(x, y, torch.ones_like(x))
    return Bootstrap(r, float(drawn.std()), float(low), float(high))


def _given(similarity: Tensor, cosines: Tensor, sample: PairSample) -> tuple[Tensor, PairSample]:
    if len(similarity) != len(sample.first) or len(cosines) != len(sample.chosen):
        raise ProbekitError(
            f"a sample of {len(sample.chosen)} entries and {len(sample.first)} pairs needs "
            f"as many cosines and similarities, not {tuple(cosines.shape)} and {len(similarity)}"
        )
    kept = ~similarity.isnan()
    return similarity[kept].double(), sample[kept]


def _weighted_pearson(x: Tensor, y: Tensor, weights: Tensor) -> float:
    weights = weights / weights.sum()
    x, y = x - weights @ x, y - weights @ y
    return float((weights @ (x * y)) / ((weights @ x.square()) * (weights @ y.square())).sqrt())
