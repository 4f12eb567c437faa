"""Components that nobody hears are out of the way for one forward, and back whatever happens."""

import copy
from collections import OrderedDict
from typing import Any

import families
import pytest
import torch
from torch import nn
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

import probekit as pk


def children_of(model: Any) -> list[tuple[str, str, int]]:
    """Every child in Hugging Face's model: the name, the class, and which object it is."""
    found = []
    for name, module in model.original_model.named_modules(remove_duplicate=False):
        found.append((name, type(module).__name__, id(module)))
    return found


def components_called(model: Any) -> int:
    """How many of Hugging Face's modules have a component among their children."""
    count = 0
    for module in model.original_model.modules():
        if not isinstance(module, GeneralizedComponent | nn.ModuleList):
            count += sum(isinstance(each, GeneralizedComponent) for each in module.children())
    return count


@pytest.fixture(params=[name for name in families.ALL if name != "native"])
def family(request) -> families.Family:
    return families.ALL[request.param]()


def first_block(family: families.Family) -> Any:
    return next(child for name, child in family.model.named_children() if "blocks" in name)[0]


def later(family: families.Family) -> Any:
    """A projection of the last block."""
    blocks = [child for name, child in family.model.named_children() if "blocks" in name]
    block = blocks[0][-1]
    return (block.attn if hasattr(block, "attn") else block.self_attn).q


def during(family: families.Family, act: Any) -> None:
    """Run a forward, and ``act`` in its first block."""
    handle = first_block(family).register_forward_pre_hook(lambda *_: act())
    try:
        family.run()
    finally:
        handle.remove()


def test_they_are_out_for_the_forward_and_back_after_it(family):
    before = children_of(family.model)
    counts: list[int] = []
    family.run()
    assert children_of(family.model) == before
    during(family, lambda: counts.append(components_called(family.model)))
    assert counts[0] <= components_called(family.model) / 2
    assert children_of(family.model) == before


def test_they_are_back_after_an_error(family):
    before = children_of(family.model)

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        during(family, fail)
    assert children_of(family.model) == before


@pytest.mark.parametrize("how", ["add_hook", "register_forward_pre_hook", "forward", "dict"])
def test_who_begins_to_listen_in_a_forward_hears_the_rest_of_it(family, how):
    calls: list[str] = []
    query = later(family)

    def hear(*_: Any) -> None:
        calls.append("heard")

    def begin() -> None:
        if how == "add_hook":
            query.hook_out.add_hook(lambda value, hook: hear())
        elif how == "register_forward_pre_hook":
            query.register_forward_pre_hook(hear)
        elif how == "forward":
            query.hook_out.forward = lambda value: (hear(), value)[1]
        else:
            query.hook_out._forward_hooks = OrderedDict({1: hear})

    during(family, begin)
    assert calls == ["heard"]
    family.run()
    assert calls == ["heard", "heard"]


def test_a_forward_inside_a_forward(family):
    plain = family.run()
    inner: list[torch.Tensor] = []
    states = iter([True])
    during(family, lambda: inner.append(family.run()) if next(states, False) else None)
    assert torch.equal(inner[0], plain)
    assert torch.equal(family.run(), plain)


def test_a_module_of_the_users_own_stays():
    family = families.bert()
    before = later(family)
    parent = next(
        module
        for module in family.model.original_model.modules()
        if before in module._modules.values() and not isinstance(module, GeneralizedComponent)
    )
    name = next(name for name, child in parent._modules.items() if child is before)
    family.run()
    own = nn.Sequential(nn.Identity(), before.original_component)
    parent._modules[name] = own
    family.run()
    assert parent._modules[name] is own
    another = nn.Sequential(before.original_component)
    during(family, lambda: parent._modules.update({name: another}))
    assert parent._modules[name] is another


def test_a_copy_made_in_a_forward_hears_its_own_hooks():
    family = families.bert()
    copies: list[Any] = []
    states = iter([True])
    during(
        family, lambda: copies.append(copy.deepcopy(family.model)) if next(states, False) else None
    )
    calls: list[str] = []
    copies[0].blocks[1].attn.q.hook_out.add_hook(lambda value, hook: calls.append("copy"))
    copies[0](*family.args, **family.kwargs)
    assert calls == ["copy"]
    family.run()
    assert calls == ["copy"]


def test_edits_attached_one_after_the_other_each_act(family):
    plain = family.run()
    query = later(family)
    for point in (query.hook_in, query.hook_out):
        handle = point.add_hook(lambda value, hook: value + 1, dir="fwd")
        assert not torch.equal(family.run(), plain)
        point.remove_hooks()
        assert torch.equal(family.run(), plain), handle


def test_nothing_is_out_under_autocast_or_where_all_modules_are_heard():
    family = families.ALL["vit"]()
    counts: list[int] = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        during(family, lambda: counts.append(components_called(family.model)))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        during(family, lambda: counts.append(components_called(family.model)))
    finally:
        handle.remove()
    assert counts == [components_called(family.model)] * 2


@pytest.mark.filterwarnings("ignore")  # that tracing is deprecated, and what it cannot trace
def test_a_trace_is_of_the_model_as_it_is():
    family = families.bert()
    family.model.requires_grad_(False)
    family.run()
    counts: list[int] = []
    handle = first_block(family).register_forward_pre_hook(
        lambda *_: counts.append(components_called(family.model))
    )
    ids = torch.arange(7)[None]
    try:
        torch.jit.trace(lambda ids: family.model(ids), (ids,), check_trace=False)
    finally:
        handle.remove()
    assert counts[0] == components_called(family.model)


def test_attaching_within_a_forward():
    """A probe that another probe's hook attaches, of what is still to come."""
    family = families.bert()
    attached: list[pk.Attachment] = []
    during(family, lambda: attached.append(pk.attach(family.model, pk.Record("1.q"))))
    late = attached[0]["record"].values
    attached[0].detach()
    with pk.attach(family.model, pk.Record("1.q")) as run:
        family.run()
    assert torch.equal(late, run["record"].values)
