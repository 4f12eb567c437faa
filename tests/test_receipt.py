"""What the receipt of an attachment says."""

import math

import pytest
import torch
from families import Looped

import probekit as pk


def test_the_receipt_says_what_each_item_did(built):
    family = built("native")
    zero = pk.HeadScale(layer=0, head=1, omega=0)
    with pk.attach(family.model, pk.Record("0.z:1"), pk.Record("0.resid_post", name="post")) as run:
        family.run()
    z, post = run["record"].values, run["post"].values
    inplace, one = pk.Edit("0.resid_post", lambda x: x.add_(1)), pk.HeadScale(1, 0, 1.0)
    with pk.attach(family.model, zero, inplace, one, pk.VDI(site="0.pattern")) as run:
        family.run()
        family.run()
    frame = run.receipt.to_frame()
    assert list(frame.columns) == ["item", "site", "hook", "fired", "edit", "change"]
    assert list(frame["site"]) == ["0.z:1", "0.resid_post", "1.z:0", "0.pattern"]
    assert list(frame["item"])[::2] == [
        "HeadScale(layer=0, head=1, omega=0)",
        "HeadScale(layer=1, head=0, omega=1.0)",
    ]
    assert frame["item"][3] == "VDI(site='0.pattern')"
    assert list(frame["fired"]) == [2, 2, 2, 2]
    assert list(frame["edit"]) == ["returned", "in place", "none", "none"]
    assert frame["change"][0] == pytest.approx(float(z.norm()), rel=1e-6)
    assert frame["change"][1] == pytest.approx(math.sqrt(post.numel()), rel=1e-6)
    assert frame["change"][2] == 0
    assert math.isnan(frame["change"][3])  # an observer changes nothing and is not weighed
    assert run.receipt.rows[3].change is None
    assert run.receipt.output_change is None
    assert "blocks.0.attn.hook_z" in str(run.receipt) and "<table" in run._repr_html_()


def test_changes_are_weighed_at_firings_1_2_4_and_8_and_the_largest_is_kept():
    # Weighed are 1, 6, 5 and 2; the others are larger.
    model, shifts = Looped(1), iter([1, 6, 90, 5, 90, 90, 90, 2, 90])
    with pk.attach(model, pk.Edit("resid_pre", lambda x: x + next(shifts))) as run:
        for _ in range(9):
            model(torch.zeros(1, 1, 4))
    assert run.receipt.rows[0].change == 2 * 6  # L2 norm of four entries of 6
    assert run.receipt.rows[0].fired == 9
