"""Components that nobody listens to are stepped over, and nobody who listens misses anything."""

import copy
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import decoders
import families
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import generalized_components as lens

import probekit as pk
from probekit.hooked import model as hooked_model
from probekit.hooked import silent
from probekit.hooks import remove_hook

WRAPPED = [name for name in families.ALL if name != "native"]


@contextmanager
def listening(point: HookPoint, hear: Any, **kwargs: Any) -> Iterator[None]:
    handle = point.add_hook(hear, **kwargs)
    try:
        yield
    finally:
        remove_hook(point, handle)


def heard(family: families.Family, names: list[str]) -> dict[str, list[Tensor]]:
    """What hooks at these points are given in one forward, in order."""
    given: dict[str, list[Tensor]] = {}

    def keep(value: Any, hook: Any, name: str) -> None:
        if isinstance(value, Tensor):
            given.setdefault(name, []).append(value.clone())

    with ExitStack() as stack:
        for name in names:
            point = family.model.hook_dict[name]
            stack.enter_context(listening(point, partial(keep, name=name)))
        family.run()
    return given


@pytest.fixture
def plain(monkeypatch, request) -> families.Family:
    """The same family as TransformerLens builds it, where every component runs."""
    monkeypatch.setattr(hooked_model, "silence", lambda bridge: None)
    return families.ALL[request.node.callspec.params["family"]]()


def with_norms_of_hugging_face(family: families.Family) -> families.Family:
    """TransformerLens computes GPT-2's anew, which gives other bits; this is its own option."""
    for module in family.model.modules():
        if isinstance(module, lens.NormalizationBridge):
            module.use_native_layernorm_autograd = True
    return family


@pytest.fixture
def plain_bert(monkeypatch) -> families.Family:
    with monkeypatch.context() as patch:
        patch.setattr(hooked_model, "silence", lambda bridge: None)
        return families.bert()


@pytest.mark.parametrize("family", WRAPPED, indirect=True)
def test_a_hook_anywhere_is_given_what_it_would_be_given_anyway(family, plain):
    assert not any(isinstance(module, silent._Silent) for module in plain.model.modules())
    names = list(family.model.hook_dict)
    expected = heard(plain, names)
    assert len(expected) > 30
    for name in names:
        alone = heard(family, [name]).get(name, [])
        assert len(alone) == len(expected.get(name, [])), name
        for ours, theirs in zip(alone, expected.get(name, []), strict=True):
            # SDPA where the pattern is not heard, eager where all are.
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("family", WRAPPED, indirect=True)
def test_the_output_is_the_same_to_the_bit(family, plain, monkeypatch):
    stepped_over = family.run()
    assert torch.equal(stepped_over, with_norms_of_hugging_face(plain).run())
    for module in family.model.modules():
        if isinstance(module, silent._Silent):
            monkeypatch.setitem(module.__dict__, "_listeners", (True,))
    assert torch.equal(stepped_over, family.run())


@pytest.mark.parametrize("name", ["bert", "bert encoder", "clip", "vit", "gpt2"])
def test_only_who_is_listened_to_runs(name, built, monkeypatch):
    entered: list[nn.Module] = []
    for kind in (lens.LinearBridge, lens.MLPBridge, lens.AttentionBridge, lens.BlockBridge):

        def spy(self: Any, *args: Any, _real: Any = kind.forward, **kwargs: Any) -> Any:
            entered.append(self)
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", spy)
    family = built(name)
    blocks = next(blocks for key, blocks in family.model.named_children() if "blocks" in key)
    family.run()
    assert not [module for module in entered if isinstance(module, silent._Silent)]
    query = blocks[0].attn.q
    with listening(query.hook_out, lambda value, hook: None):
        family.run()
    assert [module for module in entered if isinstance(module, silent._Silent)] == [query]


def test_projections_that_are_not_called_are_heard_all_the_same(monkeypatch):
    """TransformerLens's MLP calls their hook points itself where Hugging Face's leaves them out."""
    family = families.clip()
    mlp = family.model.text_blocks[0].mlp

    def by_weights(self: Any, x: Tensor) -> Tensor:
        inner = nn.functional.linear(x, self.fc1.weight, self.fc1.bias)
        return nn.functional.linear(self.activation_fn(inner), self.fc2.weight, self.fc2.bias)

    monkeypatch.setattr(type(mlp.original_component), "forward", by_weights)
    for point in (getattr(mlp, "in").hook_in, mlp.out.hook_out):
        calls: list[Tensor] = []
        with listening(point, lambda value, hook, _calls=calls: _calls.append(value)):
            family.run()
        assert len(calls) == 1


