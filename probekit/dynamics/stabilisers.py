"""What keeps a trained block near rest: penalties on the loss, and projections of the weights.

    JacobianPenalty      strength * E |J_nc^T v|^2 / n, v ~ N(0, 1)          ("jacreg")
    ResidualPenalty      strength * |F(z)|^2 / |z|^2 with z held             ("resreg")
    SpectralPenalty      strength * mean over tokens of max(0, max |1 + step mu| - bound)
    GainCap              |J_nc|_F / sqrt(n) at most ``cap``, by scaling W_O and W_out
    AsymmetryProjection  W_V W_O = gamma (sqrt(1 - r^2) S / |S| + r A / |A|)

``J_nc`` is the Jacobian of attention and MLP alone, ``n`` its size, S and A the symmetric and the
antisymmetric part. The Jacobian penalty's strength is controlled: it follows the residual. All see
the state that the free phase reached, which on an orbit is no fixed point: there the spectral
penalty can be content with a block that is unstable at z*.

Source: the dossier "EP below-CE-2.1 divergence", section 5, which names jacreg, resreg, the gain
cap and the r_str parameterisation (its Eq. 37 and 38) without their exact forms: the controller's
law, the residual's form and the projections are our own.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from ..errors import NotFiniteError, ProbekitError
from ..hooked.equilibrium_block import EquilibriumBlock
from ..hooked.equilibrium_model import EquilibriumModel
from .force import Function, State, force_of
from .spectrum import diagonal_blocks

_PROBES = 4  # Hutchinson vectors of a gain


@dataclass(frozen=True, eq=False)
class Reached:
    """Where a training step's free phase ended."""

    model: EquilibriumModel
    x: State  # the clamped input, with its graph to the embeddings
    z: State  # the state, without a graph
    residual: float  # the aggregate step residual there
    step_size: float
    seed: int  # of the step's random vectors

    def normal(self, count: int = 1) -> Float[Tensor, "count batch pos d_model"]:
        """Standard normal vectors of the step."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(count, *self.z.shape, generator=generator).to(self.z)

    def pulled(self, v: State) -> State:
        """``J_nc^T v``, differentiable by the parameters."""
        z = self.z.detach().requires_grad_()
        added = self.model.force(z, self.x) + (1 + self.model.cfg.damping) * z  # type: ignore[attr-defined]
        (found,) = torch.autograd.grad(added, z, v, create_graph=True)
        return found

    def gain(self) -> float:
        """``|J_nc|_F / sqrt(n)`` by Hutchinson."""
        squares = [self.pulled(v).detach().square().mean() for v in self.normal(_PROBES)]
        return math.sqrt(float(torch.stack(squares).mean()))


@dataclass(frozen=True)
class JacobianPenalty:
    """``strength * |J_nc^T v|^2 / n`` with one normal v a step, the strength controlled.

        log strength <- log strength + rate log(r / target), clamped to [floor, ceiling]

    with the step residual r. ``rate=0`` freezes it at ``floor``, as the dossier's diverging runs
    had it.
    """

    floor: float = 0.1
    ceiling: float = 32.0
    target: float = 1.5e-3
    rate: float = 0.1

    @property
    def strength(self) -> float:
        """What the controller begins with."""
        return self.floor

    def controlled(self, strength: float, residual: float) -> float:
        """The next strength; the ceiling where the residual is no finite number."""
        if not math.isfinite(residual):
            return self.ceiling
        ratio = max(residual, 1e-12) / self.target
        return min(max(strength * ratio**self.rate, self.floor), self.ceiling)

    def penalty(self, at: Reached) -> Float[Tensor, ""]:
        """The mean square, before the strength."""
        (v,) = at.normal()
        return at.pulled(v).square().mean()


@dataclass(frozen=True)
class ResidualPenalty:
    """``strength * |F(z)|^2 / |z|^2`` with z held: local, and needs no second derivative."""

    strength: float = 1.0

    def penalty(self, at: Reached) -> Float[Tensor, ""]:
        """The squared force residual of the batch, before the strength."""
        force = at.model.force(at.z.detach(), at.x)
        return force.square().sum() / at.z.detach().square().sum()


@dataclass(frozen=True)
class SpectralPenalty:
    """``strength *`` the mean excess of each token's largest ``|1 + step mu|`` over ``bound``.

    The eigenvalues are those of the diagonal blocks of one sequence of the batch, another each
    step; their derivatives come from left and right eigenvectors.
    """

    strength: float = 1.0
    bound: float = 0.95

    def penalty(self, at: Reached) -> Float[Tensor, ""]:
        """The mean excess, before the strength.

        Raises:
            ProbekitError: the model is not causal, or wraps another's block.
            NotFiniteError: a block is not finite, or has too few eigenvectors to differentiate.
        """
        chosen = at.seed % len(at.z)
        z, x = (each[chosen : chosen + 1].detach() for each in (at.z, at.x))
        force = force_of(at.model, x)
        if force.own_token is None:
            raise ProbekitError(
                "SpectralPenalty needs the model's own block, pk.load('equilibrium'); take "
                "JacobianPenalty where another block is wrapped"
            )
        blocks = diagonal_blocks(force, z)[0]
        values, right = torch.linalg.eig(blocks.double())
        worst = (1 + at.step_size * values).abs().argmax(-1)[:, None]
        lead = values.gather(-1, worst)[:, 0]
        v = right.gather(-1, worst[:, None].expand(-1, right.shape[1], 1))[..., 0]
        inverse, failed = torch.linalg.inv_ex(right)
        if failed.any():
            raise NotFiniteError(
                "a block has too few eigenvectors to differentiate its eigenvalues"
            )
        left = inverse.gather(-2, worst[..., None].expand(-1, 1, right.shape[1]))
        moving = _eigenvalue(force.own_token, z, left[:, 0], v)
        # The value is the exact eigenvalue's; the graph carries the derivative.
        mu = lead.to(moving) + moving - moving.detach()
        return ((1 + at.step_size * mu).abs() - self.bound).relu().mean()


def _eigenvalue(
    own_token: Function, z: State, left: Complex[Tensor, "pos d"], right: Complex[Tensor, "pos d"]
) -> Complex[Tensor, " pos"]:
    """``left J_tt right`` of one sequence, ``left right`` being 1: differentiable by weights."""
    z = z.requires_grad_()
    force = own_token(z)
    parts: list[Tensor] = []
    for row in (left.real, left.imag):
        (pulled,) = torch.autograd.grad(force, z, row.to(z)[None], create_graph=True)
        parts += [(pulled[0] * part.to(z)).sum(-1) for part in (right.real, right.imag)]
    return torch.complex(parts[0] - parts[3], parts[1] + parts[2])


@dataclass(frozen=True)
class GainCap:
    """After each step: W_O and W_out scaled down until ``|J_nc|_F / sqrt(n)`` is at most ``cap``.

    At a given state the J_nc of one block is linear in them, so that one scaling is exact up to
    Hutchinson's noise; of several blocks it is not, and the cap is reached over a few steps.
    """

    cap: float = 1.0

    @torch.no_grad()
    def project(self, at: Reached) -> None:
        """Scale where the gain is too large.

        Raises:
            ProbekitError: a block is not the model's own.
        """
        with torch.enable_grad():
            gain = at.gain()
        if not gain > self.cap:  # also where it is not a number
            return
        for block in at.model.blocks:
            for parameter in _outputs(block):
                parameter.mul_(self.cap / gain)


@dataclass(frozen=True)
class AsymmetryProjection:
    """The value-output map as ``gamma (sqrt(1 - r^2) S / |S| + r A / |A|)`` after each step.

    W_V is orthogonal and not trained, so that W_O carries the whole map, summed over heads (d_head
    times n_heads must be d_model). 0 is a symmetric map, 1 an antisymmetric one, sqrt(1/2) what
    independent entries have.

    Args:
        asymmetry: r, the share of the antisymmetric part in the Frobenius norm.
        gain: gamma over ``sqrt(d_model)``, the root mean square singular value; None leaves it.
    """

    asymmetry: float
    gain: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.asymmetry <= 1 or (self.gain is not None and not self.gain > 0):
            raise ProbekitError(
                f"asymmetry={self.asymmetry!r}, gain={self.gain!r}: an asymmetry lies between 0 "
                "and 1, a gain above 0"
            )

    @torch.no_grad()
    def prepare(self, model: EquilibriumModel) -> None:
        """Make each W_V orthogonal and fixed, and project.

        Raises:
            ProbekitError: a block's value projection is not square, or not the model's own.
        """
        for block in model.blocks:
            if not isinstance(block, EquilibriumBlock) or len({*block.attn.v.weight.shape}) != 1:
                raise ProbekitError(
                    "AsymmetryProjection needs the model's own block, pk.load('equilibrium'), "
                    "with n_heads * d_head = d_model"
                )
            block.attn.v.weight.copy_(_orthogonal(block.attn.v.weight))
            block.attn.v.weight.requires_grad_(False)
            self._set(block)

    @torch.no_grad()
    def project(self, at: Reached) -> None:
        """Project each block's W_O."""
        for block in at.model.blocks:
            self._set(block)

    def _set(self, block: nn.Module) -> None:
        assert isinstance(block, EquilibriumBlock)
        w_v, w_o = block.attn.v.weight, block.attn.o.weight  # they act as u -> w_o (w_v u)
        projected = with_asymmetry(w_o @ w_v, self.asymmetry, self.gain)
        w_o.copy_(projected @ w_v.T)


