"""Sites that cannot be, hooks that never fired, and exceptions on the way."""

from typing import Any

import pytest
import torch
from checks import Boom, unchanged
from families import Looped
from transformer_lens.hook_points import HookPoint

import probekit as pk
from probekit.hooksite import hook_points

NO_LAYER = "site '9.z:0': no layer matches 9; blocks has layers 0 to 1; closest: 1"


def test_all_sites_are_resolved_before_the_first_is_touched(built):
    family = built("native")
    with unchanged(family):
        with pytest.raises(pk.SiteError) as error:
            pk.attach(family.model, pk.VDI(), pk.HeadScale(layer=9, head=0, omega=1))
        assert str(error.value) == NO_LAYER
        # Here already, not only after an exit: nothing has been attached.
        assert not any(point._forward_hooks for point in hook_points(family.model).values())


def test_a_failure_while_attaching_takes_everything_back(built, monkeypatch):
    family, added = built("native"), []

    def failing(point: HookPoint, *args: Any, **kwargs: Any) -> Any:
        if len(added) == 2:
            raise Boom
        added.append(point)
        return real(point, *args, **kwargs)

    real = HookPoint.add_hook
    with unchanged(family):
        monkeypatch.setattr(HookPoint, "add_hook", failing)
        with pytest.raises(Boom):
            pk.attach(family.model, pk.VDI(), pk.Record("z"))
        monkeypatch.undo()
    assert len(added) == 2


def test_a_model_that_was_never_run_is_an_error(built):
    family = built("native")
    with unchanged(family):
        with pytest.raises(pk.HookNeverFiredError) as error, pk.attach(family.model, pk.VDI()):
            pass
        assert str(error.value) == (
            "the model was never run while attached, so nothing fired at "
            "blocks.0.attn.hook_pattern, blocks.1.attn.hook_pattern"
        )
        run = pk.attach(family.model, pk.Record("resid_pre"), pk.Record("embed", name="embed"))
        with pytest.raises(pk.HookNeverFiredError) as error:
            run.detach()
        assert str(error.value) == (
            "the model was never run while attached, so nothing fired at blocks.0.hook_resid_pre, "
            "blocks.1.hook_resid_pre, hook_embed"
        )
        run.detach()  # a second time: nothing


def test_a_part_of_the_model_that_does_not_run_is_an_error(built):
    family = built("clip")
    inner = family.model.original_model
    text, vision = pk.Record("text.0.z"), pk.Record("vision.z", name="vision")
    error = pytest.raises(pk.HookNeverFiredError)
    with unchanged(family), error as caught, pk.attach(family.model, text, vision):
        inner.get_text_features(input_ids=family.kwargs["input_ids"])
    assert str(caught.value).startswith(
        "3 hooks never fired: vision_blocks.0.attn.hook_z, vision_blocks.1.attn.hook_z, "
        "vision_blocks.2.attn.hook_z. That part of the model did not run in this forward, "
    )


def test_hooks_of_a_model_that_did_run_are_told_apart():
    model = Looped(times=0)
    with pytest.raises(pk.HookNeverFiredError) as error, pk.attach(model, pk.Record("resid_pre")):
        model(torch.ones(1, 1, 2))
    assert str(error.value) == (
        "1 hooks never fired: blocks.0.hook_resid_pre. That part of the model did not run in this "
        "forward, or TransformerLens wires no call there (a flag such as cfg.use_attn_result, an "
        "attention implementation that keeps no pattern); pk.list_sites(model) shows the sites"
    )


def test_an_exception_in_flight_is_not_replaced(built):
    with pytest.raises(Boom), pk.attach(built("native").model, pk.VDI()):
        raise Boom