@pytest.mark.parametrize("part", ["", ".attn", ".mlp", ".attn.q", ".ln2"])
def test_pytorchs_own_hooks_on_a_component_are_called(part, built):
    family = built("clip")
    component = family.model.get_submodule(f"text_blocks.1{part}")
    calls: list[str] = []
    handles = [
        component.register_forward_hook(lambda *_: calls.append("after")),
        component.register_forward_pre_hook(lambda *_: calls.append("before")),
    ]
    family.run()
    for handle in handles:
        handle.remove()
    assert calls == ["before", "after"]


@pytest.mark.parametrize("point", ["mlp.in.hook_in", "mlp.out.hook_out"])
def test_a_hook_is_called_where_transformerlens_own_was_taken_out(point):
    family = families.bert()
    family.model.reset_hooks(including_permanent=True)
    assert len(heard(family, [f"blocks.0.{point}"])[f"blocks.0.{point}"]) == 1


def test_a_flag_that_wires_hooks_wires_them(monkeypatch):
    counts = []
    for silence in (silent.silence, lambda bridge: None):
        monkeypatch.setattr(hooked_model, "silence", silence)
        family = families.bert()
        family.model.set_use_hook_mlp_in(True)
        counts.append(len(heard(family, ["blocks.0.hook_mlp_in"])["blocks.0.hook_mlp_in"]))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("build", [families.gpt2, partial(decoders.decoder, "llama")])
@pytest.mark.parametrize(
    ("flag", "point"), [("use_attn_in", "hook_attn_in"), ("use_split_qkv_input", "hook_q_input")]
)
def test_inputs_of_their_own_are_the_residual_before_the_norm(build, flag, point, monkeypatch):
    """A block keeps it for them, where TransformerLens computes the attention itself."""
    given = []
    for silence in (silent.silence, lambda bridge: None):
        monkeypatch.setattr(hooked_model, "silence", silence)
        family = with_norms_of_hugging_face(build())
        getattr(family.model, f"set_{flag}")(True)
        name = f"blocks.1.attn.{point}"
        given.append(heard(family, [name])[name][0])  # alone: nothing else lets the block run
        residual = heard(family, ["blocks.1.hook_in"])["blocks.1.hook_in"][0]
        assert torch.equal(given[-1][:, :, 0], residual)
    assert torch.equal(*given)


@pytest.mark.parametrize("copied", [False, True])
def test_hooks_on_all_modules_see_every_component(copied, built):
    family = copy.deepcopy(built("bert")) if copied else built("bert")
    seen: list[nn.Module] = []
    handle = register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        family.run()
    finally:
        handle.remove()
    assert sum(isinstance(module, lens.BlockBridge) for module in seen) == 2


@pytest.mark.parametrize("at", ["", ".hook_out"])
@pytest.mark.parametrize("copied", [False, True])
def test_another_dict_of_hooks_is_noticed(at, copied):
    """As scripts do that take out all hooks: ``module._forward_hooks = OrderedDict()``."""
    family = families.bert()
    if copied:
        family = copy.deepcopy(family)
    module = family.model.get_submodule(f"blocks.0.attn.q{at}")
    module._forward_hooks = OrderedDict()
    calls: list[str] = []
    module.register_forward_hook(lambda *_: calls.append("heard"))
    family.run()
    assert calls == ["heard"]


def test_another_hook_point_is_heard():
    family = families.bert()
    block = family.model.blocks[0]
    block.hook_in = HookPoint()
    calls: list[str] = []
    block.hook_in.add_hook(lambda value, hook: calls.append("heard"))
    family.run()
    assert calls == ["heard"]


def test_hooks_on_all_modules_see_every_hook_point(plain_bert):
    counts = []
    for family in (families.bert(), plain_bert):
        seen: list[nn.Module] = []
        handle = register_module_forward_hook(lambda module, *_, _seen=seen: _seen.append(module))
        try:
            family.run()
        finally:
            handle.remove()
        counts.append(sum(isinstance(module, HookPoint) for module in seen))
    assert counts[0] == counts[1] > 30


COMPILED = """
import torch, transformers, probekit as pk
sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
model = pk.wrap(transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=50, **sizes)))
compiled, ids = torch.compile(model, backend="eager"), torch.arange(7)[None]
with torch.no_grad():
    before = compiled(ids)
    model.blocks[1].hook_out.add_hook(lambda value, hook: 2 * value)
    print("heard" if not torch.equal(before, compiled(ids)) else "not heard")
"""


