"""Noise: its law, its seeds, its independence."""

import math

import pytest
import torch
from torch import Tensor
from unchecked import unchecked

import probekit as pk


def _noise(built, *items: pk.Noise, forwards: int = 1) -> Tensor:
    """What the items add to the final norm's output, forward after forward."""
    family = built("native")
    before, after = (pk.Record("ln_final", name=name) for name in ("before", "after"))
    with torch.no_grad(), pk.attach(family.model, before, *items, after) as run:
        for _ in range(forwards):
            family.run()
    return run["after"].values - run["before"].values


def test_its_standard_deviation_is_sigma(built) -> None:
    drawn = _noise(built, pk.Noise(0.5, "ln_final"), forwards=20)
    assert abs(float(drawn.std()) - 0.5) < 0.5 * 4 / math.sqrt(2 * drawn.numel())
    assert abs(float(drawn.mean())) < 0.5 * 4 / math.sqrt(drawn.numel())


def test_forwards_are_independent_and_attachments_repeat(built) -> None:
    first, second = _noise(built, pk.Noise(1.0, "ln_final"), forwards=2).chunk(2)
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert abs(float(correlation)) < 4 / math.sqrt(first.numel())
    again = _noise(built, pk.Noise(1.0, "ln_final"), forwards=2)
    assert torch.equal(again, torch.cat([first, second]))


def test_seeds_and_sites_draw_apart(built) -> None:
    family = built("native")
    records = [pk.Record(f"{layer}.attn_out", name=f"{layer}") for layer in (0, 1)]
    noises = [pk.Edit("attn_out", torch.zeros_like), pk.Noise(1.0, "attn_out")]
    with torch.no_grad(), pk.attach(family.model, *noises, *records) as run:
        family.run()
    assert not torch.equal(run["0"].values, run["1"].values)
    draws = [_noise(built, pk.Noise(1.0, "ln_final", seed=seed)) for seed in (0, 1)]
    assert not torch.allclose(*draws)


def test_the_global_random_state_is_not_touched(built) -> None:
    before = torch.random.get_rng_state()
    _noise(built, pk.Noise(1.0, "ln_final"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_sigma_is_the_identity(built) -> None:
    family = built("native")
    with pk.attach(family.model, pk.Edit("ln_final", lambda x: x)):
        clean = family.run()
    with pk.attach(family.model, pk.Noise(0, "ln_final")):
        assert torch.equal(family.run(), clean)


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_a_sigma_that_is_none_is_refused(sigma: float) -> None:
    with pytest.raises(pk.ProbekitError, match="sigma must be a finite number from 0, not"):
        pk.Noise(sigma, "ln_final")


@pytest.mark.parametrize("sigma", ["1", True, None])
def test_a_sigma_that_is_no_number_is_refused(sigma) -> None:
    with pytest.raises(pk.ProbekitError, match="sigma must be a finite number from 0, not"):
        unchecked(pk.Noise, sigma, "ln_final")


@pytest.mark.parametrize("seed", ["abc", 1.5, True, None])
def test_a_seed_that_is_no_whole_number_is_refused(seed) -> None:
    with pytest.raises(pk.ProbekitError, match="seed must be a whole number, not"):
        unchecked(pk.Noise, 1.0, "ln_final", seed=seed)


def test_items_of_one_seed_draw_the_same(built) -> None:
    one, seed = pk.Noise(1.0, "ln_final"), pk.Noise(1.0, "ln_final", seed=1)
    twice, apart = _noise(built, one, one), _noise(built, one, seed)
    torch.testing.assert_close(twice, 2 * _noise(built, one))
    assert abs(float(apart.std()) - math.sqrt(2)) < 0.1
