"""Layer evolution against numpy and scipy, layer by layer."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.geometry import layer_evolution, participation_null


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_each_layer_by_numpy():
    hidden = normal(3, 7, 5) * torch.tensor([1.0, 4.0, 9.0])[:, None, None] + 1
    found = layer_evolution(hidden)
    for layer, states in enumerate(hidden.numpy()):
        norms, cosines = np.linalg.norm(states, axis=1), 1 - pdist(states, "cosine")
        covariance = np.cov(states.T)
        participation = np.trace(covariance) ** 2 / np.square(covariance).sum()
        read = [float(getattr(found, name)[layer]) for name in vars(found)]
        expected = [norms.mean(), norms.std(), cosines.mean(), cosines.std(), participation]
        assert read == pytest.approx(expected)


def test_texts_of_one_length_go_together():
    hidden = normal(2, 3, 7, 5)
    together, alone = layer_evolution(hidden), layer_evolution(hidden[1])
    for name in vars(together):
        torch.testing.assert_close(getattr(together, name)[1], getattr(alone, name))


def test_tokens_that_are_one_have_cosine_1():
    found = layer_evolution(normal(2, 1, 5).expand(2, 6, 5))
    assert found.cosine_mean.tolist() == pytest.approx([1, 1])
    assert found.cosine_std.tolist() == pytest.approx([0, 0], abs=1e-9)
    assert found.norm_std.tolist() == pytest.approx([0, 0], abs=1e-9)


def test_a_short_text_uses_few_dimensions_by_its_length():
    found = layer_evolution(normal(50, 10, 256)).participation
    assert float(found.mean()) == pytest.approx(participation_null(256, 9), rel=0.02)


def test_one_token_has_no_pairs():
    with pytest.raises(ProbekitError) as error:
        layer_evolution(torch.ones(3, 1, 4))
    assert str(error.value) == (
        "layer_evolution needs two tokens at least, not (3, 1, 4); hidden is [layer, token, dim]"
    )
