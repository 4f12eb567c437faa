"""LerpModulator against its equation written out, its initialisers, and what it refuses."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from checks import refused
from unchecked import unchecked

from probekit.errors import ProbekitError
from probekit.modulators import LerpModulator

TOKENS = torch.tensor([[0, 5, 19], [7, 7, 2]])


def small(**changed: Any) -> Any:
    sizes: dict[str, Any] = {"d_model": 8, "n_layers": 3, "vocab": 20, "d_geometry": 4}
    return LerpModulator(**(sizes | changed))


def stream(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(3)).to(dtype)
    x[0, 0, :3] = torch.tensor([-0.0, 0.0, math.inf])
    return x


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()


def test_parameters_of_the_published_configuration():
    modulator = LerpModulator(d_model=512, vocab=32128, d_geometry=64, n_layers=6)
    counts = {name: p.numel() for name, p in modulator.named_parameters()}
    assert counts == {"geometry": 2_056_192, "projection": 32_768, "alpha_logits": 6}
    assert sum(p.numel() for p in LerpModulator().parameters()) == 2_088_966


def test_initial_values():
    modulator = small(vocab=2000, d_model=500)
    assert float(modulator.geometry.detach().std()) == pytest.approx(1, abs=0.03)
    assert float(modulator.projection.detach().std()) == pytest.approx(0.01, abs=0.0005)
    torch.testing.assert_close(modulator.alpha, torch.full((3,), 0.01), rtol=1e-6, atol=0)


def test_a_seed_fixes_the_values_and_leaves_torchs_own_alone():
    before = torch.get_rng_state()
    first, again, other = small(seed=5), small(seed=5), small(seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.geometry, again.geometry)
    assert not torch.equal(first.geometry, other.geometry)


@pytest.mark.parametrize("override", [None, 0.7])
def test_forward_is_the_blend(override):
    modulator = small()
    modulator.set_alpha([0.1, 0.25, 0.5])
    x = stream()
    x[0, 0] = 1
    g, p = (t.detach().double().numpy() for t in (modulator.geometry, modulator.projection))
    a = 0.25 if override is None else override
    expected = (1 - a) * x.double().numpy() + a * np.einsum("dg,bpg->bpd", p, g[TOKENS.numpy()])
    out = modulator(x, TOKENS, 1, override)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-5, atol=1e-7)


def test_alpha_of_one_leaves_only_the_embedding():
    modulator = small(alpha=1)
    x = stream().nan_to_num(posinf=1)
    expected = modulator.geometry[TOKENS] @ modulator.projection.T
    torch.testing.assert_close(modulator(x, TOKENS, 0), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("mode", ["constructor", "override", "set_alpha"])
def test_alpha_of_zero_is_the_identity_bit_for_bit(mode, dtype):
    modulator = small(alpha=0 if mode == "constructor" else 0.3)
    if mode == "set_alpha":
        modulator.set_alpha(0)
    with torch.no_grad():
        modulator.geometry[5] = math.nan
    x = stream(dtype)
    out = modulator(x, TOKENS, 2, 0 if mode == "override" else None)
    assert same_bits(out.detach(), x)


def test_output_keeps_the_streams_dtype():
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert small()(stream(dtype), TOKENS, 0).dtype == dtype
        assert small()(stream(dtype), TOKENS, 0, 0.5).dtype == dtype


def test_gradients_flow_to_geometry_projection_and_alpha():
    modulator = small(alpha=0.2)
    x = stream().nan_to_num(posinf=1).requires_grad_()
    modulator(x, TOKENS, 1).square().sum().backward()
    used = modulator.geometry.grad.norm(dim=-1).nonzero()[:, 0]
    assert used.tolist() == [0, 2, 5, 7, 19]  # the tokens given
    assert modulator.projection.grad.norm() > 0
    assert x.grad is not None and x.grad.norm() > 0
    assert modulator.alpha_logits.grad.nonzero()[:, 0].tolist() == [1]  # the layer given


def test_gradient_of_the_logit_is_the_closed_form():
    modulator = small(alpha=0.2).double()
    x = stream(torch.float64).nan_to_num(posinf=1)
    modulator(x, TOKENS, 0).sum().backward()
    pull = modulator.geometry[TOKENS] @ modulator.projection.T - x
    assert float(modulator.alpha_logits.grad[0]) == pytest.approx(
        0.2 * 0.8 * float(pull.detach().sum())
    )


def test_one_alpha_for_all_layers():
    modulator = small(per_layer=False, alpha=0.25)
    assert modulator.alpha_logits.shape == ()
    assert modulator.alpha.tolist() == pytest.approx([0.25] * 3)
    assert torch.equal(modulator(stream(), TOKENS, 0), modulator(stream(), TOKENS, 2))


def test_an_alpha_that_does_not_learn_is_a_buffer():
    modulator = small(learn_alpha=False)
    assert {name for name, _ in modulator.named_parameters()} == {"geometry", "projection"}
    assert "alpha_logits" in modulator.state_dict()


def test_warmup_rises_by_advance_only_and_only_in_training():
    modulator = small(alpha=0.4, warmup=4)
    x = torch.zeros(1, 1, 8)
    token = torch.zeros(1, 1, dtype=torch.long)
    full = 0.4 * (modulator.geometry[0] @ modulator.projection.T)
    for step in range(6):
        for layer in range(3):
            expected = full * min(1.0, (step + 1) / 4)
            torch.testing.assert_close(modulator(x, token, layer)[0, 0], expected)
        torch.testing.assert_close(modulator.eval()(x, token, 0)[0, 0], full)
        modulator.advance()  # not in eval mode
        modulator.train().advance()
    assert int(modulator.steps) == 6
    torch.testing.assert_close(small(alpha=0.4, warmup=4)(x, token, 0, 0.4)[0, 0], full)


def test_a_warmup_that_nobody_advances_still_trains():
    modulator = small(alpha=0.4, warmup=4)
    modulator(stream().nan_to_num(posinf=1), TOKENS, 1).square().sum().backward()
    for name, parameter in modulator.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_config_holds_every_argument():
    given = {"alpha": 0.2, "per_layer": False, "learn_alpha": False, "warmup": 3, "seed": 5}
    modulator = small(**given)
    sizes = {"d_model": 8, "n_layers": 3, "vocab": 20, "d_geometry": 4}
    assert modulator.config == sizes | given
    assert list(modulator.config) == list(inspect.signature(LerpModulator).parameters)


def test_set_geometry():
    modulator = small()
    before = modulator.geometry.detach().clone()
    rows = torch.arange(8.0).reshape(2, 4)
    modulator.set_geometry(rows, [3, 1])
    assert torch.equal(modulator.geometry[[3, 1]], rows)
    assert torch.equal(modulator.geometry[4:], before[4:])
    modulator.set_geometry(rows, torch.tensor([0, 2]), zero_others=True)
    assert torch.equal(modulator.geometry[[0, 2]], rows)
    assert modulator.geometry.count_nonzero() == 7  # of 8 numbers one is 0
    modulator.set_geometry(before)
    assert torch.equal(modulator.geometry, before) and modulator.geometry.requires_grad


@pytest.mark.parametrize("vocab", [40, 6000])
def test_health_is_numpys(vocab):
    modulator = small(vocab=vocab)
    with torch.no_grad():
        modulator.geometry[:, 0] += 2  # so that the mean cosine is not 0
        modulator.geometry[vocab // 2 :] *= 3
    table = modulator.geometry.detach().double().numpy()
    health = modulator.health()
    norms = np.linalg.norm(table, axis=1)
    assert health["norm_mean"] == pytest.approx(norms.mean())
    assert health["norm_std"] == pytest.approx(norms.std())
    values = np.linalg.eigvalsh(np.cov(table.T, bias=True))
    ratio = values.sum() ** 2 / np.square(values).sum()
    assert health["participation_ratio"] == pytest.approx(ratio)
    assert health["participation_share"] == pytest.approx(ratio / 4)
    assert health["alpha"] == pytest.approx([0.01] * 3)
    unit = table / norms[:, None]
    cosines = (unit @ unit.T)[np.triu_indices(vocab, 1)]
    # Above 5000 rows a sample: 5000 of 6000 pin the mean to a fraction of a percent.
    tolerance = 1e-9 if vocab == 40 else 5e-3
    assert health["cosine_mean"] == pytest.approx(cosines.mean(), rel=tolerance)
    assert health["cosine_std"] == pytest.approx(cosines.std(), rel=tolerance)


def test_health_samples_the_whole_table_by_seed():
    modulator = small(vocab=10_000)
    with torch.no_grad():
        modulator.geometry[:5000] = 1  # the first 5000 ids alone would have cosine 1
        modulator.geometry[5000:] = -1
    assert modulator.health()["cosine_mean"] == pytest.approx(0, abs=1e-2)
    one = small(vocab=6000)
    assert one.health(1) == one.health(1) != one.health(2)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan])
def test_an_alpha_out_of_range(alpha):
    message = f"alpha must be a number from 0 to 1, not {alpha!r}"
    refused(message, small, alpha=alpha)
    refused(message, small(), stream(), TOKENS, 0, alpha)
    refused(message, small().set_alpha, [0.1, 0.1, alpha])


def test_what_forward_refuses():
    modulator, x = small(), stream()
    message = "x of shape [2, 3, 7], built for d_model=8; build the modulator for this model"
    refused(message, modulator, x[..., :7], TOKENS, 0)
    for layer in (-1, 3):
        refused(f"layer {layer}: the modulator has layers 0 to 2", modulator, x, TOKENS, layer)
    message = "the modulator is on cpu and the stream on meta; move it there: module.to('meta')"
    refused(message, modulator, x.to("meta"), TOKENS, 0)
    refused(
        "token ids run from 1 to 20, the table has rows 0 to 19;"
        " build the modulator with the vocab of the tokenizer",
        modulator,
        x,
        TOKENS + 1,
        0,
    )
    with pytest.raises(ProbekitError, match="token ids run from -1 to 18"):
        modulator(x, TOKENS - 1, 0)
    assert modulator(x[:, :0], TOKENS[:, :0], 0).shape == (2, 0, 8)


def test_what_the_setters_refuse():
    modulator, rows = small(), torch.zeros(2, 4)
    refused(
        "alpha has 3 entries, given 2; give one number for all layers or one for each entry",
        modulator.set_alpha,
        [0.1, 0.2],
    )
    refused(
        "20 ids need rows of shape [20, 4], given [2, 4]; pass token_ids to set some rows only",
        modulator.set_geometry,
        rows,
    )
    refused(
        "2 ids need rows of shape [2, 4], given [2, 3]; pass token_ids to set some rows only",
        modulator.set_geometry,
        rows[:, :3],
        [0, 1],
    )
    refused(
        "token_ids holds an id twice; give each id one row", modulator.set_geometry, rows, [3, 3]
    )
    with pytest.raises(ProbekitError, match="token ids run from 0 to 20"):
        modulator.set_geometry(rows, [0, 20])


def test_what_the_constructor_refuses():
    refused("vocab must be a whole number from 1, not 0", small, vocab=0)
    refused("warmup must be 0 steps or more, not -1", small, warmup=-1)


def test_forms_are_the_halves_of_the_blend():
    modulator, x = small(alpha=0.2), stream().nan_to_num(posinf=1)
    modulator.set_scales([1, 2, 3])
    pulled = 3 * modulator.geometry[TOKENS] @ modulator.projection.T
    torch.testing.assert_close(modulator(x, TOKENS, 2), 0.8 * x + 0.2 * pulled)
    assert torch.equal(modulator(x, TOKENS, 2, 0.25, "shrink-only"), 0.75 * x)
    torch.testing.assert_close(modulator(x, TOKENS, 2, form="additive-only"), x + 0.2 * pulled)
    with torch.no_grad():
        modulator.geometry.fill_(math.nan)
    assert modulator(x, TOKENS, 2, form="shrink-only").isfinite().all()  # G is never read


@pytest.mark.parametrize("form", ["lerp", "shrink-only", "additive-only"])
def test_every_form_is_the_identity_at_0_bit_for_bit(form):
    modulator = small()
    modulator.set_scales([4, 5, 6])
    assert same_bits(modulator(stream(), TOKENS, 1, 0, form).detach(), stream())


def test_scales_of_one_change_no_bit():
    """Against the equation as it was before there were scales."""
    modulator, x = small(alpha=0.3), stream()
    with torch.no_grad():
        a = modulator.alpha[1]
        target = torch.nn.functional.linear(modulator.geometry[TOKENS], modulator.projection)
        assert same_bits(modulator(x, TOKENS, 1), (1 - a) * x + a * target)


def test_what_forms_and_scales_refuse():
    with pytest.raises(
        ProbekitError, match=r"unknown form 'shrink'; valid: lerp, shrink-only, add"
    ):
        unchecked(LerpModulator.forward, small(), stream(), TOKENS, 0, None, "shrink")
    for scales in ([1, 2], [1, 2, 0], [1, 2, math.nan], [1, 2, math.inf], [1, 2, -3]):
        with pytest.raises(
            ProbekitError, match=r"scales must be 3 finite numbers above 0, one a l"
        ):
            small().set_scales(scales)
