"""Volumes of pentachora: pk.geometry against a loop of one bordered determinant a simplex.

    python benchmarks/simplex.py       # about a minute

One thread. The loops see a part of the simplices, as they take the same time for each. From 1,000
rows all edges come of one Gram matrix; from a whole vocabulary each simplex gathers its own points,
which memory limits.
"""

import math
from functools import partial

import harness
import numpy as np
import torch
from torch import Tensor

import probekit as pk

OURS = "pk.geometry.simplex_volumes"
SIMPLICES, LOOPED, DIM = 100_000, 200, 512


def torch_loop(x: Tensor, simplices: Tensor) -> list[float]:
    """The write-up's way: distances of five points, the bordered determinant, keep V^2 > 0."""
    volumes = []
    for one in simplices:
        points = x[one]
        bordered = torch.ones(6, 6)
        bordered[0, 0] = 0
        bordered[1:, 1:] = (points[:, None] - points[None]).square().sum(-1)
        square = -float(torch.linalg.det(bordered)) / 9216
        if square > 0:
            volumes.append(math.sqrt(square))
    return volumes


def numpy_loop(x: np.ndarray, simplices: np.ndarray) -> list[float]:
    """The same in NumPy, whose calls cost less."""
    volumes = []
    for one in simplices:
        points = x[one]
        bordered = np.ones((6, 6))
        bordered[0, 0] = 0
        bordered[1:, 1:] = np.square(points[:, None] - points[None]).sum(-1)
        square = -np.linalg.det(bordered) / 9216
        if square > 0:
            volumes.append(math.sqrt(square))
    return volumes


def main(config: harness.Settings) -> None:
    items = {"torch loop": LOOPED, "NumPy loop": LOOPED, OURS: SIMPLICES}
    with harness.Report(__file__, __doc__, config) as report:
        for rows in (1000, 2000, 32128):
            x = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(0))
            simplices = pk.geometry.draw_simplices(rows, 4, SIMPLICES, seed=0)
            few = simplices[:LOOPED]
            arms = {
                "torch loop": partial(torch_loop, x, few),
                "NumPy loop": partial(numpy_loop, x.numpy(), few.numpy()),
                OURS: partial(pk.geometry.simplex_volumes, x, simplices),
            }
            times = harness.timed(arms, config.rounds, items=items)
            question = f"a pentachoron of {rows} rows in {DIM} dimensions"
            report.table(question, times, (OURS,), unit="µs", scale=1e6)


if __name__ == "__main__":
    main(harness.settings(harness.Settings(rounds=5, threads=1), __doc__))
