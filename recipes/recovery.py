"""Is partial damage to attention worse than full damage? Recovery, beside runs without damage.

A three-layer network learns modular addition to 99 % held-out accuracy; then Q and K of the first
n of four heads of its first layer are made fresh, and training goes on. The write-up finds that
one damaged head ends at 13.9 % and four at 99.4 %, and that no run is stable. But each run also
starts its optimizer afresh, in a regime (AdamW, lr * wd = 1e-3, batch 128, no clip) in which
networks fall and come back by themselves, and its own undamaged runs end at 78.9, 14.1, 11.4 and
21.1 %. Here every arm begins from the same grown network:

    n = 0 to 4            fresh Q and K of n heads, fresh optimizer, as published
    n = 0, other batches  the same algorithm as n = 0: how far apart equal arms are
    kept optimizer        n = 0, trained straight on, on the batches of n = 0
    layer 2, V            as many fresh rows, of Q and K one layer up, or V instead of Q and K
    wd 0.1, clip 1.0      n = 0 and n = 4 in a gentler regime

    probekit run recovery --preset quick --jobs 2      four seeds, p 31, d 32, 1,200 steps an arm
    probekit run recovery --preset paper --jobs 2      as published, p 113, d 128, 20,000 steps

Expected of quick: all arms fall, the undamaged and that with its optimizer kept too (7 collapses
in 4 runs), and are back within 50 to 100 steps; with weight decay 0.1 or clipped gradients none
falls. One head ends no lower than four (1.00, 0.75: one run ends in a fall). Where a run ends says
when its log did; n = 0 on other batches differs as much. Irreversible are 1 of 16 and not 13 of
18, as 1,200 steps are few. The first step of the fresh optimizer takes the undamaged network from
1.00 to 0.52 (0.16 to 0.89 by seed; asked for was a loss of .2 in all), one damaged head takes 0.03.

First drops are in units of 1 / (lr * wd): decided when two seeds had been seen. That dominance
reads 0 where it is not significant: when all four had.

Time on two cores: quick 5 minutes at a load of 4; paper 6 hours (estimated).

Source: "The Conservation of Separability", phase 6, without 6.3's loss variance and margin.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.hooked.selection import Selection
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.training import (
    ModularTask,
    Optimisation,
    RecoveryArm,
    Stack,
    dominance_rows,
    ended_alike,
    ends_rows,
    exact_rows,
    final_difference,
    first_step_loss,
    first_step_rows,
    fit_until,
    gather,
    mean_final,
    median_first_drop,
    recovered_difference,
    share_of_kind,
    train_recoveries,
)
from probekit.training.separability.recovery_pictures import ends_figure, logs_figure

NAME = "recovery"
WRITE_UP = "The Conservation of Separability, phase 6"
PREDICTION = "not published: if the regime and the fresh optimizer do it, and not the damage"
HEADS, REACHED = 4, 0.99
Q_K = ("Q", "K")
UNDAMAGED, REPLICATE, KEPT = "n = 0", "n = 0, other batches", "kept optimizer"
DAMAGED = {f"n = {n}": Selection(Q_K, (0,), tuple(range(n))) for n in range(1, HEADS + 1)}
HURT, WHOLE = [*DAMAGED], [UNDAMAGED, REPLICATE]
ELSEWHERE = {"layer 2": Selection(Q_K, (1,)), "V": Selection(("V",), (0,))}
ARMS = {
    UNDAMAGED: RecoveryArm(),
    REPLICATE: RecoveryArm(batches=1_000),
    **{arm: RecoveryArm(where) for arm, where in (DAMAGED | ELSEWHERE).items()},
}
GENTLER = {"wd 0.1": {"weight_decay": 0.1}, "clip 1.0": {"clip": 1.0}}
COMPARED = (UNDAMAGED, "n = 4")  # in a gentler regime
#: By folder, arms and what is changed in how they are trained.
BRANCHES: dict[str, Any] = {"published": (ARMS, {}), "kept": ({KEPT: RecoveryArm()}, {})} | {
    name: ({f"{name}, {arm}": ARMS[arm] for arm in COMPARED}, change)
    for name, change in GENTLER.items()
}
PAIRS: dict[str, tuple[Any, Any]] = {
    "n = 0 against n > 0": (WHOLE, HURT),
    "n = 1 against n = 4": (["n = 1"], ["n = 4"]),
    "n = 0 against itself, other batches": ([UNDAMAGED], [REPLICATE]),
    "kept against fresh optimizer": ([KEPT], WHOLE),
}
Results = dict[str, Any]  # by arm what train_recoveries found, every number a list over the seeds
#: Means of final accuracy over the four published seeds; those of n = 0 one by one.
PUBLISHED = {"n = 0": 0.314, "n = 1": 0.495, "n = 2": 0.147, "n = 3": 0.361, "n = 4": 0.135}


@dataclass(frozen=True)
class Config:
    """The published network and regime on a smaller task."""

    seeds: tuple[int, ...] = (42, 43, 44, 45)
    modulus: int = 31  # published: 113
    fraction: float = 0.7  # of all pairs, in training; published: 0.5
    width: int = 32  # of the residual stream, four heads; published: 128
    lr: float = 2e-3  # published: 1e-3
    weight_decay: float = 1.0  # as published
    batch: int = 64  # published: 128
    most_steps: int = 4_000  # to grow to 99 %
    steps: int = 1_200  # after that; published: 20,000
    log_every: int = 50  # steps; published: 100

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls((42, 43, 44, 45), 113, 0.5, 128, 1e-3, 1.0, 128, 20_000, 20_000, 100)


def units(config: Config) -> list[int]:
    return list(config.seeds)


def run_unit(config: Config, seed: int, run_dir: Path, position: int) -> None:
    """Grow a network, then train every arm on from it."""
    run = RunDir(run_dir / f"seed{seed}")
    if (run.path / "readings.json").exists():
        return
    task = ModularTask("separate", config.modulus, config.fraction)
    width = config.width
    sizes = {"d_model": width, "d_head": width // HEADS, "d_mlp": 4 * width, **task.config}
    model = pk.load("modular-deep-2", seed=seed, n_layers=3, **sizes)
    grown, stack = RunDir(run.path / "grown"), Stack([model])
    how = Optimisation(
        config.most_steps, config.batch, config.lr, config.weight_decay, None, config.log_every
    )
    where: dict[str, Any] = {"title": f"growing, seed {seed}", "position": position}
    reached = fit_until(grown, stack, task, how, [seed], lambda log: log[-1] >= REACHED, **where)
    stack.copy_to(0, model)
    found: dict[str, Any] = {}
    for name, (arms, change) in BRANCHES.items():
        own, where["title"] = RunDir(run.path / name), f"{name}, seed {seed}"
        goes_on = replace(how, steps=config.steps, **change)
        state = grown if name == "kept" else None
        found |= train_recoveries(own, model, task, goes_on, arms, seed, grown=state, **where)
    run.write_json("readings.json", {"reached": reached[0], **found})


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's folder; ``clock`` is lr * wd."""
    found = [RunDir(run_dir / f"seed{s}").read_json("readings.json") for s in config.seeds]
    runs, clock = gather(found), config.lr * config.weight_decay
    return {"reached": runs.pop("reached"), "runs": runs, "clock": clock}


