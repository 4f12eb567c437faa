"""Small forces whose answers are known."""

import torch

import probekit as pk
from probekit.dynamics import Force


def linear(matrix: torch.Tensor, offset: torch.Tensor | None = None) -> Force:
    """``F(z) = A z + b`` on one token."""
    width = len(matrix)
    b = torch.zeros(width, dtype=matrix.dtype) if offset is None else offset
    start = torch.ones(1, 1, width, dtype=matrix.dtype)

    def function(z):
        return z @ matrix.T + b

    return Force(function, start, True, function, lambda _: linear(matrix, offset))


def hopf_normal_form(growth: float = 1.0, omega: float = 2.0) -> Force:
    """``z' = (growth + i omega - |z|^2) z`` as two real numbers: a cycle of radius sqrt(growth)."""

    def function(z):
        x, y = z.unbind(-1)
        square = x * x + y * y
        return torch.stack(
            [(growth - square) * x - omega * y, (growth - square) * y + omega * x], -1
        )

    return Force(function, torch.full((1, 1, 2), 0.1, dtype=torch.float64), True, function)


def tiny_model(**overrides):
    """An equilibrium model that settles, in float64."""
    sizes: dict = {"d_model": 8, "n_heads": 2, "d_head": 4, "d_mlp": 16, "n_ctx": 5, "d_vocab": 11}
    sizes |= {"residual_init": 0.5}
    return pk.load("equilibrium", seed=0, dtype=torch.float64, **(sizes | overrides))


TOKENS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 10]])
LABELS = torch.tensor([[3, 1, 0, 9], [2, 2, 5, 7]])
