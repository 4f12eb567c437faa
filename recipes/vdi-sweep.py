"""Can attention entropy be set to a target? The published sweep, and the arm in which it acts.

The write-up trains with a set-point loss on VDI (normalised attention entropy) at five targets,
finds that the final value does not follow, and reads a "forced attractor" and a ceiling. In its
code the patterns were detached: the loss has no gradient. Here the sweep runs as published, and
again corrected: live patterns, every parameter in an optimizer, the answer not among the input
tokens, and each row normalised by the keys that it may see.

    probekit run vdi-sweep --preset quick --jobs 2      three seeds, 2,500 steps
    probekit run vdi-sweep --preset paper --jobs 2      three seeds, 10,000 steps

Expected: as published, gradient norms of convergence and set-point exactly 0, final VDI between
0.42 and 0.50, slope of final VDI on target below 0.15 in absolute value. Whether the corrected arm
follows its target is measured, with its interval and a classification by rules.

Time on two cores: quick 6 minutes.

Source: "Homeostatic Crystallization in Transformers", section 5 and the geometry section of its
revision.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import probekit.recipes
from probekit.claims import Claim, decide
from probekit.console import print_rows
from probekit.entropy import one_hot_last_row_vdi, uniform_causal_vdi
from probekit.report import Report
from probekit.training import Condition, Homeostasis, Schedule, target_slope
from probekit.training.experiment import (
    Experiment,
    Results,
    Unit,
    final_values,
    gradient_rows,
    target_row,
    without_gradient,
)
from probekit.training.pictures import gradient_figure, target_figure, trajectory_figure

NAME = "vdi-sweep"
LENGTH = 6
WRITE_UP = "Homeostatic Crystallization, VDI target sweep"
TARGETS = (0.45, 0.50, 0.55, 0.60, 0.65)


@dataclass(frozen=True)
class Config(Schedule):
    """The published optimisation; the slow group has a tenth of the learning rate."""

    seeds: tuple[int, ...] = (0, 1, 2)  # each trains both arms

    @classmethod
    def quick(cls) -> "Config":
        return cls(steps=2_500)

    @classmethod
    def paper(cls) -> "Config":
        return cls()


#: As published; compensation was never computed, and needs a second layer.
WEIGHTS = {"compensation": 0.5, "convergence": 0.3, "set_point": 0.2}
PUBLISHED = {target: f"published-{target:.2f}" for target in TARGETS}
CORRECTED = {target: f"corrected-{target:.2f}" for target in TARGETS}
EXPERIMENT = Experiment(
    {
        "published": [
            Condition("published-none"),
            *(Condition(name, Homeostasis(**WEIGHTS, target=t)) for t, name in PUBLISHED.items()),
        ],
        "corrected": [
            Condition(name, losses, layout="leak-free", complete=True)
            for name, losses in {
                "corrected-none": Homeostasis(attached=True, rows="visible"),
                **{
                    name: Homeostasis(**WEIGHTS, target=target, attached=True, rows="visible")
                    for target, name in CORRECTED.items()
                },
            }.items()
        ],
    }
)
NAMES = {"published": list(PUBLISHED.values()), "corrected": list(CORRECTED.values())}
TITLES = {
    condition.name: condition.name.replace("-", ", target ")
    for conditions in EXPERIMENT.stacks.values()
    for condition in conditions
}


def units(config: Config) -> list[Unit]:
    return EXPERIMENT.units(config.seeds)


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    EXPERIMENT.run(unit, run_dir, config, position)


def collect(config: Config, run_dir: Path) -> Results:
    return EXPERIMENT.collect(config.seeds, run_dir)


def published_finals(results: Results) -> list[float]:
    """The mean of all runs: one number, as the write-up's table of means."""
    return [float(final_values(results, NAMES["published"], "vdi").mean())]


def published_slope(results: Results) -> list[float]:
    finals = final_values(results, NAMES["published"], "vdi")
    return [target_slope(TARGETS, finals).mean]


CLAIMS = [
    Claim(
        "000-6",
        WRITE_UP,
        "under two timescales VDI ends at one value, whatever the target (mean of all runs)",
        published=(0.42, 0.50),
        tolerance=0.0,
        measure=published_finals,
        null=lambda results: [one_hot_last_row_vdi(LENGTH)],
        control="the last row attends to one token, the others uniformly: ln(5!)/(6 ln 6)",
    ),
    Claim(
        "000-7",
        WRITE_UP,
        "final VDI does not follow its target (slope of final VDI on target)",
        published=0.0,
        tolerance=0.15,
        measure=published_slope,
        null=lambda results: [0.0 if without_gradient(results, NAMES["published"]) else math.nan],
        control="slope 0, if no set-point or convergence term had a gradient at any checkpoint",
    ),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Draw the figures, print the gradient check and the outcomes, write ``report.html``."""
    arms = [
        target_row("published", TARGETS, results, NAMES["published"], "published-none", "vdi"),
        target_row(
            "corrected",
            TARGETS,
            results,
            NAMES["corrected"],
            "corrected-none",
            "vdi_visible",
        ),
    ]
    gradients = gradient_rows(results, TITLES)
    print_rows("gradient check: the largest norm of each loss term's gradient", gradients)
    print_rows("does final VDI follow its target?", arms)
    report = Report("Setting attention entropy to a target").text(__doc__ or "")
    report.table([decide(claim, results) for claim in CLAIMS])
    report.table(arms).table(gradients)
    panels = {
        "as published": (
            final_values(results, NAMES["published"], "vdi"),
            uniform_causal_vdi(LENGTH),
        ),
        "corrected": (final_values(results, NAMES["corrected"], "vdi_visible"), 1.0),
    }
    shown = [PUBLISHED[0.45], PUBLISHED[0.65], CORRECTED[0.45], CORRECTED[0.65]]
    figures = {
        "targets": (
            target_figure(TARGETS, panels, "target VDI"),
            "Final VDI against its target, with the identity; each arm as its loss normalises.",
        ),
        "published": (
            trajectory_figure(arm(results, "published"), TITLES),
            "As published: VDI per head over training, seeds by colour.",
        ),
        "corrected": (
            trajectory_figure(arm(results, "corrected"), TITLES, "vdi_visible"),
            "Corrected: VDI normalised by the keys that each row may see.",
        ),
        "gradients": (
            gradient_figure({name: results[name] for name in shown}, TITLES),
            "Largest gradient norm of each loss term: 0 where the patterns were detached.",
        ),
    }
    report.figures(figures, run_dir)
    report.save(run_dir / "report.html")


def arm(results: Results, prefix: str) -> Results:
    return {name: runs for name, runs in results.items() if name.startswith(prefix)}


if __name__ == "__main__":
    probekit.recipes.main(__file__)
