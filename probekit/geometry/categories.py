"""Whether words of a category lie together, against other sets of words.

Words of a list are frequent, whole and lower-case, and such tokens resemble each other whatever
they mean. A lift over the mean cosine of all rows is therefore positive for any list of common
words: compare with sets of equally frequent tokens, after removing the mean row.

All work in float64.

Source: the write-up "Geometric Terrain Analysis" (its category lift).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import check_sizes
from ..errors import ProbekitError
from .similarity import unit_rows


@dataclass(frozen=True)
class MatchedLift:
    """``intra`` of centred rows beside that of other sets; ``z`` = (intra - mean) / std.

    The deviation divides by the number of sets.
    """

    intra: float
    null_mean: float
    null_std: float
    z: float


def intra_cosine(x: Float[Tensor, "*batch row dim"]) -> Float[Tensor, "*batch"]:
    """Mean cosine of all pairs of rows: ``(|sum u|^2 - n) / (n (n - 1))``, u of length 1.

    Null: 0 for independent isotropic rows, deviation ``sqrt(2 / (d n (n - 1)))``. NaN where a row
    has length 0.

    Raises:
        ProbekitError: fewer than 2 rows.
    """
    n = x.shape[-2]
    if n < 2:
        raise ProbekitError(
            f"intra_cosine needs two rows at least, not {tuple(x.shape)}; leave such a set out"
        )
    return (unit_rows(x).sum(-2).square().sum(-1) - n) / (n * (n - 1))


def category_lift(
    x: Float[Tensor, "rows dim"], ids: Int[Tensor, " word"], mean_cosine: float
) -> float:
    """The published lift: :func:`intra_cosine` of the words' rows minus the table's mean cosine.

    Null 0 only for words that are exchangeable with those behind ``mean_cosine``: use
    :func:`matched_lift`. The write-up leaves out lists with fewer than 3 words of one token.

    Raises:
        ProbekitError: fewer than 2 words, or one that is no row.
    """
    return float(intra_cosine(_rows(x, ids))) - mean_cosine


def matched_lift(
    x: Float[Tensor, "rows dim"], ids: Int[Tensor, " word"], sets: Int[Tensor, "set word"]
) -> MatchedLift:
    """:func:`intra_cosine` of centred rows against that of other sets, such as matched ones.

    All rows' mean is removed from each: pass the whole table. z counts deviations of sets of
    this size; sets that share the category's own words pull it to 0. Many categories are many
    tests.

    Args:
        x: the whole table.
        ids: rows of the category.
        sets: rows of the sets it is compared with, of :func:`rank_matched_sets` or
            :func:`random_sets`.

    Raises:
        ProbekitError: fewer than 2 words or sets, or one that is no row.
    """
    if len(sets) < 2:
        raise ProbekitError(f"matched_lift needs two sets at least, not {len(sets)}; draw more")
    centre = x.double().mean(0)
    intra = float(intra_cosine(_rows(x, ids) - centre))
    others = torch.stack([intra_cosine(_rows(x, one) - centre) for one in sets])
    mean, std = float(others.mean()), float(others.std(correction=0))
    return MatchedLift(intra, mean, std, (intra - mean) / std)


def random_sets(
    pool: Int[Tensor, " token"], size: int, number: int, rng: np.random.Generator
) -> Int[Tensor, "set word"]:
    """``number`` sets of ``size`` different tokens of the pool, ``rng.choice`` for each.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1, or a pool smaller than a set.
    """
    check_sizes(size=size, number=number)
    if len(pool) < size:
        raise ProbekitError(f"a pool of {len(pool)} tokens has no set of {size}; widen it")
    drawn = np.stack([rng.choice(len(pool), size, replace=False) for _ in range(number)])
    return pool[torch.from_numpy(drawn).to(pool.device)]


def rank_matched_sets(
    ids: Int[Tensor, " word"],
    pool: Int[Tensor, " token"],
    window: int,
    number: int,
    rng: np.random.Generator,
) -> Int[Tensor, "set word"]:
    """Sets in which each word gives way to a token within ``window`` places of its rank.

    Tokens of a set differ, and none is a word of the category. Rank is the place in ``pool``, at
    whose ends the window shifts inwards: matching is as good as that order is by frequency, which
    ids of most tokenizers are roughly.

    Args:
        ids: the category's tokens, all of the pool.
        pool: candidates, the most frequent first: whole words, for whole words.
        window: places to either side.
        number: of sets.
        rng: draws them.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1, a word outside the pool, or a window
            with too few tokens.
    """
    check_sizes(window=window, number=number)
    places = torch.cat([(pool == word).nonzero()[:1, 0] for word in ids]).cpu().numpy()
    slots = min(2 * window + 1, len(pool))
    if len(places) < len(ids) or slots < 2 * len(ids):
        raise ProbekitError(
            f"rank_matched_sets needs {len(ids)} words of the pool, not {len(places)}, and "
            f"{2 * len(ids)} places a window, not {slots}; add the words to the pool or raise "
            "window"
        )
    free = np.ones((number, len(pool)), dtype=bool)
    free[:, places] = False
    chosen = np.empty((number, len(ids)), dtype=np.int64)
    sets = np.arange(number)
    for i, place in enumerate(places):
        start = min(max(place - window, 0), len(pool) - slots)
        keys = np.where(free[:, start : start + slots], rng.random((number, slots)), -1)
        chosen[:, i] = start + keys.argmax(1)
        free[sets, chosen[:, i]] = False
    return pool[torch.from_numpy(chosen).to(pool.device)]


def _rows(x: Tensor, ids: Tensor) -> Tensor:
    if not ((ids >= 0) & (ids < len(x))).all():
        raise ProbekitError(f"tokens must be rows from 0 to {len(x) - 1}, not {ids.tolist()}")
    return x[ids].double()
