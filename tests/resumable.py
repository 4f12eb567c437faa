"""A recipe of few steps, each of which is kept: it may be stopped anywhere and goes on."""

COIN = """

from dataclasses import dataclass

from probekit.claims import Claim
from probekit.runs import RunDir

NAME = "coin"


@dataclass(frozen=True)
class Config:
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 3
    share: float = 0.5

    @classmethod
    def quick(cls):
        return cls()

    paper = quick


CLAIMS = [Claim("c", "s", "it is fair", 0.5, 0.2, lambda r: r, lambda r: None, "none")]


def units(config):
    return config.seeds


def run_unit(config, unit, run_dir, position):
    run = RunDir(run_dir / f"seed{unit}")
    run.start(config, unit)
    if run.done:
        return
    saved = run.load_checkpoint()
    begin = 0 if saved is None else saved[0]
    run.truncate(begin - 1)
    for step in range(begin, config.steps):
        run.append({"step": step})
        run.save_checkpoint(step + 1, {}, {})
    run.write_json("summary.json", {"share": config.share})


def collect(config, run_dir):
    return [float(len(RunDir(run_dir / f"seed{s}").rows())) for s in config.seeds]


def present(config, results, run_dir):
    RunDir(run_dir).write_text("report.html", "")
"""
