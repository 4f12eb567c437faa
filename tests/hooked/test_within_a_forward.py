"""Who begins to listen in the middle of a forward hears the rest of it."""

import copy
from collections import OrderedDict
from typing import Any

import families
import pytest
import torch
from torch import nn

import probekit as pk


@pytest.fixture(params=[name for name in families.ALL if name != "native"])
def family(request) -> families.Family:
    return families.ALL[request.param]()


def blocks(family: families.Family) -> Any:
    return next(child for name, child in family.model.named_children() if "blocks" in name)


def later(family: families.Family) -> Any:
    """A projection of the last block of the first stack."""
    block = blocks(family)[-1]
    return (block.attn if hasattr(block, "attn") else block.self_attn).q


def during(family: families.Family, act: Any) -> torch.Tensor:
    """Run a forward, and ``act`` once, in its first block."""
    states = iter([True])
    handle = blocks(family)[0].register_forward_pre_hook(
        lambda *_: act() if next(states, False) else None
    )
    try:
        return family.run()
    finally:
        handle.remove()


@pytest.mark.parametrize(
    "how", ["add_hook", "register_forward_pre_hook", "another dict", "in the dict", "unbound"]
)
def test_who_begins_to_listen_hears_the_rest(family, how):
    calls: list[str] = []
    query = later(family)

    def hear(*_: Any) -> None:
        calls.append("heard")

    def begin() -> None:
        if how == "add_hook":
            query.hook_out.add_hook(lambda value, hook: hear())
        elif how == "register_forward_pre_hook":
            query.register_forward_pre_hook(hear)
        elif how == "another dict":
            query.hook_out._forward_hooks = OrderedDict({1: hear})
        elif how == "in the dict":
            query.hook_out._forward_hooks[1] = hear
        else:
            nn.Module.register_forward_hook(query.hook_out, hear)

    family.run()
    during(family, begin)
    assert calls == ["heard"]
    family.run()
    assert calls == ["heard", "heard"]


def test_attaching_reads_the_rest():
    family = families.bert()
    attached: list[pk.Attachment] = []
    during(family, lambda: attached.append(pk.attach(family.model, pk.Record("1.q"))))
    late = attached[0]["record"].values
    attached[0].detach()
    with pk.attach(family.model, pk.Record("1.q")) as run:
        family.run()
    assert torch.equal(late, run["record"].values)


def test_a_forward_inside_a_forward(family):
    plain = family.run()
    inner: list[torch.Tensor] = []
    outer = during(family, lambda: inner.append(family.run()))
    assert torch.equal(inner[0], plain) and torch.equal(outer, plain)


@pytest.mark.parametrize("part", ["model", "block"])
def test_a_copy_made_in_a_forward_hears_its_own_hooks(part):
    family = families.bert()
    original = family.model if part == "model" else blocks(family)[1]
    copies: list[Any] = []
    during(family, lambda: copies.append(copy.deepcopy(original)))
    calls: list[str] = []
    block = copies[0].blocks[1] if part == "model" else copies[0]
    block.attn.q.hook_out.add_hook(lambda value, hook: calls.append("copy"))
    if part == "model":
        copies[0](*family.args, **family.kwargs)
    else:
        block(torch.zeros(1, 3, 32), None)
    assert calls == ["copy"]
    family.run()
    assert calls == ["copy"]


def test_another_module_in_a_components_place_computes_at_once():
    family = families.bert()
    query = later(family)
    another = copy.deepcopy(query.original_component)
    with torch.no_grad():
        another.weight.mul_(2)
    plain = family.run()
    assert not torch.equal(during(family, lambda: query.set_original_component(another)), plain)
    calls: list[str] = []
    query.hook_out.add_hook(lambda value, hook: calls.append("heard"))
    family.run()
    assert calls == ["heard"]


def test_names_within_a_forward_are_those_outside():
    family = families.bert()
    inner = family.model.original_model
    names: list[list[str]] = []
    family.run()
    during(family, lambda: names.append([name for name, _ in inner.named_parameters()]))
    assert names[0] == [name for name, _ in inner.named_parameters()]


def test_who_begins_to_listen_inside_a_block_hears_its_answer(family):
    block = blocks(family)[0]
    query = (block.attn if hasattr(block, "attn") else block.self_attn).q
    calls: list[str] = []
    begin = query.hook_out.add_hook(
        lambda value, hook: (
            block.hook_out.add_hook(lambda value, hook: calls.append("heard")) and None
        )
    )
    family.run()
    begin.hook.remove()
    assert calls == ["heard"]
