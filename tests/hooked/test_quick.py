"""Components that nobody listens to are quick; what somebody hears or edits stays what it was."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from transformer_lens.model_bridge.generalized_components import LinearBridge, NormalizationBridge

HOOKS = ("hook_in", "hook_out")


@pytest.fixture
def component(family: Any, request: pytest.FixtureRequest) -> Any:
    """The first component of a kind in BERT."""
    modules = copy.deepcopy(family.model).modules()
    return next(module for module in modules if isinstance(module, request.param))


KINDS = pytest.mark.parametrize("component", [LinearBridge, NormalizationBridge], indirect=True)
BERT = pytest.mark.parametrize("family", ["bert"], indirect=True)


def given(component: Any) -> torch.Tensor:
    return torch.randn(2, 3, component.original_component.weight.shape[-1])


@BERT
@KINDS
def test_a_quick_component_answers_what_it_wraps(component: Any) -> None:
    x = given(component)
    assert torch.equal(component(x), component.original_component(x))


@BERT
@KINDS
@pytest.mark.parametrize("name", HOOKS)
def test_hooks_of_every_kind_fire(component: Any, name: str) -> None:
    point: Any = getattr(component, name)
    heard: list[str] = []
    handles = [
        point.register_forward_hook(lambda *_: heard.append("forward")),
        point.register_forward_pre_hook(lambda *_: heard.append("before")),
        point.register_full_backward_hook(lambda *_: heard.append("backward")),
    ]
    x = given(component).requires_grad_()
    component(x).sum().backward()
    assert heard == ["before", "forward", "backward"]
    for handle in handles:
        handle.remove()
    component(x)
    assert len(heard) == 3


@BERT
@KINDS
def test_an_edit_of_the_input_reaches_the_output(component: Any) -> None:
    x = given(component)
    component.hook_in.add_hook(lambda tensor, hook: tensor.flip(1))
    assert torch.equal(component(x), component.original_component(x.flip(1)))


@BERT
@KINDS
def test_global_hooks_hear_hook_points(component: Any) -> None:
    heard: list[nn.Module] = []
    handle = register_module_forward_hook(lambda module, *_: heard.append(module))
    try:
        component(given(component))
    finally:
        handle.remove()
    assert component.hook_in in heard and component.hook_out in heard and component in heard


@BERT
@KINDS
def test_offloaded_weights_are_fetched(component: Any, monkeypatch: Any) -> None:
    """Accelerate's hook is asked where there is one, as TransformerLens does."""
    from accelerate.hooks import AlignDevicesHook

    asked: list[nn.Module] = []
    hook = AlignDevicesHook(offload=True)
    monkeypatch.setattr(hook, "pre_forward", lambda module, *_, **__: asked.append(module))
    monkeypatch.setattr(hook, "post_forward", lambda module, output: output)
    component.original_component._hf_hook = hook
    component(given(component))
    assert asked == [component.original_component]


@BERT
def test_names_and_kinds_stay(family: Any) -> None:
    names = {type(module).__name__ for module in family.model.modules()}
    assert {"LinearBridge", "NormalizationBridge", "BlockBridge"} <= names