def beyond_chance(found: list[float], chance: list[float]) -> list[float]:
    """Differences, 0 where shuffled labels give as much."""
    return [0.0 if abs(one) <= most else one for one, most in zip(found, chance, strict=True)]


def kind_claim(kind: str, published: float, tolerance: float) -> Claim:
    return Claim(
        f"002-X1.{kind}",
        WRITE_UP + ".3",
        f"{round(18 * published)} of 18 damaged runs are {kind}",
        published=published,
        tolerance=tolerance,
        measure=lambda results: share_of_kind(results["runs"], HURT, kind),
        null=lambda results: share_of_kind(results["runs"], WHOLE, kind),
        control="the same without damage",
    )


def dominance_claim(what: str, published: float) -> Claim:
    return Claim(
        f"002-X1.{what.replace(' ', '-')}",
        WRITE_UP + ".4",
        f"{what} of heads is higher by {published} where damaged runs recover (0: not significant)",
        published=published,
        tolerance=published / 2,
        measure=lambda results: beyond_chance(*recovered_difference(results["runs"], HURT, what)),
        null=lambda results: recovered_difference(results["runs"], HURT, what)[1],
        control="the difference that one in twenty shuffles of the runs exceeds",
    )


def gentler_claim(name: str) -> Claim:
    gentler = [f"{name}, {arm}" for arm in COMPARED]
    return Claim(
        f"002-X1.{name.replace(' ', '-')}",
        PREDICTION,
        f"with {name} no run drops, damaged or not (share of n = 0 and n = 4 that is stable)",
        published=1.0,
        tolerance=0.0,
        measure=lambda results: share_of_kind(results["runs"], gentler, "stable"),
        null=lambda results: share_of_kind(results["runs"], COMPARED, "stable"),
        control="the same arms in the published regime",
    )


