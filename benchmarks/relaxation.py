"""Steps of the equilibrium block: hooked, unhooked, plain PyTorch, torchdeq.

    python benchmarks/relaxation.py       # about half a minute

One thread. Plain is the same force from torch.nn.functional without hooks. torchdeq (in the extra
``dev``) runs its damped fixed-point iteration on the same force, with ``return_final=True``.
"""

from collections.abc import Callable

import harness
import torch
from torch import Tensor
from torch.nn import functional as F
from torchdeq.solver.fp_iter import fixed_point_iter

import probekit as pk

PLAIN, TORCHDEQ, BARE = "plain PyTorch", "torchdeq, fixed_point_iter", "probekit, nothing attached"
STEPS = 30
SIZES = {"d_model": 64, "n_heads": 4, "d_head": 16, "d_mlp": 256, "n_ctx": 32}


def plain_force(model: pk.EquilibriumModel, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The force of one causal block, written as one would without a library."""
    weights = {name: p.detach() for name, p in model.blocks[0].named_parameters()}
    width, heads = x.shape[-1], model.cfg.n_heads
    hidden = torch.full((x.shape[1], x.shape[1]), -torch.inf, dtype=x.dtype).triu(1)

    def norm(z: Tensor, name: str) -> Tensor:
        return F.layer_norm(z, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def force(z: Tensor) -> Tensor:
        u = norm(z, "ln1")
        q, k, v = (
            F.linear(u, weights[f"attn.{name}.weight"])
            .view(*u.shape[:2], heads, -1)
            .transpose(1, 2)
            for name in "qkv"
        )
        scores = q @ k.transpose(2, 3) * (width // heads) ** -0.5 + hidden
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
        attended = F.linear(mixed, weights["attn.o.weight"])
        pre = F.linear(norm(z, "ln2"), weights["mlp.fc_in.weight"])
        mlp = F.linear(F.gelu(pre, approximate="tanh"), weights["mlp.fc_out.weight"])
        return x - 2 * z + attended + mlp

    return force


def relaxed(force: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    z = x
    for _ in range(STEPS):
        z = z + 0.1 * force(z)
    return z


def ways(model: pk.EquilibriumModel, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The competitors, each relaxing STEPS steps from x."""
    force = plain_force(model, x)

    def attached(*items: object) -> Tensor:
        with pk.attach(model, *items):  # type: ignore[arg-type]
            return model.relax(x, STEPS)

    return {
        PLAIN: lambda: relaxed(force, x),
        BARE: lambda: model.relax(x, STEPS),
        "probekit, HeadScale": lambda: attached(pk.HeadScale(0, 0, 0.5)),
        "probekit, VDI of every step": lambda: attached(pk.VDI(iterations="all")),
        TORCHDEQ: lambda: fixed_point_iter(
            lambda z: z + force(z), x, max_iter=STEPS, tau=0.1, tol=0.0, return_final=True
        )[0],
    }


def main(config: harness.Settings) -> None:
    torch.set_grad_enabled(False)
    with harness.Report(__file__, __doc__, config) as report:
        for batch, dtype in ((1, torch.float64), (8, torch.float32)):
            model = pk.load("equilibrium", seed=0, dtype=dtype, **SIZES)
            x = torch.randn(batch, SIZES["n_ctx"], SIZES["d_model"], dtype=dtype)
            arms = ways(model, x)
            times = harness.timed(arms, config.rounds, items=dict.fromkeys(arms, STEPS))
            question = f"a step, batch {batch}, {str(dtype).removeprefix('torch.')}"
            report.table(question, times, (PLAIN, TORCHDEQ))


if __name__ == "__main__":
    main(harness.settings(harness.Settings(rounds=40, threads=1), __doc__))
