"""Tensors inside ``torch.func`` transforms: wrapped, without storage, dead once that ends."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

_functorch = torch._C._functorch  # type: ignore[attr-defined]


def transformed(tensor: Tensor) -> bool:
    """Whether ``torch.func`` has wrapped it (``jvp``, ``vjp``, ``vmap``)."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def primal(tensor: Tensor) -> Tensor:
    """The value that is transformed, outside of every ``jvp`` and ``vjp``, without its graph.

    A batch of ``vmap`` stays wrapped: no one value of it is the value.
    """
    tensor = tensor.detach()
    while transformed(tensor) and not _functorch.is_batchedtensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


@contextmanager
def outside() -> Iterator[None]:
    """Compute as if no transform were running: inside one every result is wrapped again."""
    with temporarily_clear_interpreter_stack():
        yield