CLAIMS = [
    Claim(
        "002-X1.partial",
        WRITE_UP + ".1",
        "one damaged head ends 85 points below four (13.9 and 99.4 %)",
        published=0.8545,
        tolerance=0.15,
        measure=lambda results: final_difference(results["runs"], "n = 4", "n = 1"),
        null=lambda results: final_difference(results["runs"], REPLICATE, UNDAMAGED),
        control="n = 0 on other batches less n = 0: two arms of one algorithm",
    ),
    Claim(
        "002-X1.ends",
        WRITE_UP + ".2",
        "damaged runs end at .135 to .495 (means over seeds of n = 1 to 4; here over n, by seed)",
        published=(0.135, 0.495),
        tolerance=0.05,
        measure=lambda results: mean_final(results["runs"], HURT),
        null=lambda results: results["runs"][UNDAMAGED]["final"],
        control="n = 0 (published: .789, .141, .114 and .211)",
    ),
    Claim(
        "002-X1.undamaged",
        WRITE_UP + ".2",
        "the undamaged runs end at .114 to .789",
        published=(0.114, 0.789),
        tolerance=0.05,
        measure=lambda results: results["runs"][UNDAMAGED]["final"],
        null=lambda results: results["runs"][KEPT]["final"],
        control="the optimizer kept: trained straight on",
    ),
    kind_claim("stable", 0.0, 0.0),
    kind_claim("collapse-recover", 4 / 18, 0.2),
    kind_claim("irreversible", 13 / 18, 0.2),
    Claim(
        "002-X1.first-drop",
        WRITE_UP + ".3",
        "damaged runs first drop after 1,389 steps, give or take 744, at lr * wd = 1e-3 (in units "
        "of 1 / (lr * wd); median over n, by seed)",
        published=(0.645, 2.133),
        tolerance=0.0,
        measure=lambda results: median_first_drop(results["runs"], HURT, results["clock"]),
        null=lambda results: median_first_drop(results["runs"], WHOLE, results["clock"]),
        control="the same without damage",
    ),
    dominance_claim("gini", 0.078),
    dominance_claim("max share", 0.043),
    Claim(
        "002-X1.alike",
        PREDICTION,
        "damaged and undamaged runs end at .90 or more equally often (Fisher's p above .05)",
        published=(0.05, 1.0),
        tolerance=0.0,
        measure=lambda results: [ended_alike(results["runs"], HURT, WHOLE)],
        null=lambda results: [ended_alike(results["runs"], [UNDAMAGED], [REPLICATE])],
        control="two arms of one algorithm: n = 0, and n = 0 on other batches",
    ),
    Claim(
        "002-X1.first-step",
        PREDICTION,
        "without any damage the first step of the fresh optimizer costs .2 of accuracy or more",
        published=(0.2, 1.0),
        tolerance=0.0,
        measure=lambda results: first_step_loss(results["runs"], UNDAMAGED),
        null=lambda results: first_step_loss(results["runs"], KEPT),
        control="the same step with the optimizer kept",
    ),
    *map(gentler_claim, GENTLER),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    arms = results["runs"]
    tables: dict[str, Any] = {
        "steps to grow to 99 %": [
            dict(zip(map(str, config.seeds), results["reached"], strict=True))
        ],
        "final accuracy": ends_rows(arms, PUBLISHED),
        "exact tests": exact_rows(arms, PAIRS),
        "accuracy before and after the first step": first_step_rows(arms),
        "dominance in layer 1 at the end": dominance_rows(arms),
    }
    figures = {
        "recovery": (
            logs_figure(arms, config.seeds),
            "Held-out accuracy of every run. Damaged arms look like the undamaged.",
        ),
        "ends": (
            ends_figure(arms, PUBLISHED, HURT),
            "Where runs end, and how unequal the heads of damaged runs are there.",
        ),
    }
    title = "Recovery: damage, and runs without it"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


if __name__ == "__main__":
    probekit.recipes.main(__file__)
