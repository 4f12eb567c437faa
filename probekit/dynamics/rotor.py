"""Planted rotors: equilibrium models whose eigenvalues at the fixed point are known.

One head, no MLP, ``W_V W_O = kappa U R_phi U^T`` with two orthonormal columns of zero mean in U.
Inputs orthogonal to U are at rest at ``z* = x / (1 + c)``, and there the two moving eigenvalues
of position t are

    mu = -(1 + c) + kappa A_tt exp(+-i phi) / sigma_t

with ``sigma_t = sqrt(var x_t / (1 + c)^2 + eps)`` and A_tt the attention of t to itself (1 at the
first position); all others are ``-(1 + c)``. What kappa and phi do: small kappa, stable; Re mu > 0
at an angle, a Hopf bifurcation of the flow; phi near 90 degrees, a flow that is stable and an Euler
map that is not; phi = 0, a real branch point; phi = 180, a flip of the map.

Source: the dossier "EP below-CE-2.1 divergence", section 6.2. There x is drawn freely,
so that the formula holds to 1 % at the first position; here it is exact everywhere.
"""

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ..errors import ProbekitError
from ..hooked.cards import HookedTransformerConfig
from ..hooked.equilibrium import build_equilibrium
from ..hooked.equilibrium_model import ARCHITECTURE, EQUILIBRIUM_FIELDS, EquilibriumModel
from .margins import euler_margin, spectral_regime

#: The five labelled regimes: kappa, and phi in degrees.
REGIMES: dict[str, tuple[float, float]] = {
    "stable": (0.5, 60.0),
    "continuous Hopf": (2.6, 60.0),
    "Euler instability": (4.0, 90.0),
    "real branch point": (1.6, 0.0),
    "flip": (12.0, 180.0),
}


@torch.no_grad()
def as_in_the_dossier(model: EquilibriumModel) -> EquilibriumModel:
    """The same model with every matrix N(0, 1 / d_model), in place.

    ``pk.load`` draws by the number of inputs: of W_out that is the MLP's width, and W_out is drawn
    half as large at four times d_model.
    """
    for block in model.blocks:
        block.mlp.fc_out.weight.mul_((model.cfg.d_mlp / model.cfg.d_model) ** 0.5)  # type: ignore[union-attr, operator]
    return model


@dataclass(frozen=True, eq=False)
class Rotor:
    """A planted system: its model, its inputs, and the plane that turns."""

    model: EquilibriumModel
    x: Float[Tensor, "batch pos d_model"]
    plane: Float[Tensor, "d_model 2"]
    kappa: float
    phi: float  # radians

    @property
    def fixed_point(self) -> Float[Tensor, "batch pos d_model"]:
        """``x / (1 + c)``, exactly."""
        return self.x / (1 + self.model.cfg.damping)  # type: ignore[attr-defined]

    @torch.no_grad()
    def eigenvalues(self) -> Complex[Tensor, "batch pos"]:
        """The upper of the two moving eigenvalues at each position, by the closed form."""
        z, cfg = self.fixed_point, self.model.cfg
        sigma = (z.var(-1, correction=0) + cfg.eps).sqrt()
        attn: Any = self.model.blocks[0].attn
        u = (z - z.mean(-1, keepdim=True)) / sigma[..., None]
        q, k = (u @ getattr(attn, name).weight.T for name in "qk")
        scores = q @ k.mT / math.sqrt(cfg.d_head)
        hidden = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        own = scores.masked_fill(hidden, -torch.inf).softmax(-1).diagonal(dim1=-2, dim2=-1)
        turn = complex(math.cos(self.phi), abs(math.sin(self.phi)))
        return self.kappa * own / sigma * turn - (1 + cfg.damping)  # type: ignore[attr-defined]

    def nudged(self, size: float, seed: int = 0) -> Float[Tensor, "batch pos d_model"]:
        """A start off the fixed point, by ``size`` of its spread within the plane."""
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randn(*self.x.shape[:2], 2, generator=generator, dtype=torch.float64)
        draw = draw / draw.norm(dim=-1, keepdim=True)
        z = self.fixed_point
        spread = z.std(-1, correction=0, keepdim=True)
        return z + size * spread * (draw.to(z) @ self.plane.T)

    def regimes(self, step_size: float = 0.1) -> list[str]:
        """The planted label of each example, from the closed form alone."""
        pairs = self.eigenvalues()
        leak = torch.full_like(pairs[:, :1], -(1 + self.model.cfg.damping))  # type: ignore[attr-defined]
        return [spectral_regime(mu, step_size) for mu in torch.cat([pairs, leak], 1)]


