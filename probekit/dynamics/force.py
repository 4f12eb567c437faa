"""Forces: what moves a state, with what is known about its structure.

A :class:`Force` may be called like the function that it holds. Whether it is causal, and whether
its derivatives can be restricted to each position's own key and value, decides which solvers and
spectra are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import jvp, vjp

from ..errors import NotFiniteError, ProbekitError
from ..hooked.equilibrium_model import EquilibriumModel

State = Float[Tensor, "batch pos d_model"]
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Force:
    """``F`` of ``dz/dt = F(z)`` on states ``[batch, pos, d_model]``; examples do not interact.

    Args:
        function: ``F``.
        start: where a relaxation begins; also the shape and precision of states.
        causal: no position sees a later one.
        own_token: the same values with derivatives by each position's own state only.
        prefix: the force on the first so many positions; needed by the solver by token.
    """

    function: Function
    start: State
    causal: bool = False
    own_token: Function | None = None
    prefix: "Callable[[int], Force] | None" = None

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)

    def upto(self, length: int) -> "Force":
        """The force on the first ``length`` positions."""
        self.require_causal("the force on a part of the positions")
        if self.prefix is None:
            raise ProbekitError("this force has no prefix=; give one, or use a force of force_of")
        return self.prefix(length)

    def require_causal(self, what: str) -> None:
        """Refuse ``what`` unless the force is causal.

        Raises:
            ProbekitError: it is not.
        """
        if not self.causal:
            raise ProbekitError(
                f"{what} needs a causal mask, and here every position sees later ones; use "
                "find_fixed_point(method='anderson'), arnoldi or dense_jacobian instead"
            )

    def linearised(self, z: State) -> tuple[Function, Function]:
        """``u -> J(z) u`` and ``u -> J(z)^T u``, whose graph is built once.

        ``J u`` is the derivative of ``w -> J^T w``: for many products at one state ten times
        faster than forward mode, which calls the force anew for each.
        """
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            value = self.function(at)
            w = torch.zeros_like(value, requires_grad=True)
            (pulled,) = torch.autograd.grad(value, at, w, create_graph=True)

        def push(u: Tensor) -> Tensor:
            return torch.autograd.grad(pulled, w, u, retain_graph=True)[0]

        def pull(u: Tensor) -> Tensor:
            return torch.autograd.grad(value, at, u, retain_graph=True)[0]

        return push, pull


def pullback(function: Function, z: Tensor) -> Function:
    """``u -> J(z)^T u``, also under ``vmap``."""
    pull: Any = vjp(function, z)[1]
    return lambda u: pull(u)[0]


def pushforward(function: Function, z: Tensor, v: Tensor) -> Tensor:
    """``J(z) v`` by forward mode, also under ``vmap``."""
    return jvp(function, (z,), (v,))[1]


def force_of(model: EquilibriumModel, inputs: Int[Tensor, "batch pos"] | State) -> Force:
    """The force of ``model`` under clamped ``inputs`` (ids, or x itself); hooks act in it.

    Raises:
        ProbekitError: x is not finite.
    """
    x = model.inject(inputs).detach()
    require_finite(x, "x")
    own = all(getattr(block, "has_own_token", False) for block in model.blocks)
    return Force(
        lambda z: model.force(z, x),
        x,
        model.causal,
        (lambda z: model.force(z, x, own_token=True)) if own else None,
        lambda length: force_of(model, x[:, :length]),
    )


def require_finite(z: Tensor, name: str) -> None:
    """Refuse NaN and infinities.

    Raises:
        NotFiniteError: some number is not finite; the message says where the first one is.
    """
    bad = ~z.isfinite()
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        raise NotFiniteError(
            f"{name} is not finite at {first} and {int(bad.sum()) - 1} further places; relax with "
            "a smaller step, or start from a finite state"
        )
