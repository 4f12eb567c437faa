"""The bridge that :func:`probekit.load` returns, and clean names for its weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from .. import seam
from ..errors import CardError
from .equilibrium_model import EquilibriumModel
from .offloaded import refuse_offloaded
from .silent import silence

_WRAPPER = "_original_component."


class HookedModel(TransformerBridge):
    """A TransformerBridge on probekit's attention that also takes ``input_ids`` by name."""

    def forward(self, input: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As TransformerBridge's; ``model(input_ids=..., pixel_values=...)`` works too."""
        if input is None:
            input = kwargs.pop("input_ids", None)
        return super().forward(input, *args, **kwargs)

    def _repr_html_(self) -> str:
        from ..sitemap import list_sites

        return list_sites(self).to_html(index=False, max_rows=40)


def hooked(bridge: TransformerBridge) -> HookedModel:
    """Turn a fresh bridge into a HookedModel, for good on the seam where that serves it."""
    # TransformerLens's builder names its own class; only methods differ, so the class may change.
    bridge.__class__ = HookedModel
    if seam.serves(bridge):
        seam.acquire(bridge)
    silence(bridge)
    assert isinstance(bridge, HookedModel)
    return bridge


def weights(model: TransformerBridge | EquilibriumModel) -> dict[str, Tensor]:
    """The parameters and buffers of the wrapped model under clean names, tied ones once.

    The tensors are the live ones. Names carry no trace of the bridge, so that checkpoints
    outlive TransformerLens's wrapping.

    Raises:
        ProbekitError: some are offloaded.
    """
    named = model.original_model.state_dict(keep_vars=True)
    refuse_offloaded(named.items())
    seen: dict[int, str] = {}
    clean: dict[str, Tensor] = {}
    for name, tensor in named.items():
        if name.endswith(".bias") and not isinstance(tensor, nn.Parameter):
            continue  # zeros that the bridge gives to an unembedding without bias
        if seen.setdefault(tensor.data_ptr(), name) == name or not tensor.numel():
            clean[name.replace(_WRAPPER, "")] = tensor
    return clean


def load_weights(
    model: TransformerBridge | EquilibriumModel, tensors: Mapping[str, Tensor]
) -> None:
    """Copy ``tensors`` (names as in :func:`weights`) into ``model``, in place.

    Raises:
        CardError: names, shapes or kinds of numbers differ; the message lists every difference.
    """
    copy_into(weights(model), tensors)


def copy_into(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` into those of the same name in ``own``.

    Raises:
        CardError: names, shapes or kinds of numbers differ; the message lists every difference.
    """
    wrong = [f"missing {name}" for name in own if name not in tensors]
    wrong += [f"unexpected {name}" for name in tensors if name not in own]
    wrong += [
        f"{name} has shape {tuple(tensors[name].shape)}, the model {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    wrong += [
        f"{name} is of {tensors[name].dtype}, the model's of {tensor.dtype}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].is_floating_point() != tensor.is_floating_point()
    ]
    if wrong:
        raise CardError(f"the checkpoint does not fit the model: {'; '.join(wrong)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