@torch.no_grad()
def planted_rotor(
    kappa: float,
    phi: float,
    *,
    d_model: int = 32,
    length: int = 4,
    scales: tuple[float, ...] = (1.17,),
    damping: float = 1.0,
    seed: int = 0,
) -> Rotor:
    """A rotor of strength ``kappa`` and angle ``phi`` (degrees), in float64.

    Args:
        scales: the standard deviation of x within a token, an example each.

    Raises:
        ProbekitError: fewer than 4 dimensions, or a scale that is not positive.
    """
    if d_model < 4 or not all(scale > 0 for scale in scales):
        raise ProbekitError(
            f"d_model={d_model}, scales={scales}: a rotor needs 4 dimensions and positive scales"
        )
    cfg = HookedTransformerConfig(
        n_layers=1, n_heads=1, d_model=d_model, d_head=d_model, n_ctx=length, d_vocab=4,
        act_fn="gelu_new", normalization_type="LN", attention_dir="causal", attn_only=True,
        parallel_attn_mlp=True, model_name="planted-rotor", architecture=ARCHITECTURE,
    )  # fmt: skip
    for name, value in {**EQUILIBRIUM_FIELDS, "damping": damping}.items():
        setattr(cfg, name, value)
    model = build_equilibrium(cfg, seed).double()
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(d_model, 2, generator=generator, dtype=torch.float64)
    plane, _ = torch.linalg.qr(draw - draw.mean(0))
    angle = math.radians(phi)
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]],
        dtype=torch.float64,
    )
    values, _ = torch.linalg.qr(torch.randn(d_model, d_model, generator=generator).double())
    attn: Any = model.blocks[0].attn
    attn.v.weight.copy_(values)
    # Rows of the state: u W_V^T W_O^T = kappa u U R U^T.
    attn.o.weight.copy_((values @ (kappa * plane @ turn @ plane.T)).T)
    x = torch.randn(len(scales), length, d_model, generator=generator, dtype=torch.float64)
    x = x - x.mean(-1, keepdim=True)
    x = x - x @ plane @ plane.T  # the plane has zero mean, so the mean stays zero
    x = x / x.std(-1, correction=0, keepdim=True) * torch.tensor(scales).double()[:, None, None]
    return Rotor(model, x, plane, kappa, angle)


def random_rotors(
    count: int,
    *,
    each: int = 10,
    d_model: int = 8,
    step_size: float = 0.1,
    slowest: float = 0.25,
    seed: int = 0,
) -> list[Rotor]:
    """``count`` random planted systems, ``each`` in one rotor of one label, the five in turn.

    Angles are 0 (real branch point), 180 (flip) or uniform in [20, 160] degrees, ``kappa / sigma``
    log-uniform in [0.3, 25], drawn until the label is the wanted one and not borderline: growth
    and decay, of the flow and of the map, faster than ``slowest`` (per unit of time), and an Euler
    margin of at least 0.3 steps (below it only steps smaller than a sweep's end the artefact).
    """
    draw = np.random.default_rng(seed)
    labels = list(REGIMES)
    rotors = []
    for index in range(-(-count // each)):
        label, wanted = labels[index % len(labels)], min(each, count - index * each)
        ratios: list[float] = []
        while len(ratios) < wanted:
            fixed = {"real branch point": 0.0, "flip": 180.0}.get(label)
            phi = float(draw.uniform(20, 160)) if fixed is None else fixed
            tries = np.exp(draw.uniform(np.log(0.3), np.log(25), 200))
            fit = (r for r in map(float, tries) if _plants(label, r, phi, step_size, slowest))
            ratios = list(islice(fit, wanted))
        scales = tuple(2.0 / ratio for ratio in ratios)
        rotors.append(
            planted_rotor(1.0, phi, d_model=d_model, length=1, scales=scales, seed=seed + index)
        )
    return rotors


def _plants(label: str, ratio: float, phi: float, step_size: float, slowest: float) -> bool:
    angle = math.radians(phi)
    mu = torch.tensor(
        [complex(ratio * math.cos(angle) - 2, ratio * abs(math.sin(angle))), -2],
        dtype=torch.complex128,
    )
    growth = (1 + step_size * mu[0]).abs().log() / step_size
    near = 0 < float(euler_margin(mu[0])) < 0.3 * step_size
    clear = abs(float(mu[0].real)) > slowest and abs(float(growth)) > slowest and not near
    return clear and spectral_regime(mu, step_size) == label
