"""Weights that are not in memory: accelerate keeps those that it offloads on torch's meta device.

They come for their module's forward and go after it. In between they have a shape and no numbers.
"""

from collections.abc import Iterable

from torch import Tensor

from ..errors import ProbekitError


def refuse_offloaded(named: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse tensors on the meta device.

    Raises:
        ProbekitError: there are some; it names the first and the fix.
    """
    gone = [name for name, tensor in named if tensor.is_meta]
    if gone:
        raise ProbekitError(
            f"{len(gone)} of these weights are offloaded, {gone[0]} for one: between forwards they "
            "have no numbers to read or write. Select weights that stay in memory, or load the "
            "model wholly into memory (device_map={'': 'cpu'}, say); items on activations work as "
            "they are"
        )
