"""The mechanics under an attachment."""

import families
import pytest
import torch

import probekit as pk
from probekit.flags import Flags


def test_a_forward_ended_by_ctrl_c_does_not_swallow_the_next_ones():
    family = families.native()
    run = pk.attach(family.model, pk.Record("0.z"))

    def interrupt(_module, _inputs):
        raise KeyboardInterrupt

    handle = family.model.blocks[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        family.run()
    handle.remove()
    family.run()
    family.run()
    run.detach()
    assert len(run["record"].values) == 3 * len(family.args[0])


def test_flags_come_back():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    model[0].weight.requires_grad_(False)
    model[1].eval()
    flags = Flags(model)
    model.eval().requires_grad_(True)
    model[1].train()
    flags.restore()
    assert [module.training for module in model.modules()] == [True, True, False]
    assert [p.requires_grad for p in model.parameters()] == [False, True]


def test_firings_outside_any_forward_are_forwards_of_their_own():
    family = families.t5()
    encoder = family.model.original_model.get_encoder()
    first, second = torch.arange(5)[None], torch.arange(3, 8)[None]
    with pk.attach(family.model, pk.Record("encoder.0.z", iterations="first")) as run:
        encoder(input_ids=first)
        encoder(input_ids=second)
    assert len(run["record"].values) == 2


def test_sites_of_different_rhythm_are_refused_by_name():
    family = families.t5()
    with pk.attach(family.model, pk.VDI(iterations="all")) as run:
        family.run()
        stream = run._streams["vdi"]
        stream._fold(1, next(iter(stream._totals[0])), None)  # as if one site fired once more
    with pytest.raises(pk.ProbekitError, match="its sites fired different numbers of times"):
        run["vdi"]
