"""Several settings in one forward read what forwards of their own read."""

import pytest
import torch
from checks import assert_close_to_largest, unchanged
from families import ALL, Family, token_ids
from transformers import DynamicCache
from unchecked import unchecked

import probekit as pk
from probekit import branches as branches_module

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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "sweep was given no setting; () is the unedited model"),
        (pk.VDI(), "settings are a list, of items or of lists of them, not VDI("),
        (3, "settings are a list, of items or of lists of them, not 3"),
        ([["oops"]], "'oops' is neither an observer nor an intervention; see pk.list_probes()"),
        ([(), 3], "3 is neither an observer nor an intervention; see pk.list_probes()"),
        (["ab"], "'ab' is neither an observer nor an intervention; see pk.list_probes()"),
        ([pk.HeadScale], "HeadScale is a class; give an instance, HeadScale(...)"),
        ([pk.VDI(differentiable=True)], "VDI(differentiable=True) asks for gradients, and a sweep"),
    ],
)
def test_settings_that_are_none_are_refused(built, settings, message) -> None:
    with pytest.raises(pk.ProbekitError) as error:
        unchecked(pk.sweep, built("native").model, settings, token_ids())
    assert str(error.value).startswith(message)


POSITIONS = torch.arange(7)


@pytest.mark.parametrize(
    ("batch", "shared"),
    [
        (2, {"position_ids": POSITIONS[None]}),
        (7, {"position_ids": POSITIONS}),
        (3, {"attention_mask": torch.ones(1, 1, 7, 7, dtype=torch.bool).tril()}),
        (3, {"attention_mask": torch.ones(3, 7, dtype=torch.long)}),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_inputs_of_all_examples_are_shared(built, batch, shared, named) -> None:
    model, ids = built("gpt2").model, token_ids(batch, 7)
    settings = [(), pk.HeadScale(0, 0, 0)]
    if named:  # and after something longer
        branches = pk.sweep(model, settings, **shared, input_ids=ids)
    else:
        branches = pk.sweep(model, settings, ids, **shared)
    for setting, branch in zip(settings, branches, strict=True):
        items = setting if isinstance(setting, tuple) else (setting,)
        with torch.no_grad(), pk.attach(model, pk.Record("0.z"), *items):
            assert_close_to_largest(branch.output, model(ids, **shared))


def test_inputs_without_a_batch_or_of_another_kind_are_refused(built) -> None:
    model = built("gpt2").model
    with pytest.raises(pk.ProbekitError, match="at least one tensor input with a batch"):
        pk.sweep(model, [()], torch.arange(7))
    with pytest.raises(pk.ProbekitError, match="an input of type DynamicCache cannot be repeated"):
        pk.sweep(model, [()], token_ids(), past_key_values=DynamicCache())


def test_a_cache_is_split() -> None:
    cache, keys = DynamicCache(), torch.randn(6, 2, 5, 4)
    cache.update(keys, keys + 1, 0)
    parts = [branches_module._own({"cache": cache}, index, 3, 2)["cache"] for index in range(3)]
    for index, part in enumerate(parts):
        own = keys[2 * index : 2 * index + 2]
        assert torch.equal(part.layers[0].keys, own) and torch.equal(part.layers[0].values, own + 1)
    assert torch.equal(cache.layers[0].keys, keys)


def test_an_output_that_cannot_be_split_is_refused() -> None:
    own = branches_module._own
    assert own((None, 3, {"a": torch.arange(4)}), 1, 2, 2)[2]["a"].tolist() == [2, 3]
    with pytest.raises(pk.ProbekitError, match="an output of type object cannot be split into"):
        own((object(),), 0, 2, 2)
