"""Several settings in one forward read what forwards of their own read."""

import pytest
import torch
from checks import assert_close_to_largest, unchanged
from families import ALL, Family

import probekit as pk

SETTINGS = [
    (),
    pk.HeadScale(0, 0, 0.5),
    (pk.Clamp("variance", 2.0, "resid_pre"), pk.VDI()),
    (pk.VDI(order="pattern-first"), pk.AttentionEntropy()),
    (pk.Noise(0.1, "resid_mid"), pk.SetPattern(lambda p: 0.5 * p), pk.VDI()),
]


@pytest.mark.parametrize("family", [name for name in ALL if name != "clip"], indirect=True)
def test_each_setting_reads_what_it_reads_alone(family: Family) -> None:
    with unchanged(family):
        branches = pk.sweep(family.model, SETTINGS, *family.args, **family.kwargs)
    for setting, branch in zip(SETTINGS, branches, strict=True):
        items = setting if isinstance(setting, tuple) else (setting,)
        assert branch.items == items
        with torch.no_grad(), pk.attach(family.model, pk.Record("0.z"), *items) as run:
            expected = family.run()
        assert_close_to_largest(family.output(branch.output), expected)
        assert list(branch.measurements) == run.keys()[1:]
        for name in branch.measurements:
            torch.testing.assert_close(branch[name].values, run[name].values)
            torch.testing.assert_close(branch[name].null, run[name].null)


def test_tokens_are_shared_out(built) -> None:
    family = built("bert")
    module = pk.modulators.LerpModulator(d_model=32, n_layers=2, vocab=50, d_geometry=4)
    torch.nn.init.normal_(module.projection)
    settings = [pk.Lerp(module, alpha=alpha) for alpha in (0, 0.2, 0.9)]
    branches = pk.sweep(family.model, settings, *family.args, **family.kwargs)
    for setting, branch in zip(settings, branches, strict=True):
        with pk.attach(family.model, setting):
            assert_close_to_largest(family.output(branch.output), family.run())


def test_weights_are_refused(built) -> None:
    family = built("native")
    with pytest.raises(pk.ProbekitError, match="changes weights, which all settings"):
        pk.sweep(family.model, [(), pk.SwapQK("zero")], *family.args)


def test_what_is_not_resolved_by_example_is_refused(built) -> None:
    clip = built("clip")
    kwargs = {name: value[:2] for name, value in clip.kwargs.items()}
    with pytest.raises(pk.ProbekitError, match="compares each example with all others"):
        pk.sweep(clip.model, [(), ()], **kwargs)
    with pytest.raises(pk.ProbekitError, match=r"vision\.0\.z:0 has 2 entries along"):
        pk.sweep(clip.model, [pk.HeadScale(0, 0, 0.5, stack="vision"), (), ()], **clip.kwargs)
    with pytest.raises(pk.ProbekitError, match="at least one tensor input with a batch"):
        pk.sweep(clip.model, [()], input_ids=None)
