"""Decoders that no card is of: their numbers stay, and what cannot be edited is refused."""

import copy
from functools import partial
from typing import Any

import decoders
import families
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge.generalized_components import NormalizationBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

import probekit as pk
from probekit.entropy import uniform_causal_vdi

WITHIN = {"gptj", "gpt neo", "xglm"}  # their attention runs inside Hugging Face


@pytest.fixture(scope="module", params=decoders.DECODERS)
def family(request) -> families.Family:
    return decoders.decoder(request.param)


def test_the_logits_are_hugging_faces(family):
    torch.testing.assert_close(family.run(), family.reference())


def test_no_position_sees_a_later_one(family):
    ids = family.args[0].clone()
    ids[:, -1] = (ids[:, -1] + 1) % families.VOCAB
    before, after = family.run(), family.model(ids)
    assert torch.equal(before[:, :-1], after[:, :-1]) and not torch.equal(before, after)


def test_vdi_reads_a_causal_pattern_and_changes_nothing(family):
    plain = family.run()
    with pk.attach(family.model, pk.VDI()) as run:
        assert torch.equal(family.run(), plain)
    length = family.args[0].shape[1]
    assert run["vdi"].null.flatten().tolist() == pytest.approx([uniform_causal_vdi(length)] * 8)
    hf = copy.deepcopy(family.eager)
    bridge = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config).eval()
    expected = bridge(*family.args)
    with pk.attach(bridge, pk.VDI()) as theirs:
        assert torch.equal(bridge(*family.args), expected)
    torch.testing.assert_close(theirs["vdi"].values, run["vdi"].values)


def test_an_edit_of_scores_and_pattern_is_causal_or_refused(family):
    for part in ("scores", "pattern", "z", "q"):
        noise = pk.Noise(sigma=1.0, site=f"0.{part}", seed=0)
        if part in ("scores", "pattern") and family.name in WITHIN:
            with pytest.raises(pk.DecorativeHookError, match=r"^Noise\(.*runs inside Hugging Face"):
                pk.verify(family.model, noise, *family.args)
        else:
            assert pk.verify(family.model, noise, *family.args).output_change > 1e-4, part


def test_the_recorded_pattern_is_that_of_hugging_face(family):
    with pk.attach(family.model, pk.Record("0.pattern")) as run:
        family.run()
    plain = copy.deepcopy(family.eager)
    plain.set_attn_implementation("eager")
    expected: Tensor = plain(*family.args, output_attentions=True).attentions[0]
    torch.testing.assert_close(run["record"].values, expected.detach())


@pytest.mark.parametrize("family", [families.gpt2, partial(decoders.decoder, "gptj")])
def test_norms_are_hugging_faces_to_the_bit(family):
    model = family().model
    norm, given = model.blocks[1].ln1, {}
    for name in ("hook_in", "hook_out"):
        getattr(norm, name).add_hook(lambda x, hook: given.update({hook.name: x.clone()}))
    model(families.token_ids())
    x, answer = given.values()
    with torch.no_grad():
        own, anew = norm.original_component(x), NormalizationBridge._python_norm_forward(norm, x)
    assert torch.equal(answer, own) and not torch.equal(answer, anew)


@pytest.mark.parametrize("point", ["hook_scale", "hook_normalized"])
def test_an_edit_inside_a_norm_is_causal(point):
    """Also one in place, which TransformerLens loses where it hands the norm on."""
    family = families.gpt2()
    plain = family.run()

    def in_place(x: Tensor, hook: Any) -> None:
        x.mul_(2)

    for edit in (lambda x, hook: 2 * x, in_place):
        handle = getattr(family.model.blocks[0].ln1, point).add_hook(edit)
        assert (family.run() - plain).abs().max() > 1e-3
        handle.hook.remove()


def test_a_hook_on_a_norm_that_is_computed_anew_counts_at_no_time():
    """As with TransformerLens, which never calls it: not only while somebody listens inside."""
    family = families.gpt2()
    norm, plain = family.model.blocks[0].ln1, family.run()
    norm.original_component.register_forward_hook(lambda module, args, answer: 2 * answer)
    alone = family.run()
    norm.hook_scale.add_hook(lambda x, hook: None)
    assert (alone - plain).abs().max() < 1e-5 and torch.equal(family.run(), alone)
