"""verify: what an edit changed at the output, against two runs made by hand."""

import inspect
import math
import warnings

import families
import pytest
import torch
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import probekit as pk


@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_the_change_is_the_largest_difference_of_two_runs(family):
    item = pk.AttentionScale(0.5)
    clean = family.run()
    with pk.attach(family.model, item) as run:
        edited = family.run()
    receipt = pk.verify(family.model, item, *family.args, **family.kwargs)
    assert [row.hook for row in receipt.rows] == [row.hook for row in run.receipt.rows]
    assert receipt.output_change >= float((edited - clean).abs().max())
    if family.name not in ("clip", "t5", "bert encoder", "vit", "dinov2"):  # those answer several
        assert receipt.output_change == float((edited - clean).abs().max())


@pytest.mark.parametrize("family", families.SEAM, indirect=True)
def test_both_runs_take_the_same_attention(family):
    """An identity edit changes nothing at all, though a run without taps would be SDPA's."""
    same = pk.SetPattern(lambda pattern: pattern.clone())
    assert pk.verify(family.model, same, *family.args, **family.kwargs).output_change == 0
    # Nor may an observer that comes along take only one of them off SDPA.
    items = [pk.HeadScale(layer=0, head=0, omega=1), pk.VDI()]
    assert pk.verify(family.model, items, *family.args, **family.kwargs).output_change == 0


def test_both_runs_see_the_same_random_numbers(built):
    family = built("bert")
    family.model.train()  # dropout
    state = torch.get_rng_state()
    try:
        assert pk.verify(family.model, pk.HeadScale(0, 0, 1), *family.args).output_change == 0
        assert pk.verify(family.model, pk.HeadScale(0, 0, 0), *family.args).output_change > 0
    finally:
        family.model.eval()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_edit_without_effect_is_reported_loudly():
    model, x = Idle(), torch.ones(1, 2, 3)
    with pytest.warns(UserWarning) as caught:
        receipt = pk.verify(model, pk.Edit("resid_post", lambda t: t + 2), x)
    assert receipt.silent and receipt.output_change == 0
    (warning,) = caught
    assert str(warning.message) == (
        f"an edit was applied and the output did not change by one bit:\n{receipt}"
    )
    assert str(receipt).endswith("largest change of the output: 0")
    assert receipt.rows[0].change == pytest.approx(2 * math.sqrt(6))


def test_an_identity_edit_is_no_edit_without_effect():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        receipt = pk.verify(Idle(), pk.Edit("resid_post", lambda t: t), torch.ones(1, 2, 3))
    assert not receipt.silent and receipt.output_change == 0


def test_one_item_or_several(built):
    family = built("native")
    one = pk.verify(family.model, pk.HeadScale(0, 0, 0), *family.args)
    several = pk.verify(family.model, (pk.HeadScale(0, 0, 0), pk.Record("1.z")), *family.args)
    assert several.output_change == one.output_change > 0
    assert [row.site for row in several.rows] == ["0.z:0", "1.z"]


def test_without_an_intervention_there_is_nothing_to_verify(built):
    family = built("native")
    with pytest.raises(pk.ProbekitError) as error:
        pk.verify(family.model, pk.VDI(), *family.args)
    assert str(error.value) == "verify needs at least one intervention"


class Idle(HookedRootModule):
    """Ends in a hook point whose value it drops; answers in a nested output."""

    class _Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()

    def __init__(self, keep: str = "floats") -> None:
        super().__init__()
        self.blocks = nn.ModuleList([self._Block()])
        self.keep = keep
        self.setup()

    def forward(self, x: Tensor) -> object:
        x = self.blocks[0].hook_resid_pre(x)
        self.blocks[0].hook_resid_post(x)
        ids = torch.arange(3)
        if self.keep == "integers":
            return {"ids": ids}
        if self.keep == "shape":
            return x[: int(x.sum() > 0)]
        return {"first": [ids, (x, None)], "second": 10 * x}


def test_every_tensor_of_a_nested_output_counts():
    shift = pk.Edit("resid_pre", lambda t: t + 1)
    assert pk.verify(Idle(), shift, torch.ones(1, 2, 3)).output_change == 10


def test_an_output_of_another_shape_has_changed_without_bound():
    negate = pk.Edit("resid_pre", lambda t: -t)
    assert pk.verify(Idle("shape"), negate, torch.ones(2, 2, 3)).output_change == math.inf


def test_an_output_without_numbers_cannot_be_compared():
    with pytest.raises(pk.ProbekitError) as error:
        pk.verify(Idle("integers"), pk.Edit("resid_pre", lambda t: -t), torch.ones(1, 2, 3))
    assert str(error.value) == ("the model's output holds no floating-point tensor to compare")


def test_a_class_in_place_of_an_item_is_named():
    with pytest.raises(pk.ProbekitError, match=r"^HeadScale is a class; give an instance"):
        inspect.unwrap(pk.verify)(families.native().model, pk.HeadScale)
