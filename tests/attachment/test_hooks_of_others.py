"""Hooks that others set or reset stay theirs."""

import pytest
import torch
from checks import unchanged

import probekit as pk


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("part", ["z", "pattern"])
def test_hooks_of_others_survive(built, part, permanent):
    family, fired = built("native"), []
    point = family.model.hook_dict[f"blocks.0.attn.hook_{part}"]
    earlier = point.add_hook(lambda x, hook: fired.append("earlier"), is_permanent=permanent)
    try:
        with pk.attach(family.model, pk.Edit(f"0.{part}", lambda x: 2 * x)):
            later = point.add_hook(lambda x, hook: fired.append("later"), is_permanent=permanent)
            family.run()
        assert fired == ["earlier", "later"]
        family.run()
        assert fired == ["earlier", "later"] * 2
        assert [handle is earlier for handle in point.fwd_hooks] == [True, False]
    finally:
        for handle in (earlier, later):
            handle.hook.remove()
        point.fwd_hooks.clear()


def test_transformer_lens_s_own_runs_leave_the_attachment_alone(built):
    family = built("native")
    with pk.attach(family.model, pk.HeadScale(layer=0, head=0, omega=0)) as run:
        with torch.no_grad():
            output, cache = family.model.run_with_cache(*family.args)
        with torch.no_grad():
            hooked = family.model.run_with_hooks(
                *family.args, fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: z)]
            )
        clean = family.run()
    # run_with_cache hooks every pattern, so eager attention runs; otherwise SDPA does.
    torch.testing.assert_close(clean, output)
    torch.testing.assert_close(hooked, output)
    assert cache["blocks.0.attn.hook_z"][:, :, 0].abs().max() == 0
    assert run.fired == {"blocks.0.attn.hook_z": 3}


def test_hooks_that_the_user_resets_are_no_error_at_exit_but_a_warning(built):
    family = built("native")
    with (
        unchanged(family),
        pytest.warns(UserWarning, match="hooks of this attachment were removed while it was"),
        pk.attach(family.model, pk.Record("0.z")) as run,
    ):
        family.run()
        family.model.reset_hooks()
        family.run()
    assert run.fired == {"blocks.0.attn.hook_z": 1}
