"""Where do random walks end? A recipe of units that say in a log when they begin and end.

The log, a file a unit beside the run's folder, has a line `begin <process> <rows there>` for each
time that a unit is not done, and a line `end`.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import probekit.recipes
from probekit.claims import Claim
from probekit.runs import RunDir
from probekit.training import train

NAME = "walk"


@dataclass(frozen=True)
class Config:
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    steps: int = 30
    pause: float = 0.03  # seconds a step

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls()


CLAIMS = [
    Claim(
        "walk-1",
        "folklore",
        "a walk ends where it began",
        published=0.0,
        tolerance=1.0,
        measure=lambda results: results,
        null=lambda results: [0.0],
        control="no walk",
    )
]


def units(config: Config) -> tuple[int, ...]:
    return config.seeds


def run_unit(config: Config, unit: int, run_dir: Path, position: int) -> None:
    run = RunDir(run_dir / f"seed{unit}")
    run.start(config, unit)
    if run.done:
        return
    log = run_dir.with_name(f"unit{unit}.log")
    _say(log, f"begin {os.getpid()} {len(run.rows())}")
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)

    def update(step: int) -> None:
        time.sleep(config.pause)
        generator = torch.Generator().manual_seed(1000 * unit + step)
        weight.grad = torch.randn(3, generator=generator)
        optimizer.step()

    train(
        run,
        {"weight": weight},
        optimizer,
        steps=config.steps,
        update=update,
        log=lambda step: {"step": step, "weight": weight},
        log_every=1,
        checkpoint_every=5,
        title=f"walk {unit}",
        position=position,
    )
    run.write_json("summary.json", {"end": weight.mean(), "threads": torch.get_num_threads()})
    _say(log, "end")


def _say(log: Path, line: str) -> None:
    with open(log, "a") as file:
        file.write(line + "\n")


def collect(config: Config, run_dir: Path) -> list[float]:
    return [RunDir(run_dir / f"seed{s}").read_json("summary.json")["end"] for s in config.seeds]


def present(config: Config, results: list[float], run_dir: Path) -> None:
    RunDir(run_dir).write_text("report.html", str(results))


if __name__ == "__main__":
    probekit.recipes.main(__file__)
