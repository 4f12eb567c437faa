"""Noise: add seeded Gaussian noise to an activation."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar

import torch
from torch import Tensor

from ..checks import check_from_zero, check_whole
from ..items import Firing, Intervention, plain_numbers
from ..site import Site, parse_site


@dataclass(frozen=True)
class Noise(Intervention):
    """Adds ``N(0, sigma²)`` to every number of the activation, anew at every firing.

    The draws depend on the seed, the site, the forward and the iteration within it, and on nothing
    else: forwards are independent of each other, and a second attachment sees the same sequence.
    So two items of one seed at one site draw the same numbers, in one attachment too, and add up
    to twice the deviation rather than sqrt(2) times: give each a seed of its own. ``sigma=0`` is
    the identity. Where gradient checkpointing runs a part again, the noise is that of the forward.

    Args:
        sigma: standard deviation, in the activation's own units; finite, not negative.
        site: an address; as published ``"ln_final"`` or ``"resid_mid"``.
        seed: of the draws, a whole number.

    Raises:
        ProbekitError: sigma is negative or not finite, or the seed is no whole number.

    Source: "Conservation of Separability", section 12 (post-clamp and stroke noise).
    """

    sigma: float | int
    site: str | Site
    seed: int = 0

    source: ClassVar[str] = "Conservation of Separability, 12"

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_from_zero("sigma", self.sigma)
        check_whole("seed", self.seed)
        object.__setattr__(self, "site", str(parse_site(self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (parse_site(self.site),)

    def edit(self, x: Tensor, at: Firing) -> Tensor:
        words = f"{self.seed} {at.site} {at.forward} {at.iteration}"
        seed = int.from_bytes(blake2b(words.encode(), digest_size=8).digest()[:7])
        generator = torch.Generator(x.device).manual_seed(seed)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return x + self.sigma * noise
