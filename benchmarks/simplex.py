"""Volumes of pentachora: pk.geometry against a loop of one bordered determinant a simplex.

    python benchmarks/simplex.py

One process and one thread; the ways take turns in each round. Printed are microseconds a simplex in
the median, and the loop's time over it, the median over rounds of the ratio within the round. The
loops see a part of the simplices, as they take the same time for each. From 1,000 rows all edges
come of one Gram matrix; from a whole vocabulary each simplex gathers its own points, which memory
limits.
"""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

import probekit as pk

SIMPLICES, LOOPED, DIM, ROUNDS = 100_000, 200, 512, 5


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


def microseconds(call: Callable[[], object], number: int) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) / number * 1e6


def main() -> None:
    torch.set_num_threads(1)
    for rows in (1000, 2000, 32128):
        x = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(0))
        simplices = pk.geometry.draw_simplices(rows, 4, SIMPLICES, seed=0)
        few = simplices[:LOOPED]
        ways: dict[str, tuple[Callable[[], object], int]] = {
            "torch loop": (partial(torch_loop, x, few), LOOPED),
            "NumPy loop": (partial(numpy_loop, x.numpy(), few.numpy()), LOOPED),
            "simplex_volumes": (partial(pk.geometry.simplex_volumes, x, simplices), SIMPLICES),
        }
        rounds = [{name: microseconds(*way) for name, way in ways.items()} for _ in range(ROUNDS)]
        print(f"{SIMPLICES} pentachora of {rows} rows in {DIM} dimensions")
        for name in ways:
            taken = statistics.median(times[name] for times in rounds)
            ratio = statistics.median(times[name] / times["simplex_volumes"] for times in rounds)
            print(f"  {name:16s} {taken:8.2f} microseconds each   {ratio:6.1f}")


if __name__ == "__main__":
    main()
