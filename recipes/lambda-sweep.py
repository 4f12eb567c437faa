"""Does a stronger controller bring attention entropy to its target? The weight of the set-point.

The write-up reports that no weight of its set-point loss moves VDI (normalised attention entropy)
to a target of 0.65, and reads a ceiling. As published that loss has no gradient, so that its
weight cannot matter; here the same weights run as published, and again corrected (live patterns,
every parameter in an optimizer, the answer not among the input tokens, rows normalised by the keys
that they may see).

    probekit run lambda-sweep --preset quick --jobs 2      two seeds, 1,500 steps
    probekit run lambda-sweep --preset paper --jobs 2      three seeds, 10,000 steps

Expected: as published, one final VDI for all weights, between 0.42 and 0.50. Whether a larger
weight brings the corrected arm closer to its target is measured.

Source: "Homeostatic Crystallization in Transformers", controller strength at target 0.65.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import probekit.recipes
from probekit.claims import Claim, decide
from probekit.console import print_rows
from probekit.report import Report
from probekit.training import Condition, Homeostasis, Schedule, target_slope
from probekit.training.experiment import (
    Experiment,
    Results,
    Unit,
    final_values,
    gradient_rows,
    slope_row,
    without_gradient,
)
from probekit.training.pictures import gradient_figure, trajectory_figure

NAME = "lambda-sweep"
WRITE_UP = "Homeostatic Crystallization, controller strength"
WEIGHTS = (0.1, 0.2, 0.5, 1.0)
TARGET = 0.65


@dataclass(frozen=True)
class Config(Schedule):
    """The published optimisation; the slow group has a tenth of the learning rate."""

    seeds: tuple[int, ...] = (0, 1, 2)  # each trains both arms

    @classmethod
    def quick(cls) -> "Config":
        return cls(steps=1_500, seeds=(0, 1))

    @classmethod
    def paper(cls) -> "Config":
        return cls()


def condition(weight: float, corrected: bool) -> Condition:
    """One weight of the set-point; the other terms as published."""
    return Condition(
        f"{'corrected' if corrected else 'published'}-{weight:.1f}",
        Homeostasis(
            convergence=0.3,
            set_point=weight,
            compensation=0.5,
            target=TARGET,
            attached=corrected,
            rows="visible" if corrected else "length",
        ),
        layout="leak-free" if corrected else "published",
        complete=corrected,
    )


EXPERIMENT = Experiment(
    {
        "published": [condition(weight, corrected=False) for weight in WEIGHTS],
        "corrected": [condition(weight, corrected=True) for weight in WEIGHTS],
    }
)
NAMES = {arm: [one.name for one in stack] for arm, stack in EXPERIMENT.stacks.items()}
TITLES = {name: name.replace("-", ", weight ") for names in NAMES.values() for name in names}


def units(config: Config) -> list[Unit]:
    return EXPERIMENT.units(config.seeds)


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    EXPERIMENT.run(unit, run_dir, config, position)


def collect(config: Config, run_dir: Path) -> Results:
    return EXPERIMENT.collect(config.seeds, run_dir)


CLAIMS = [
    Claim(
        "000-7 (controller strength)",
        WRITE_UP,
        "a larger weight of the set-point does not move VDI (slope of final VDI on the weight)",
        published=0.0,
        tolerance=0.15,
        measure=lambda results: [
            target_slope(WEIGHTS, final_values(results, NAMES["published"], "vdi")).mean
        ],
        null=lambda results: [0.0 if without_gradient(results, NAMES["published"]) else math.nan],
        control="slope 0, if no set-point or convergence term had a gradient at any checkpoint",
    ),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Draw the figures, print the gradient check and the slopes, write ``report.html``."""
    arms = [
        slope_row("published", WEIGHTS, results, NAMES["published"], "vdi"),
        slope_row("corrected", WEIGHTS, results, NAMES["corrected"], "vdi_visible"),
    ]
    gradients = gradient_rows(results, TITLES)
    print_rows("gradient check: the largest norm of each loss term's gradient", gradients)
    print_rows(f"does a larger weight bring final VDI to {TARGET}?", arms)
    report = Report("How strong must a controller of attention entropy be?")
    report.text(__doc__ or "").table([decide(claim, results) for claim in CLAIMS])
    report.table(arms).table(gradients)
    figures = {
        arm: (
            trajectory_figure({name: results[name] for name in names}, TITLES, key),
            f"{arm.capitalize()}: VDI per head over training, seeds by colour.",
        )
        for (arm, names), key in zip(NAMES.items(), ("vdi", "vdi_visible"), strict=True)
    }
    figures["gradients"] = (
        gradient_figure(results, TITLES),
        "Largest gradient norm of each loss term: 0 where the patterns were detached.",
    )
    report.figures(figures, run_dir)
    report.save(run_dir / "report.html")


if __name__ == "__main__":
    probekit.recipes.main(__file__)
