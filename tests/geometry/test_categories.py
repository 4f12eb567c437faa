"""Category lifts against loops, with tables whose categories are known."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.geometry import (
    category_lift,
    intra_cosine,
    matched_lift,
    random_sets,
    rank_matched_sets,
)

WORDS = torch.tensor([3, 30, 31, 80])


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_intra_cosine_is_the_mean_of_all_pairs():
    x = normal(3, 6, 5)
    expected = [1 - pdist(one.numpy(), "cosine").mean() for one in x]
    assert intra_cosine(x).tolist() == pytest.approx(expected)


def test_intra_cosine_of_independent_rows_is_0():
    found = intra_cosine(normal(4000, 5, 16))
    deviation = math.sqrt(2 / (16 * 5 * 4))
    assert float(found.mean()) == pytest.approx(0, abs=4 * deviation / math.sqrt(4000))
    assert float(found.std()) == pytest.approx(deviation, rel=0.04)


def test_the_published_lift_is_the_difference():
    x = normal(100, 8)
    expected = 1 - pdist(x[WORDS].numpy(), "cosine").mean() - 0.25
    assert category_lift(x, WORDS, 0.25) == pytest.approx(expected)


def test_the_matched_lift_by_a_loop():
    x = normal(100, 8) + 3
    sets = random_sets(torch.arange(100), 4, 50, rng())
    centred = (x - x.mean(0)).numpy()
    others = [1 - pdist(centred[one], "cosine").mean() for one in sets]
    intra = 1 - pdist(centred[WORDS], "cosine").mean()
    found = matched_lift(x, WORDS, sets)
    assert (found.intra, found.null_mean) == pytest.approx((intra, np.mean(others)))
    assert found.null_std == pytest.approx(np.std(others))
    assert found.z == pytest.approx((intra - np.mean(others)) / np.std(others))


def test_frequency_alone_gives_a_published_lift_and_no_matched_one():
    # The common half of the vocabulary leans one way; the words are any ten of its tokens.
    lean = torch.where(torch.arange(2000) < 1000, 1.0, -1.0)[:, None]
    x = normal(2000, 32) + 0.5 * lean
    words = torch.arange(0, 1000, 97)
    mean_cosine = float(intra_cosine(x))
    assert category_lift(x, words, mean_cosine) > 0.1
    sets = rank_matched_sets(words, torch.arange(2000), 50, 300, rng())
    assert abs(matched_lift(x, words, sets).z) < 3
    x[words] += torch.tensor([1.0, -1.0]).repeat(16)  # at right angles to the lean
    assert matched_lift(x, words, sets).z > 5


def test_random_sets_are_numpys_choices():
    pool, stream = torch.arange(50, 90), rng(0)
    expected = [pool[stream.choice(40, 3, replace=False)].tolist() for _ in range(6)]
    assert random_sets(pool, 3, 6, rng(0)).tolist() == expected


def test_matched_sets_lie_near_in_rank_and_are_others():
    pool = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    place = pool.argsort()
    sets = rank_matched_sets(WORDS, pool, 6, 3000, rng())
    distance = (place[sets] - place[WORDS]).abs()
    assert int(distance.max()) <= 12  # 6, but for windows shifted at the ends
    inner = (place[WORDS] >= 6) & (place[WORDS] < 94)
    assert inner.any() and int(distance[:, inner].max()) == 6
    assert not torch.isin(sets, WORDS).any()
    assert all(len(set(one)) == 4 for one in sets.tolist())
    # Each free place of a window equally often, where no other word's window is near.
    _, counts = rank_matched_sets(WORDS[:1], pool, 6, 12_000, rng()).unique(return_counts=True)
    assert len(counts) == 12 and float(((counts - 1000.0) ** 2 / 1000).sum()) < 11 + 4 * 22**0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: intra_cosine(x[:1]),
            "intra_cosine needs two rows at least, not (1, 4); leave such a set out",
        ),
        (
            lambda x: category_lift(x, torch.tensor([1, 5]), 0.1),
            "tokens must be rows from 0 to 4, not [1, 5]",
        ),
        (
            lambda x: matched_lift(x, torch.tensor([1, 2]), torch.tensor([[0, 1]])),
            "matched_lift needs two sets at least, not 1; draw more",
        ),
        (
            lambda x: random_sets(torch.arange(3), 4, 2, rng()),
            "a pool of 3 tokens has no set of 4; widen it",
        ),
        (
            lambda x: rank_matched_sets(torch.tensor([1, 9]), torch.arange(5), 5, 2, rng()),
            "rank_matched_sets needs 2 words of the pool, not 1, and 4 places a window, not 5; add "
            "the words to the pool or raise window",
        ),
        (
            lambda x: rank_matched_sets(torch.tensor([1, 2]), torch.arange(5), 1, 2, rng()),
            "rank_matched_sets needs 2 words of the pool, not 2, and 4 places a window, not 3; add "
            "the words to the pool or raise window",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call(normal(5, 4))
    assert str(error.value) == message
