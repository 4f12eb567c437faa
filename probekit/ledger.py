"""Lists kept on a model itself, so that they live as long as it and no longer."""

from typing import Any

from torch import nn


class Ledger(list[Any]):
    """A list kept on a model, of what attachments have to undo there.

    It may refer to the model: the two are collected together. A copy or a pickle of the model
    starts with an empty one, since no attachment will undo anything there.
    """

    def __reduce__(self) -> Any:
        return Ledger, ()

    @classmethod
    def of(cls, model: nn.Module, name: str) -> "Ledger":
        """The ledger of that name on ``model``, made at the first call."""
        return model.__dict__.setdefault(f"_probekit_{name}", cls())
