"""The forms of Lerp attached: each is its equation, survives storage, and is nothing at alpha 0."""

from typing import Any

import pytest
import torch
from families import VOCAB, token_ids
from unchecked import unchecked

import probekit as pk
from probekit.modulators import LerpModulator, zero_rows


def _module() -> LerpModulator:
    module = LerpModulator(d_model=32, n_layers=2, vocab=VOCAB, d_geometry=4, alpha=0.3)
    torch.nn.init.normal_(module.projection, generator=torch.Generator().manual_seed(0))
    return module


def _streams(family: Any, item: pk.Lerp) -> tuple[torch.Tensor, torch.Tensor]:
    around = [pk.Record("0.resid_pre", name=name) for name in ("before", "after")]
    with torch.no_grad(), pk.attach(family.model, around[0], item, around[1]) as run:
        family.run()
    return run["before"].values, run["after"].values


@pytest.mark.parametrize(
    ("form", "kept", "added"), [("shrink-only", 0.7, 0), ("additive-only", 1, 0.3)]
)
def test_each_form_is_its_equation_at_the_hook(built, form, kept, added) -> None:
    module = _module()
    before, after = _streams(built("bert"), pk.Lerp(module, form=form))
    pulled = module.geometry[token_ids()] @ module.projection.T
    torch.testing.assert_close(after, kept * before + added * pulled.expand_as(before))


def test_shrinking_alone_is_the_blend_with_an_empty_table(built) -> None:
    family, module = built("bert"), _module()
    shrunk = _streams(family, pk.Lerp(module, form="shrink-only"))[1]
    assert torch.equal(shrunk, _streams(family, pk.Lerp(zero_rows(module, [])))[1])


@pytest.mark.parametrize("form", ["lerp", "shrink-only", "additive-only"])
def test_alpha_of_0_changes_no_bit_of_the_output(built, form) -> None:
    family = built("bert")
    plain = family.run()
    with torch.no_grad(), pk.attach(family.model, pk.Lerp(_module(), 0, form=form)):
        assert torch.equal(family.run(), plain)


def test_a_form_is_stored_and_shown() -> None:
    item = pk.Lerp(_module(), 0.2, "encoder.resid_pre", "additive-only")
    assert repr(item).endswith("alpha=0.2, site='encoder.resid_pre', form='additive-only')")
    assert "form" not in repr(pk.Lerp(_module()))


def test_a_form_comes_back_from_its_folder(tmp_path) -> None:
    pk.save_items([pk.Lerp(_module(), form="shrink-only")], tmp_path)
    (again,) = pk.load_items(tmp_path)
    assert isinstance(again, pk.Lerp) and again.form == "shrink-only"


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(pk.ProbekitError) as error:
        unchecked(pk.Lerp, _module(), form="additive")
    assert str(error.value) == (
        "unknown form 'additive'; valid: lerp, shrink-only, additive-only; closest: 'additive-only'"
    )