def with_asymmetry(
    matrix: Float[Tensor, "n n"], asymmetry: float, gain: float | None = None
) -> Float[Tensor, "n n"]:
    """``gamma (sqrt(1 - r^2) S / |S| + r A / |A|)`` of the parts of ``matrix``.

    Args:
        gain: ``gamma / sqrt(n)``; None keeps the Frobenius norm.
    """
    symmetric, skew = (matrix + matrix.mT) / 2, (matrix - matrix.mT) / 2
    norm = torch.linalg.matrix_norm(matrix) if gain is None else gain * len(matrix) ** 0.5
    tiny = torch.finfo(matrix.dtype).tiny
    symmetric, skew = (
        part / torch.linalg.matrix_norm(part).clamp_min(tiny) for part in (symmetric, skew)
    )
    return norm * (math.sqrt(1 - asymmetry**2) * symmetric + asymmetry * skew)


def _orthogonal(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The nearest orthogonal matrix (its polar factor)."""
    left, _, right = torch.linalg.svd(matrix)
    return left @ right


def _outputs(block: nn.Module) -> list[nn.Parameter]:
    """The parameters of the last maps of attention and MLP."""
    if not isinstance(block, EquilibriumBlock):
        raise ProbekitError(
            "GainCap scales W_O and W_out of the model's own block, pk.load('equilibrium'); take "
            "JacobianPenalty where another block is wrapped"
        )
    layers = [block.attn.o] + ([block.mlp.fc_out] if hasattr(block, "mlp") else [])
    return [parameter for layer in layers for parameter in layer.parameters()]


Penalty = JacobianPenalty | ResidualPenalty | SpectralPenalty
Stabiliser = Penalty | GainCap | AsymmetryProjection
