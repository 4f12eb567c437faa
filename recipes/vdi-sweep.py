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
follows its target is measured, with its interval and a classification by rules. With `paper` it is
"unstable": attention sits at its target while the network has learned nothing, and leaves it for
uniform attention in those runs that begin to learn.

Time on two cores: quick 6 minutes, paper 22 (on a busy machine).

Source: "Homeostatic Crystallization in Transformers", section 5 and the geometry section of its
revision.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import probekit.recipes
from probekit.claims import Claim
from probekit.entropy import one_hot_last_row_vdi, uniform_causal_vdi
from probekit.experiment_report import present_experiment
from probekit.training import target_slope, two_arms
from probekit.training.experiment import (
    Experiment,
    ExperimentConfig,
    Results,
    by_arm,
    final_values,
    target_row,
    without_gradient,
)
from probekit.training.pictures import target_figure

NAME = "vdi-sweep"
LENGTH = 6
WRITE_UP = "Homeostatic Crystallization, VDI target sweep"
TARGETS = (0.45, 0.50, 0.55, 0.60, 0.65)
#: As published; compensation was never computed, and needs a second layer.
WEIGHTS = {"compensation": 0.5, "convergence": 0.3, "set_point": 0.2}


@dataclass(frozen=True)
class Config(ExperimentConfig):
    """The published optimisation; the slow group has a tenth of the learning rate."""

    @classmethod
    def quick(cls) -> "Config":
        return cls(steps=2_500)


EXPERIMENT = Experiment(
    [
        two_arms("none"),
        *(two_arms(f"target-{target:.2f}", **WEIGHTS, target=target) for target in TARGETS),
    ]
)
units, run_unit, collect = EXPERIMENT.units, EXPERIMENT.run_unit, EXPERIMENT.collect


def swept(arm: str) -> list[str]:
    """The conditions of the targets, without the control."""
    return EXPERIMENT.names(arm)[1:]


def published_finals(results: Results) -> np.ndarray:
    return final_values(results, swept("published"), "published")


CLAIMS = [
    Claim(
        "000-6",
        WRITE_UP,
        "under two timescales VDI ends at one value, whatever the target (mean of the targets)",
        published=(0.42, 0.50),
        tolerance=0.0,
        measure=lambda results: list(published_finals(results).mean(1)),
        null=lambda results: [one_hot_last_row_vdi(LENGTH)],
        control="the last row attends to one token, the others uniformly: ln(5!)/(6 ln 6)",
    ),
    Claim(
        "000-7",
        WRITE_UP,
        "final VDI does not follow its target (slope of final VDI on target)",
        published=0.0,
        tolerance=0.15,
        measure=lambda results: list(target_slope(TARGETS, published_finals(results)).per_seed),
        null=lambda results: [0.0 if without_gradient(results, swept("published")) else math.nan],
        control="slope 0, if no set-point or convergence term had a gradient at any checkpoint",
    ),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the outcomes and the gradient check, draw the figures, write ``report.html``."""
    uniform = {"published": uniform_causal_vdi(LENGTH), "corrected": 1.0}
    panels = {
        arm: (final_values(results, swept(arm), arm), reading) for arm, reading in uniform.items()
    }
    outcomes = [
        target_row(arm, TARGETS, results, swept(arm), EXPERIMENT.names(arm)[0]) for arm in uniform
    ]
    caption = "Final VDI against its target, with the identity; each arm as its loss normalises."
    present_experiment(
        "Setting attention entropy to a target",
        __doc__ or "",
        CLAIMS,
        EXPERIMENT,
        results,
        run_dir,
        tables={"does final VDI follow its target?": by_arm(outcomes)},
        figures={
            "targets": (
                target_figure(TARGETS, panels, "target VDI", TARGETS, config.seeds),
                caption,
            )
        },
    )


if __name__ == "__main__":
    probekit.recipes.main(__file__)
