"""HeadScale: multiply one head's output by omega."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..checks import check_finite
from ..items import Firing, Intervention, plain_numbers
from ..site import Site


@dataclass(frozen=True)
class HeadScale(Intervention):
    """Scales z, the head's weighted sum of values before W_O, by ``omega`` at every position.

    The same as scaling that head's rows of W_O; Q, K and the pattern are not touched, so the
    layer's own patterns cannot change. ``omega=1`` is the identity, ``omega=0`` head ablation.

    Args:
        layer: index; negative counts from the end.
        head: index.
        omega: the factor, finite.
        stack, attn: which stack and attention, where there are several; None means all.

    Raises:
        ProbekitError: omega is not finite, or the layer or head is no whole number.

    Source: the gain of "Homeostatic Crystallization", section 2; head ablation of Michel et al.
    2019.
    """

    layer: int
    head: int
    omega: float | int
    stack: str | None = None
    attn: str | None = None

    source: ClassVar[str] = "Homeostatic Crystallization, section 2; Michel et al. 2019"

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_finite("omega", self.omega)
        self.sites()  # refuses a layer or head that is no whole number

    def sites(self) -> tuple[Site, ...]:
        return (Site("z", self.layer, self.head, self.stack, self.attn),)

    def edit(self, x: Tensor, at: Firing) -> Tensor:
        return x * self.omega