def test_what_is_compiled_hears_a_hook_that_is_added_later():
    """In a process of its own: jaxtyping's checks cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.stdout == "heard\n", done.stderr


@pytest.mark.parametrize("name", ["bert", "bert encoder", "clip", "vit", "gpt2"])
def test_a_block_whose_answer_alone_is_heard_does_not_run(name, built, monkeypatch):
    entered: list[nn.Module] = []
    monkeypatch.setattr(lens.BlockBridge, "forward", lambda self, *_, **__: entered.append(self))
    family = built(name)
    blocks = next(blocks for key, blocks in family.model.named_children() if "blocks" in key)
    plain = family.run()
    with listening(blocks[0].hook_out, lambda value, hook: 2 * value):
        doubled = family.run()
    assert entered == [] and not torch.equal(plain, doubled)


@pytest.mark.parametrize("part", ["hook_attn_scores", "hook_pattern"])
def test_pytorchs_own_hook_before_scores_and_pattern_acts(part, built):
    family = built("bert")
    point = getattr(family.model.blocks[0].attn, part)
    plain = family.run()
    handle = point.register_forward_pre_hook(lambda module, args: (0 * args[0],))
    try:
        assert not torch.equal(family.run(), plain)
    finally:
        handle.remove()


def test_a_norm_can_be_pickled(built):
    norm = built("bert").model.blocks[0].ln1
    x = torch.randn(2, 3, 32)
    assert torch.equal(pickle.loads(pickle.dumps(norm))(x), norm(x))


def test_a_fresh_component_of_that_class_runs(built):
    fresh = type(built("bert").model.blocks[0].attn.q)(name="fresh")
    fresh.set_original_component(nn.Linear(2, 2))
    assert fresh(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.Embedding])
def test_a_component_of_another_class_answers_in_the_precision_it_is_asked_in(kind):
    class Upcasting(kind):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).float()

    model = families.bert().model
    component = model.blocks[0].ln1 if kind is nn.LayerNorm else model.embed
    inside = Upcasting(32) if kind is nn.LayerNorm else Upcasting(5, 32)
    component.set_original_component(inside.bfloat16())
    x = torch.zeros(1, 2, 32).bfloat16() if kind is nn.LayerNorm else torch.zeros(1, 2).long()
    assert component(x).dtype == torch.bfloat16


def test_a_backward_hook_is_called():
    family = families.bert()
    point = family.model.blocks[0].hook_out
    seen: list[Tensor] = []
    with listening(point, lambda grad, hook: seen.append(grad.clone()), dir="bwd"):
        family.model(*family.args, **family.kwargs).sum().backward()
    assert [grad.shape for grad in seen] == [(3, 7, 32)]


def test_a_forward_can_stop_at_a_layer(built, monkeypatch):
    family = built("bert encoder")
    # TransformerLens finds the layer in names of this form only.
    monkeypatch.setattr(family.model.blocks[1], "name", "layers.1")
    with pk.attach(family.model, pk.Record("0.resid_post")) as run, torch.no_grad():
        stopped = family.model(*family.args, **family.kwargs, stop_at_layer=1)
    assert torch.equal(stopped, run["record"].values)


@pytest.mark.parametrize("flag", [False, True])
def test_nothing_of_a_forward_stays_behind(flag):
    """TransformerLens keeps the residual before a norm, to be cleared by the attention after it."""
    family = families.bert()
    family.model.set_use_hook_mlp_in(flag)
    with pk.attach(family.model, pk.Record("0.resid_post")):  # its block runs
        family.run()
    family.model(*family.args, **family.kwargs)
    kept = [
        name
        for name, module in family.model.named_modules()
        if isinstance(module.__dict__.get("_captured_pre_ln_residual"), Tensor)
    ]
    assert kept == []


def test_a_block_by_hand_answers_as_transformerlens_does(built):
    family = built("bert encoder")
    with pk.attach(
        family.model, pk.Record("0.resid_pre"), pk.Record("0.resid_post", name="after")
    ) as run:
        family.model(family.args[0])
    answer = family.model.blocks[0](run["record"].values)
    assert isinstance(answer, tuple)
    torch.testing.assert_close(answer[0].detach(), run["after"].values)


def test_a_copy_listens_to_its_own_hooks(built):
    family = built("bert")
    twin = copy.deepcopy(family)
    calls: list[str] = []
    twin.model.blocks[0].attn.q.hook_out.add_hook(lambda value, hook: calls.append("copy"))
    family.run()
    assert calls == []
    twin.run()
    assert calls == ["copy"]


def test_norms_run_under_autocast(built, monkeypatch):
    """On a GPU a bare norm would then answer in float32, and TransformerLens's as it is asked."""
    entered: list[nn.Module] = []
    real = lens.NormalizationBridge.forward

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        entered.append(self)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(lens.NormalizationBridge, "forward", spy)
    built("vit").run()
    assert entered == []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        built("vit").run()
    assert len(entered) == 5
