"""What several test files check, and how; models come from families.py."""

import contextlib
from collections.abc import Callable
from typing import Any

import families
import pytest
import torch
from torch import Tensor, nn

from probekit import seam
from probekit.errors import ProbekitError
from probekit.hooked.model import weights
from probekit.hooksite import hook_points


def refused(message: str, function: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    """Whether a call is refused with exactly that message."""
    with pytest.raises(ProbekitError) as error:
        function(*args, **keywords)
    assert str(error.value) == message


def identity(tensor: Tensor) -> Tensor:
    return tensor


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    first, second = weights(one), weights(two)  # type: ignore[arg-type]
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def captured(model: Any, name: str, run: Callable[[], Any]) -> Tensor:
    """The activation as a raw TransformerLens hook sees it."""
    seen: list[Tensor] = []
    with model.hooks(fwd_hooks=[(name, lambda tensor, hook: seen.append(tensor.clone()))]):
        run()
    (only,) = seen
    return only


def noise_hook() -> Callable[[Tensor, Any], Tensor]:
    """A raw TransformerLens hook that adds seeded noise."""
    generator = torch.Generator().manual_seed(2)
    return lambda tensor, hook: tensor + torch.randn(tensor.shape, generator=generator)


class Boom(Exception):
    """Raised by the tests themselves."""


def boom(tensor: Tensor) -> Tensor:
    raise Boom


def assert_close_to_largest(actual: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest output: the rounding of SDPA against eager attention."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def modules_of(model: Any) -> list[nn.Module]:
    return list(dict.fromkeys([*model.modules(), *model.original_model.modules()]))


def snapshot(model: Any) -> dict[str, Any]:
    """Everything that an attachment touches, or might."""
    modules = modules_of(model)
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    kinds += ("_forward_hooks_always_called", "_forward_hooks_with_kwargs")
    points = list(hook_points(model).values())
    return {
        "torch hooks": [list(getattr(m, kind).items()) for m in modules for kind in kinds],
        "forward handles": [list(map(id, point.fwd_hooks)) for point in points],
        "backward handles": [list(map(id, point.bwd_hooks)) for point in points],
        "contexts": [dict(point.ctx) for point in points],
        "training": [module.training for module in modules],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "attention": [config._attn_implementation for _, config in seam.configs(model)],
        "taps": [id(module.__dict__.get(seam._TAPS)) for module in modules],
    }


def state_of(model: Any) -> dict[str, Tensor]:
    state = {**model.state_dict(), **model.original_model.state_dict()}
    return {name: tensor.clone() for name, tensor in state.items()}


@contextlib.contextmanager
def unchanged(family: families.Family) -> Any:
    """Checks that the block leaves the model bit for bit as it found it."""
    output = family.run()  # first: TransformerLens wires hooks of its own at the first forward
    before, state = snapshot(family.model), state_of(family.model)
    yield
    after = snapshot(family.model)
    for what, value in before.items():
        assert after[what] == value, what
    left = state_of(family.model)
    assert left.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(left[name], tensor), name
    assert torch.equal(family.run(), output)
