"""Clamps against their definitions; the identity; what a norm behind them undoes."""

import math

import pytest
import torch
from families import Looped
from torch import Tensor
from unchecked import unchecked

import probekit as pk


def _edited(built, item: pk.Clamp, *observed: str) -> tuple[Tensor, ...]:
    family = built("native")
    records = [pk.Record(site, name=f"{i}") for i, site in enumerate(observed)]
    with torch.no_grad(), pk.attach(family.model, *records[:1], item, *records[1:]) as run:
        family.run()
    return tuple(run[record.key].values for record in records)


def test_batch_norm_clamp_is_one_scalar(built) -> None:
    before, after = _edited(built, pk.Clamp("norm", 3.0, "0.resid_post"), *["0.resid_post"] * 2)
    torch.testing.assert_close(after.norm(dim=-1).mean(), torch.tensor(3.0))
    ratios = after / before
    torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios))


def test_vector_norm_clamp_is_of_every_position(built) -> None:
    item = pk.Clamp("norm", 2, "1.resid_pre", per="vector")
    before, after = _edited(built, item, *["1.resid_pre"] * 2)
    torch.testing.assert_close(after.norm(dim=-1), torch.full(after.shape[:2], 2.0))
    cosine = torch.cosine_similarity(before, after, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_variance_clamp_keeps_the_mean(built) -> None:
    item = pk.Clamp("variance", 0.25, "ln_final")
    before, after = _edited(built, item, "ln_final", "ln_final")
    mean = before.mean((0, 1))
    torch.testing.assert_close(after.mean((0, 1)), mean)
    torch.testing.assert_close((after - mean).std(), torch.tensor(0.25))


@pytest.mark.parametrize("site", ["0.resid_mid", "1.resid_pre", "ln_final", "1.ln2"])
@pytest.mark.parametrize("mode", ["norm", "variance"])
def test_the_measured_value_is_the_identity(built, site: str, mode: str) -> None:
    family = built("native")
    with torch.no_grad(), pk.attach(family.model, pk.Record(site)) as run:
        clean = family.run()
    x = run["record"].values
    measured = x.norm(dim=-1).mean() if mode == "norm" else (x - x.mean((0, 1))).std()
    with torch.no_grad(), pk.attach(family.model, pk.Clamp(mode, float(measured), site)):  # type: ignore[arg-type]
        torch.testing.assert_close(family.run(), clean, rtol=0, atol=1e-6)


def test_a_norm_clamp_before_the_final_norm_is_undone_by_it(built) -> None:
    """The earliest published clamp sat there."""
    family = built("native")
    clean = family.run()
    with pk.attach(family.model, pk.Clamp("norm", 50.0, "1.resid_post")):
        torch.testing.assert_close(family.run(), clean, rtol=0, atol=1e-4)


def test_gradients_flow_through(built) -> None:
    family = built("native")
    with pk.attach(family.model, pk.Clamp("variance", 1.0, "ln_final")):
        family.model(*family.args)[:, -1, 0].sum().backward()
    gradient = family.model.embed.original_component.weight.grad
    assert gradient is not None and gradient.isfinite().all() and gradient.any()
    family.model.zero_grad()


@pytest.mark.parametrize("target", [0, -1.0, math.nan, math.inf])
def test_a_target_that_is_no_positive_number_is_refused(target: float) -> None:
    with pytest.raises(pk.ProbekitError, match="target must be a finite positive number, not"):
        pk.Clamp("norm", target, "ln_final")


@pytest.mark.parametrize("target", [True, "1", None])
def test_a_target_that_is_no_number_is_refused(target) -> None:
    with pytest.raises(pk.ProbekitError, match="target must be a finite positive number, not"):
        unchecked(pk.Clamp, "norm", target)


def _clamped(item: pk.Clamp, x: Tensor) -> Tensor:
    """Through a model of nothing but a stream."""
    with torch.no_grad(), pk.attach(Looped(1), item, pk.Record("0.resid_pre")) as run:
        run.model(x)
    return run["record"].values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("per", ["batch", "vector"])
def test_half_precision_clamps_as_float32_does(dtype, per) -> None:
    x = 200 * torch.randn(3, 5, 4096, generator=torch.Generator().manual_seed(0))
    x[..., 0] = 3e4  # the norm of 4096 such numbers is far beyond float16
    x = x.to(dtype)
    for item in (
        pk.Clamp("norm", 10.0, "0.resid_pre", per),
        pk.Clamp("variance", 3.0, "0.resid_pre"),
    ):
        half, exact = _clamped(item, x), _clamped(item, x.float())
        assert half.dtype == dtype
        torch.testing.assert_close(half, exact.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["norm", "variance"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_cannot_be_scaled(mode, value) -> None:
    x = torch.randn(2, 3, 4)
    x[0, 0, 0] = value
    with pytest.raises(pk.ProbekitError, match=r"Clamp\(.*: a \w+ of (nan|inf) cannot be scaled"):
        _clamped(pk.Clamp(mode, 1.0, "0.resid_pre"), x)


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(pk.ProbekitError, match="one scalar a batch; leave per out"):
        pk.Clamp("variance", 1.0, per="vector")


def test_nothing_to_scale_is_an_error(built) -> None:
    family = built("native")
    zero = pk.Edit("ln_final", torch.zeros_like)
    with (
        pytest.raises(pk.ProbekitError, match="a norm of 0 cannot be scaled"),
        pk.attach(family.model, zero, pk.Clamp("norm", 1.0)),
    ):
        family.run()
