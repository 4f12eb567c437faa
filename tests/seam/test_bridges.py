"""Whose attention is the seam: bridges that TransformerLens built, shared configs, copies."""

import copy

import families
import pytest
import torch
from families import bridged, tiny_bert, tiny_t5
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import BertForMaskedLM, T5ForConditionalGeneration

import probekit as pk
from probekit import seam


def bert_bridge() -> tuple[TransformerBridge, nn.Module, dict[str, Tensor]]:
    return *bridged(BertForMaskedLM(tiny_bert())), {"input": torch.arange(5)[None]}


def t5_bridge() -> tuple[TransformerBridge, nn.Module, dict[str, Tensor]]:
    inputs = {"input": torch.arange(5)[None], "decoder_input": torch.arange(4)[None]}
    return *bridged(T5ForConditionalGeneration(tiny_t5())), inputs


def implementations(model: nn.Module) -> list[str | None]:
    configs = {id(config): config for _, config in seam.configs(model)}
    return [config._attn_implementation for config in configs.values()]


def tapped_modules(model: nn.Module) -> int:
    return sum(seam._TAPS in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("build", [bert_bridge, t5_bridge])
def test_a_bridge_of_transformer_lens_has_the_seam_only_while_attached(build):
    bridge, eager, inputs = build()
    hf = {"input_ids": inputs["input"]}
    if "decoder_input" in inputs:
        hf["decoder_input_ids"] = inputs["decoder_input"]
    with torch.no_grad():
        expected, before = eager(**hf).logits, bridge(**inputs)
    found = implementations(bridge)
    # T5's encoder and decoder hold a config each, beside the model's own.
    assert found == ["eager"] * (3 if "decoder_input" in inputs else 1)

    with pk.attach(bridge, pk.SetPattern(lambda pattern: 0.5 * pattern)) as outer:
        assert set(implementations(bridge)) == {seam.NAME}
        with torch.no_grad(), pk.attach(bridge, pk.VDI()):
            edited = bridge(**inputs)
        assert set(implementations(bridge)) == {seam.NAME}  # the outer attachment needs it still
        with torch.no_grad():
            assert torch.equal(bridge(**inputs), edited)
    assert set(outer.fired.values()) == {2}
    assert (edited - expected).abs().max() > 1e-4

    assert implementations(bridge) == found
    assert tapped_modules(bridge) == 0
    with torch.no_grad():
        assert torch.equal(bridge(**inputs), before)
    torch.testing.assert_close(before, expected)


def test_attachments_on_one_bridge_may_end_in_any_order():
    bridge, _, inputs = bert_bridge()
    first, second = pk.attach(bridge, pk.VDI()), pk.attach(bridge, pk.VDI())
    bridge(**inputs)
    first.detach()
    bridge(**inputs)
    second.detach()
    assert (set(first.fired.values()), set(second.fired.values())) == ({1}, {2})
    assert implementations(bridge) == ["eager"]
    assert tapped_modules(bridge) == 0


def test_items_that_need_no_seam_leave_the_attention_alone():
    bridge, _, inputs = bert_bridge()
    with pk.attach(bridge, pk.HeadScale(layer=0, head=0, omega=0.5)):
        bridge(**inputs)
        assert implementations(bridge) == ["eager"]
        assert tapped_modules(bridge) == 0


@pytest.mark.parametrize("family", ["native", "bert", "t5", "clip"], indirect=True)
def test_a_deep_copy_has_a_seam_of_its_own(family):
    clean, twin = family.run(), copy.deepcopy(family.model)
    hook_name = pk.list_sites(twin).query("part == 'pattern'")["hook"].iloc[0]
    with pk.attach(twin, pk.SetPattern(lambda pattern: 0 * pattern)):
        assert torch.equal(family.run(), clean)
        changed = family.output(twin(*family.args, **family.kwargs))
    assert (changed - clean).abs().max() > 1e-4
    fired: list[int] = []  # a raw hook, after an attachment has come and gone
    handle = twin.hook_dict[hook_name].add_hook(lambda pattern, hook: fired.append(1))
    twin(*family.args, **family.kwargs)
    family.run()
    assert fired == [1]
    handle.hook.remove()


def test_a_shared_config_is_never_the_switch_of_another_model():
    config = families.bert().eager.config
    first, second = BertForMaskedLM(config).eval(), BertForMaskedLM(config).eval()
    model = pk.load("minilm", hf_model=first)
    second.set_attn_implementation("eager")  # Hugging Face writes into the shared config
    receipt = pk.verify(model, pk.SetPattern(lambda pattern: pattern * 0.5), torch.arange(5)[None])
    assert receipt.output_change > 0
    assert second.config._attn_implementation == "eager"


def test_attaching_sets_the_seam_again_after_the_user_chose_another_attention():
    family = families.bert()
    family.model.original_model.set_attn_implementation("sdpa")
    items = pk.SetPattern(lambda pattern: pattern * 0.5)
    assert pk.verify(family.model, items, *family.args, **family.kwargs).output_change > 0


def test_two_bridges_that_share_a_config_keep_to_themselves():
    config = families.bert().eager.config
    config._attn_implementation = "eager"
    models = [BertForMaskedLM(config).eval() for _ in range(2)]
    first, second = (
        build_bridge_from_module(model, "BertForMaskedLM", hf_config=config).eval()
        for model in models
    )
    ids = torch.arange(5)[None]
    outer = pk.attach(first, pk.VDI())
    inner = pk.attach(second, pk.SetPattern(lambda pattern: pattern * 0.5))
    first(ids)
    outer.detach()
    edited = second(ids)
    inner.detach()
    assert not torch.equal(edited, second(ids))
    assert [model.config is config for model in models] == [True, True]
    assert config._attn_implementation == "eager"
