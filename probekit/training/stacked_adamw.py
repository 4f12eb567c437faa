"""AdamW and gradient clipping for stacked parameters ``[run, ...]``, each run as if it were alone.

Everything in AdamW but the learning rate's value is elementwise, so one update serves all runs; a
clipped norm is a run's own. See :class:`~probekit.training.Stack`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from ..errors import ProbekitError


class StackedAdamW(Optimizer):
    """``torch.optim.AdamW`` with, optionally, a learning rate a run.

    Args:
        params: stacked parameters, or groups of them as in torch.optim.
        lr: a number, or a tensor ``[run]``; of a group likewise.
        betas, eps, weight_decay: as in AdamW; the decay is decoupled.

    Raises:
        ProbekitError: the learning rates of a group are not one a run.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Float[Tensor, " run"] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch.optim; checks the group's learning rates first."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        lr, runs = group["lr"], sorted({len(p) for p in group["params"]})
        if isinstance(lr, Tensor) and [*lr.shape] != runs:
            raise ProbekitError(
                f"lr is a number or a tensor [run]; given shape {list(lr.shape)} for parameters of "
                f"{' and '.join(map(str, runs))} runs"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            states = [self._state_of(p) for p in params]
            means, squares = ([s[key] for s in states] for key in ("exp_avg", "exp_avg_sq"))
            steps = [s["step"] for s in states]
            if not isinstance(group["lr"], Tensor):
                _update(group, group["lr"], params, grads, means, squares, steps)
                continue
            for run, lr in enumerate(group["lr"].tolist()):
                p, g, m, v = ([t[run] for t in each] for each in (params, grads, means, squares))
                _update(group, lr, p, g, m, v, [step.clone() for step in steps])
            for step in steps:
                step.add_(1)
        return loss

    def _state_of(self, p: Tensor) -> dict[str, Tensor]:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        return state


def _update(
    group: dict[str, Any],
    lr: float,
    params: list[Tensor],
    grads: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
) -> None:
    """PyTorch's own AdamW, fused: one pass over memory; it advances ``steps``."""
    beta1, beta2 = group["betas"]
    adamw(
        params,
        grads,
        means,
        squares,
        [],
        steps,
        fused=True,
        amsgrad=False,
        maximize=False,
        beta1=beta1,
        beta2=beta2,
        lr=lr,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
    )


@torch.no_grad()
def clip_stacked_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> Float[Tensor, " run"]:
    """``torch.nn.utils.clip_grad_norm_`` on each run alone; returns the norms before clipping.

    Raises:
        ProbekitError: no parameter has a gradient.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        raise ProbekitError("no parameter has a gradient to clip; call backward() first")
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads])
    total = torch.linalg.vector_norm(norms, dim=0)
    factor = (max_norm / (total + 1e-6)).clamp(max=1)
    if (factor != 1).any():
        for grad in grads:
            grad.mul_(factor.view(-1, *[1] * (grad.ndim - 1)))
    return total
