"""Lerp and FieldModulator attached: where they act, generation, training with the host frozen."""

from typing import Any

import pytest
import torch
from families import VOCAB, Family, token_ids
from torch.nn import functional as F
from unchecked import unchecked

import probekit as pk
from probekit.modulators import LerpModulator, SimplexField


def _lerp(**fields: Any) -> LerpModulator:
    module = LerpModulator(
        **{"d_model": 32, "n_layers": 2, "vocab": VOCAB, "d_geometry": 4, "alpha": 0.3} | fields
    )
    torch.nn.init.normal_(module.projection, generator=torch.Generator().manual_seed(0))
    return module


def test_the_stream_is_blended_before_every_block(built) -> None:
    family, module = built("bert"), _lerp()
    streams = [pk.Record("resid_pre", name=name) for name in ("before", "after")]
    with torch.no_grad(), pk.attach(family.model, streams[0], pk.Lerp(module), streams[1]) as run:
        family.run()
    before, after = run["before"].values, run["after"].values
    pulled = module.geometry[token_ids()] @ module.projection.T
    torch.testing.assert_close(after, 0.7 * before + 0.3 * pulled.expand_as(before))


@pytest.mark.parametrize(
    ("site", "length"), [("encoder.resid_pre", 7), ("decoder.resid_pre", 5), ("resid_pre", 7)]
)
def test_each_stack_of_t5_has_tokens_of_its_own(built, site: str, length: int) -> None:
    family, seen = built("t5"), []

    class Spy(LerpModulator):
        def forward(self, x, tokens, layer, alpha=None):
            seen.append(tokens)
            return super().forward(x, tokens, layer, alpha)

    module = Spy(d_model=32, n_layers=2, vocab=VOCAB, d_geometry=4)
    with torch.no_grad(), pk.attach(family.model, pk.Lerp(module, site=site)):
        family.run()
    assert torch.equal(seen[0], token_ids(3, length))
    assert len(seen) == (4 if site == "resid_pre" else 2)


def _generated(family: Family, *items: pk.Intervention) -> Any:
    with torch.no_grad():
        if not items:
            return family.model.original_model.generate(token_ids(), max_new_tokens=6)
        with pk.attach(family.model, *items):
            return family.model.original_model.generate(token_ids(), max_new_tokens=6)


@pytest.mark.parametrize("site", ["encoder.resid_pre", "resid_pre"])
def test_t5_generates_the_same_tokens_where_alpha_is_0(built, site: str) -> None:
    family = built("t5")
    plain = _generated(family)
    assert torch.equal(_generated(family, pk.Lerp(_lerp(), alpha=0, site=site)), plain)
    assert not torch.equal(_generated(family, pk.Lerp(_lerp(), alpha=0.9, site=site)), plain)
    assert torch.equal(_generated(family), plain)


def test_training_moves_the_modulator_and_no_bit_of_the_host(built) -> None:
    family, module = built("t5"), _lerp()
    host = {name: p.clone() for name, p in family.model.named_parameters()}
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    # The host's parameters are in the optimizer too, with weight decay: they must not move.
    everything = [*module.parameters(), *family.model.parameters()]
    optimizer = torch.optim.AdamW(everything, lr=0.05, weight_decay=0.1)
    losses = []
    with pk.attach(
        family.model, pk.FreezeWeights("all"), pk.Lerp(module, site="encoder.resid_pre")
    ):
        for _ in range(15):
            logits = family.output(family.model(*family.args, **family.kwargs))
            loss = F.cross_entropy(logits.flatten(0, 1), token_ids(3, 5).flatten())
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, host[name]) for name, p in family.model.named_parameters())
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, start[name])}
    assert moved == {"geometry", "projection", "alpha_logits"}


@pytest.mark.parametrize("null_at", ["tail", "random"])
def test_the_field_leaves_its_null_coordinates_alone(built, null_at: str) -> None:
    module = SimplexField(d_model=32, n_layers=2, alpha=0.3, null_at=null_at)  # type: ignore[arg-type]
    with torch.no_grad():
        module.alpha_logits[0] = -6  # so that it matters which layer's alpha is used
    family = built("bert")
    streams = [pk.Record("1.resid_pre", name=name) for name in ("before", "after")]
    field = pk.FieldModulator(module, site="1.resid_pre")
    with torch.no_grad(), pk.attach(family.model, streams[0], field, streams[1]) as run:
        family.run()
    before, after = run["before"].values, run["after"].values
    null = torch.ones(32, dtype=torch.bool)
    null[module.active] = False
    assert null.sum() == 8
    assert torch.equal(after[..., null], before[..., null])
    torch.testing.assert_close(after[..., ~null], module(before, 1)[..., ~null])
    assert (after[..., ~null].abs() < before[..., ~null].abs()).all()


def test_gradients_reach_the_field_through_the_host(built) -> None:
    module = SimplexField(d_model=32, n_layers=2, alpha=0.3)
    family = built("bert")
    with pk.attach(family.model, pk.FreezeWeights("all"), pk.FieldModulator(module)):
        family.output(family.model(*family.args, **family.kwargs)).square().mean().backward()
    assert module.alpha_logits.grad is not None and module.alpha_logits.grad.any()
    assert all(p.grad is None for p in family.model.parameters())


@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_a_stack_without_tokens_is_refused(built, name: str) -> None:
    with pytest.raises(
        pk.SiteError, match=r"site '0\.resid_pre' belongs to a stack that embeds no"
    ):
        pk.attach(built(name).model, pk.Lerp(_lerp()))


def test_what_does_not_fit_is_an_error_that_says_so(built) -> None:
    with pytest.raises(pk.ProbekitError, match=r"alpha must be a number from 0 to 1, not 1\.5"):
        pk.Lerp(_lerp(), alpha=1.5)
    with pytest.raises(pk.ProbekitError, match=r"acts on the residual stream, not on '0\.z'"):
        pk.Lerp(_lerp(), site="0.z")
    family = built("bert")
    with pytest.raises(pk.ProbekitError), pk.attach(family.model, pk.Lerp(_lerp(vocab=4))):
        family.run()


@pytest.mark.parametrize("kind", [pk.Lerp, pk.FieldModulator])
@pytest.mark.parametrize("module", [3, "x", len, torch.nn.Linear(2, 2), LerpModulator])
def test_what_is_no_modulator_is_refused(kind, module) -> None:
    with pytest.raises(pk.ProbekitError, match=r"module must be a (Lerp|Simplex)\w+, not"):
        unchecked(kind, module)


@pytest.mark.parametrize("alpha", ["a", True, torch.tensor(0.5)])
def test_an_alpha_that_is_no_number_is_refused(alpha) -> None:
    with pytest.raises(pk.ProbekitError, match="alpha must be a number from 0 to 1, not"):
        unchecked(pk.Lerp, _lerp(), alpha=alpha)


def test_the_receipt_names_the_module_shortly(built) -> None:
    with torch.no_grad(), pk.attach(built("bert").model, pk.Lerp(_lerp())) as run:
        built("bert").run()
    assert run.receipt.rows[0].item == "Lerp(module=<LerpModulator>)"
