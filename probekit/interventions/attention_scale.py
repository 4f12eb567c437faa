"""AttentionScale: multiply what attention adds to the residual stream by alpha."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..checks import check_finite
from ..items import Firing, Intervention, plain_numbers
from ..site import Site


@dataclass(frozen=True)
class AttentionScale(Intervention):
    """Scales the attention's contribution to the residual stream, biases included.

    ``alpha=1`` is the identity, ``alpha=0`` removes the attention of those layers (the "W_O
    knockout" of the equilibrium dossier). On post-norm models (BERT) the contribution is the
    output projection, before the residual sum and its norm.

    Args:
        alpha: the factor, finite.
        layer: index; None means every layer.
        stack: which stack; None means every stack.

    Raises:
        ProbekitError: alpha is not finite, or the layer is no whole number.
    """

    alpha: float | int
    layer: int | None = None
    stack: str | None = None

    source: ClassVar[str] = "W_O knockout of the equilibrium-propagation dossier"

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_finite("alpha", self.alpha)
        self.sites()  # refuses a layer that is no whole number

    def sites(self) -> tuple[Site, ...]:
        return (Site("attn_out", self.layer, stack=self.stack),)

    def edit(self, x: Tensor, at: Firing) -> Tensor:
        return x * self.alpha
