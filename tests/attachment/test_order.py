"""Items act in the order of their list, and attachments in the order of attaching."""

import families
import pytest
import torch
from checks import assert_close_to_largest, identity

import probekit as pk

EXACT = ["z", "resid_pre", "resid_mid", "resid_post", "scores", "pattern", "mlp_post"]


@pytest.mark.parametrize("part", EXACT)
@pytest.mark.parametrize("name", ["native", "gpt2", "bert", "clip"])
def test_an_observer_sees_what_stands_before_it_in_the_list(built, name, part):
    family = built(name)
    site = f"vision.0.{part}" if name == "clip" else f"0.{part}"
    before, between, after = (pk.Record(site, name=n) for n in ("before", "between", "after"))
    double, shift = pk.Edit(site, lambda x: 2 * x), pk.Edit(site, lambda x: x + 1)
    with pk.attach(family.model, pk.Edit(site, identity), before) as clean:
        family.run()
    original = clean["before"].values
    with pk.attach(family.model, before, double, between, shift, after) as run:
        family.run()
    assert torch.equal(run["before"].values, original)
    assert torch.equal(run["between"].values, 2 * original)
    assert torch.equal(run["after"].values, 2 * original + 1)
    with pk.attach(family.model, shift, double, after) as run:
        family.run()
    assert torch.equal(run["after"].values, 2 * (original + 1))


def test_a_differentiable_record_of_resid_mid_is_not_rewritten_by_a_later_edit(built):
    family = built("native")
    record = pk.Record("0.resid_mid", differentiable=True)
    with pk.attach(family.model, pk.Record("0.resid_mid")) as clean:
        family.run()
    with pk.attach(family.model, record, pk.Edit("0.resid_mid", lambda x: 0 * x)) as run:
        family.model(*family.args)
    assert torch.equal(run["record"].values.detach(), clean["record"].values)


PRE_NORM = [("native", "0."), ("gpt2", "0."), ("vit", "0."), ("dinov2", "0."), ("t5", "encoder.0.")]
PRE_NORM += [("t5", "decoder.0.self."), ("t5", "decoder.0.cross.")]
PRE_NORM += [("clip", "text.0."), ("clip", "vision.0.")]


@pytest.mark.parametrize(("name", "at"), PRE_NORM)
def test_a_shift_of_resid_mid_is_the_same_shift_of_attn_out(built, name, at):
    family = built(name)
    cfg = family.model.cfg
    shift = torch.randn((cfg.vision if at == "vision.0." else cfg).d_model)
    with pk.attach(family.model, pk.Edit(f"{at}resid_mid", lambda x: x + shift)) as run:
        by_mid = family.run()
    # In T5 the residual itself is hooked; elsewhere the input of the second norm is.
    assert [row.edit for row in run.receipt.rows] == ["returned" if name == "t5" else "in place"]
    with pk.attach(family.model, pk.Edit(f"{at}attn_out", lambda x: x + shift)):
        by_out = family.run()
    assert_close_to_largest(by_mid, by_out)
    assert (by_mid - family.run()).abs().max() > 1e-3


def test_nested_attachments_act_in_the_order_of_attaching(built):
    family = built("native")
    with pk.attach(family.model, pk.Record("0.z")) as clean:
        family.run()
    z = clean["record"].values
    with pk.attach(family.model, pk.Edit("0.z", lambda x: 2 * x), pk.Record("0.z")) as outer:
        with pk.attach(family.model, pk.Edit("0.z", lambda x: x + 1), pk.Record("0.z")) as inner:
            family.run()
        family.run()
    assert torch.equal(inner["record"].values, 2 * z + 1)
    assert torch.equal(outer["record"].values, torch.cat([2 * z, 2 * z]))
    assert (outer.fired, inner.fired) == (
        {"blocks.0.attn.hook_z": 2},
        {"blocks.0.attn.hook_z": 1},
    )


@pytest.mark.parametrize("family", ["native", "gpt2"], indirect=True)
def test_the_end_of_an_inner_attachment_leaves_the_outer_its_mask(family):
    with pk.attach(family.model, pk.VDI()) as alone:
        family.run()
    with pk.attach(family.model, pk.VDI()) as outer:
        with pk.attach(family.model, pk.VDI()) as inner:
            family.run()
        family.run()
    for run in (inner, outer):
        torch.testing.assert_close(run["vdi"].values, alone["vdi"].values)
        torch.testing.assert_close(run["vdi"].null, alone["vdi"].null)


def test_one_item_may_be_attached_twice_and_to_two_models(built):
    first, second = built("native"), families.native()
    double, record = pk.Edit("0.z", lambda x: 2 * x), pk.Record("1.z")
    clean = first.run()
    with pk.attach(first.model, double, record) as one, pk.attach(second.model, record) as two:
        assert not torch.equal(first.run(), clean)
        assert torch.equal(second.run(), clean)
        second.run()
    assert one["record"].values.shape[0] == 3
    assert two["record"].values.shape[0] == 6
    assert (one.fired["blocks.1.attn.hook_z"], two.fired["blocks.1.attn.hook_z"]) == (1, 2)
    with pk.attach(first.model, double), pk.attach(first.model, double):
        twice = first.run()
    with pk.attach(first.model, pk.Edit("0.z", lambda x: 4 * x)):
        assert torch.equal(first.run(), twice)
