import families
import pytest
import torch
from checks import captured

import probekit as pk


@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_every_site_is_recorded_as_its_hook_sees_it(family):
    for row in pk.list_sites(family.model).itertuples():
        if row.part in ("pattern", "scores"):
            continue  # a raw hook there needs the seam to be asked for; see tests/seam
        with pk.attach(family.model, pk.Record(row.site)) as run:
            family.run()
        expected = captured(family.model, row.hook, family.run)
        torch.testing.assert_close(run["record"].values, expected, rtol=1e-5, atol=1e-5)


def test_the_axes_have_names(built):
    family = built("native")
    records = [pk.Record(site, name=site) for site in ("0.z", "0.z:1", "0.pattern", "logits")]
    with pk.attach(family.model, *records) as run:
        family.run()
    assert run["0.z"].dims == ("batch", "pos", "head", "d_head")
    assert run["0.z:1"].dims == ("batch", "pos", "d_head")
    assert run["0.pattern"].dims == ("batch", "head", "query", "key")
    assert run["logits"].dims == ("batch", "pos", "d_vocab")
    torch.testing.assert_close(run["0.z:1"].values, run["0.z"].values[:, :, 1])
    assert run["0.z"].null is None and run["0.z"].units == "activation"
    assert run["0.z"].null_reason == (
        "raw activations; record probekit.random_twin(model, seed) beside them"
    )


def test_the_class_token_alone_has_axes_without_names(built):
    family = built("clip")
    with pk.attach(family.model, pk.Record("vision.ln_final")) as run:
        family.run()
    assert run["record"].dims == ("axis0", "axis1")
    assert run["record"].values.shape == (2, 24)


def test_layers_and_stacks_become_dimensions(built):
    family = built("t5")
    with pk.attach(family.model, pk.Record("encoder.z"), pk.Record("self.z", name="own")) as run:
        family.run()
    result = run["record"]
    assert result.dims == ("layer", "batch", "pos", "head", "d_head")
    for layer in range(2):
        expected = captured(family.model, f"encoder_blocks.{layer}.attn.hook_z", family.run)
        torch.testing.assert_close(result.values[layer], expected)
    assert run["own"].dims == ("layer", "batch", "pos", "head", "d_head")
    with pk.attach(family.model, pk.Record("decoder.z")) as run:
        family.run()
    result = run["record"]
    assert result.dims[0] == "stack"
    assert list(result.coords["stack"]) == ["decoder", "decoder.cross"]
    expected = captured(family.model, "decoder_blocks.1.cross_attn.hook_z", family.run)
    torch.testing.assert_close(result.values[1, 1], expected)


def test_sites_of_different_shapes_are_refused(built):
    family = built("t5")
    with pk.attach(family.model, pk.Record("0.resid_pre")) as run:
        family.run()
    with pytest.raises(pk.ProbekitError) as error:
        run["record"]
    assert str(error.value) == (
        "Record(site='0.resid_pre'): its sites hold tensors of different shapes, "
        "[(3, 5, 32), (3, 7, 32)]; record one stack or one layer at a time"
    )


def test_forwards_of_different_lengths_are_refused(built):
    family = built("native")
    with pk.attach(family.model, pk.Record("0.resid_pre")) as run:
        family.run()
        family.model(family.args[0][:, :4])
    with pytest.raises(pk.ProbekitError) as error:
        run["record"]
    assert str(error.value) == (
        "recordings at 0.resid_pre have different shapes, [(3, 4, 64), (3, 7, 64)], and cannot be "
        "concatenated along the batch; pad the inputs to one length or attach a Record for each"
    )


def test_what_was_recorded_is_not_rewritten(built):
    family = built("native")
    clean = captured(family.model, "blocks.0.hook_resid_post", family.run)
    rewrite = pk.Edit("0.resid_post", lambda x: x.zero_())
    with pk.attach(family.model, pk.Record("0.resid_post"), rewrite) as run:
        family.run()
    torch.testing.assert_close(run["record"].values, clean)
