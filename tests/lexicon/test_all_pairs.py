"""The correlation over all pairs against NumPy, and against the bootstrap of listed pairs."""

import numpy as np
import pytest
import torch

from probekit.errors import ProbekitError
from probekit.lexicon import PairSample, all_pairs_bootstrap, cosine_table, token_bootstrap
from probekit.lexicon import all_pairs as module

ENTRIES = 30


@pytest.fixture
def tables(monkeypatch) -> tuple[torch.Tensor, torch.Tensor]:
    monkeypatch.setattr(module, "_ROWS", 7)
    x = torch.randn(ENTRIES, 5, dtype=torch.float64)
    similarity = (x @ x.T + torch.randn(ENTRIES, ENTRIES)).abs()
    return (similarity + similarity.T) / 2, x


def test_it_is_the_correlation_of_all_pairs_and_the_bootstrap_of_the_list(tables) -> None:
    similarity, x = tables
    similarity[2, 9] = similarity[9, 2] = torch.nan
    first, second = torch.triu_indices(ENTRIES, ENTRIES, 1)
    sample = PairSample(torch.arange(ENTRIES), first, second)
    cosines = cosine_table(x, sample)
    found = all_pairs_bootstrap(similarity, x, draws=40, seed=3)
    kept = ~similarity[first, second].isnan()
    expected = np.corrcoef(
        similarity[first, second][kept].numpy(), cosines[first, second][kept].numpy()
    )
    assert found.r == pytest.approx(expected[0, 1])
    listed = token_bootstrap(similarity[first, second], cosines, sample, draws=40, seed=3)
    assert found.std == pytest.approx(listed.std)
    assert (found.low, found.high) == pytest.approx((listed.low, listed.high))


def test_a_table_of_other_entries_is_refused(tables) -> None:
    similarity, x = tables
    with pytest.raises(ProbekitError, match="similarity of all 29 entries"):
        all_pairs_bootstrap(similarity, x[1:])
