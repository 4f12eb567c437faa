"""Copies with other rows: what changes, what does not, and that the module itself does not."""

import numpy as np
import pytest
import torch
from unchecked import unchecked

from probekit.errors import ProbekitError
from probekit.modulators import LerpModulator, permuted_rows, random_rows, zero_rows

IDS = [7, 2, 11, 5]


@pytest.fixture
def module() -> LerpModulator:
    made = LerpModulator(d_model=6, n_layers=2, vocab=12, d_geometry=4, alpha=0.2)
    made.alpha_logits.requires_grad_(False)
    made.set_scales([2, 3])
    return made


def test_rows_change_places(module) -> None:
    before = module.geometry.detach().clone()
    found = permuted_rows(module, 5, IDS)
    order = np.random.default_rng(5).permutation(4)
    for place, token in enumerate(IDS):
        assert torch.equal(found.geometry[token], before[IDS[order[place]]])
    others = [token for token in range(12) if token not in IDS]
    assert torch.equal(found.geometry[others], before[others])
    everywhere = permuted_rows(module, 5).geometry
    assert torch.equal(everywhere, before[np.random.default_rng(5).permutation(12)])
    assert torch.equal(module.geometry, before)


def test_random_rows_keep_their_lengths(module) -> None:
    before = module.geometry.detach().clone()
    found = random_rows(module, 5, torch.tensor(IDS)).geometry
    torch.testing.assert_close(found.norm(dim=-1), before.norm(dim=-1))
    drawn = np.random.default_rng(5).standard_normal((4, 4))
    cosines = torch.cosine_similarity(found[IDS], torch.tensor(drawn).float())
    torch.testing.assert_close(cosines, torch.ones(4))
    others = [token for token in range(12) if token not in IDS]
    assert torch.equal(found[others], before[others])
    assert not torch.equal(random_rows(module, 6).geometry, random_rows(module, 5).geometry)
    assert torch.equal(module.geometry, before)


def test_zero_rows(module) -> None:
    before = module.geometry.detach().clone()
    found = zero_rows(module, IDS).geometry
    assert torch.equal(found[IDS], before[IDS])
    assert found.norm(dim=-1).nonzero()[:, 0].tolist() == sorted(IDS)
    assert torch.equal(module.geometry, before)


@pytest.mark.parametrize("make", [permuted_rows, random_rows, lambda m: zero_rows(m, [1])])
def test_all_else_is_the_modules(module, make) -> None:
    found = make(module)
    assert found.config == module.config
    for name in ("projection", "alpha_logits", "scales", "steps"):
        assert torch.equal(getattr(found, name), getattr(module, name)), name
    own = [(name, p.requires_grad) for name, p in module.named_parameters()]
    assert [(name, p.requires_grad) for name, p in found.named_parameters()] == own
    found.projection.data.zero_()
    assert module.projection.any()


def test_refusals(module) -> None:
    for make in (lambda ids: permuted_rows(module, 0, ids), lambda ids: zero_rows(module, ids)):
        with pytest.raises(ProbekitError, match="token_ids holds an id twice"):
            make([3, 3])
    with pytest.raises(ProbekitError, match=r"seed must be a whole number, not 0\.5"):
        unchecked(random_rows, module, 0.5)
