"""Gradient checkpointing runs parts of the model again in backward: that changes nothing."""

from collections.abc import Callable
from threading import Thread
from typing import Any

import families
import pytest
import torch
from families import VOCAB, Family, Looped, token_ids
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import probekit as pk
from probekit.modulators import LerpModulator

Run = Callable[..., Any]


def plain(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return model(*args, **kwargs)


def whole(reentrant: bool) -> Run:
    """Checkpoint the whole model; the reentrant form wants an input with a gradient."""

    def run(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        trigger = torch.zeros((), requires_grad=True)
        call = lambda _: model(*args, **kwargs)  # noqa: E731
        return checkpoint(call, trigger, use_reentrant=reentrant)

    return run


def trainable(name: str) -> Family:
    """A family in training mode, where Hugging Face checkpoints, without its dropout."""
    family = families.ALL[name]()
    for module in family.model.original_model.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return family


def gradients(
    family: Family, items: list[Any], run: Run = plain, batches: int = 1
) -> tuple[dict[str, Tensor], pk.Attachment]:
    """The gradient of one backward after ``batches`` forwards of different tokens."""
    ids, *rest = family.args
    family.model.zero_grad()
    with pk.attach(family.model, *items) as attached:
        outputs = [
            family.output(run(family.model, ids.roll(k, -1), *rest, **family.kwargs))
            for k in range(batches)
        ]
        sum(output.square().mean() for output in outputs).backward()  # type: ignore[union-attr]
    found = {n: p.grad for n, p in family.model.named_parameters() if p.grad is not None}
    return found, attached


def lerp(d_model: int) -> pk.Lerp:
    module = LerpModulator(d_model=d_model, n_layers=2, vocab=VOCAB, d_geometry=4, alpha=0.3)
    nn.init.normal_(module.projection)
    return pk.Lerp(module)


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_block_that_is_run_again_draws_the_same_noise(name, batches, reentrant):
    family = trainable(name)
    hf = family.model.original_model
    items = [pk.Noise(1.0, "attn_out"), pk.Noise(1.0, "0.z"), pk.Record("0.z")]
    before, expected = gradients(family, items, batches=batches)
    hf.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    calls: list[Any] = []
    handle = family.model.blocks[0].attn.register_forward_pre_hook(lambda *_: calls.append(0))
    after, attached = gradients(family, items, batches=batches)
    handle.remove()
    assert len(calls) == 2 * batches  # it was checkpointed
    assert_same(after, before)
    assert attached.fired == expected.fired
    assert torch.equal(attached["record"].values, expected["record"].values)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("batches", [1, 3])
def test_a_whole_model_that_is_run_again(batches, reentrant):
    family = trainable("native")
    pulled = lerp(family.model.cfg.d_model)
    items = [pk.Noise(1.0, "resid_pre"), pulled, pk.Record("0.z")]
    before, expected = gradients(family, items, batches=batches)
    after, attached = gradients(family, items, whole(reentrant), batches)
    assert_same(after, before)
    assert attached.fired == expected.fired
    assert torch.equal(attached["record"].values, expected["record"].values)


def test_a_backward_that_comes_late_or_twice():
    family = trainable("gpt2")
    hf, items = family.model.original_model, [pk.Noise(1.0, "0.z")]
    before, _ = gradients(family, items)
    kept = {name: gradient.clone() for name, gradient in before.items()}
    hf.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    family.model.zero_grad()
    with pk.attach(family.model, *items):
        loss = family.model(*family.args).square().mean()
        family.run()
        family.model(token_ids(1, 4)).mean().backward()
        family.model.zero_grad()
        loss.backward(retain_graph=True)
        assert_same({n: p.grad for n, p in family.model.named_parameters() if n in kept}, kept)
        family.model.zero_grad()
        loss.backward()
    assert_same({n: p.grad for n, p in family.model.named_parameters() if n in kept}, kept)


@pytest.mark.parametrize("reentrant", [False, True])
def test_iterations_of_a_whole_model_are_those_of_its_forward(reentrant):
    model = Looped(3)
    x = torch.zeros(2, 4, requires_grad=True)
    slope = nn.Parameter(torch.tensor(2.0))
    seen: list[tuple[int, int]] = []

    class Spy(pk.Noise):
        def edit(self, x: Tensor, at: pk.Firing) -> Tensor:
            seen.append((at.forward, at.iteration))
            return slope * super().edit(x, at)

    with pk.attach(model, Spy(1.0, "0.resid_pre")):
        losses = [whole(reentrant)(model, x).sum() for _ in range(2)]
        (losses[0] + losses[1]).backward()
    forward = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert seen[:6] == forward and sorted(seen[6:]) == forward


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_backward_in_a_thread_of_its_own(reentrant):
    """As on a GPU, where a thread of autograd's runs it, with a count of nodes of its own."""
    family = trainable("native")
    items = [pk.Noise(1.0, "resid_pre")]
    before, _ = gradients(family, items)
    expected = {name: gradient.clone() for name, gradient in before.items()}
    family.model.zero_grad()
    with pk.attach(family.model, *items):
        loss = whole(reentrant)(family.model, *family.args).square().mean()
        family.run()
        thread = Thread(target=loss.backward)
        thread.start()
        thread.join()
    assert_same({n: p.grad for n, p in family.model.named_parameters() if n in expected}, expected)


def test_forwards_in_several_threads_cannot_be_told_apart():
    family = trainable("native")
    with (
        pytest.raises(pk.ProbekitError, match="which forward and iteration that repeats cannot be"),
        pk.attach(family.model, pk.Noise(1.0, "resid_pre")),
    ):
        thread = Thread(target=family.run)
        thread.start()
        thread.join()
        whole(False)(family.model, *family.args).square().mean().backward()


def test_what_cannot_be_told_is_refused():
    """One of several iterations, run again alone: which one it was nobody knows."""
    model = Looped(2)
    block = model.blocks[0].forward
    model.blocks[0].forward = lambda x: checkpoint(block, x, use_reentrant=True)  # type: ignore[method-assign]
    x = torch.zeros(2, 4, requires_grad=True)
    factor = nn.Parameter(torch.tensor(2.0))
    with pk.attach(model, pk.Edit("0.resid_pre", lambda x: factor * x)):
        model(x).sum().backward()  # reads no counter
    with (
        pytest.raises(pk.ProbekitError, match="which forward and iteration that repeats cannot be"),
        pk.attach(model, pk.Noise(1.0, "0.resid_pre")),
    ):
        model(x).sum().backward()


def test_a_differentiable_observer_is_measured_again_and_counted_once():
    family = trainable("gpt2")
    hf = family.model.original_model
    hf.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    observers = [
        pk.GaussianEntropy("0.z:0", differentiable=True),
        pk.VDI(differentiable=True),
        pk.Record("0.z"),
    ]
    with pk.attach(family.model, *observers) as attached:
        family.model(*family.args).mean().backward()
    assert len(attached["record"].values) == len(family.args[0])
    assert attached["gaussian_entropy"].values.requires_grad
