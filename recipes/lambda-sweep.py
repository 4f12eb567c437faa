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

Time on two cores: paper 18 minutes (on a busy machine), quick about 2.

Source: "Homeostatic Crystallization in Transformers", controller strength at target 0.65.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import probekit.recipes
from probekit.claims import Claim
from probekit.entropy import uniform_causal_vdi
from probekit.experiment_report import present_experiment
from probekit.training import t_interval, target_slope, two_arms
from probekit.training.experiment import (
    ARMS,
    Experiment,
    ExperimentConfig,
    Results,
    by_arm,
    final_values,
    slope_row,
    without_gradient,
)
from probekit.training.pictures import target_figure

NAME = "lambda-sweep"
LENGTH = 6
WRITE_UP = "Homeostatic Crystallization, controller strength"
WEIGHTS = (0.1, 0.2, 0.5, 1.0)
TARGET = 0.65


@dataclass(frozen=True)
class Config(ExperimentConfig):
    """The published optimisation; the slow group has a tenth of the learning rate."""

    @classmethod
    def quick(cls) -> "Config":
        return cls(steps=1_500, seeds=(0, 1))


#: The other terms as published.
EXPERIMENT = Experiment(
    [
        two_arms(
            f"weight-{weight:.1f}",
            compensation=0.5,
            convergence=0.3,
            set_point=weight,
            target=TARGET,
        )
        for weight in WEIGHTS
    ]
)
units, run_unit, collect = EXPERIMENT.units, EXPERIMENT.run_unit, EXPERIMENT.collect


def published_slopes(results: Results) -> list[float]:
    finals = final_values(results, EXPERIMENT.names("published"), "published")
    return list(target_slope(WEIGHTS, finals).per_seed)


def slope_without_gradient(results: Results) -> list[float]:
    return [0.0 if without_gradient(results, EXPERIMENT.names("published")) else math.nan]


CLAIMS = [
    Claim(
        "000-7 (controller strength)",
        WRITE_UP,
        "a larger weight of the set-point does not move VDI (slope of final VDI on the weight)",
        published=0.0,
        tolerance=0.15,
        measure=published_slopes,
        null=slope_without_gradient,
        control="slope 0, if no set-point or convergence term had a gradient at any checkpoint",
    ),
]


def distances(results: Results, arm: str) -> dict[str, str]:
    """How far from the target each weight ends: mean over seeds, and the 95 % interval."""
    off = np.abs(final_values(results, EXPERIMENT.names(arm), arm) - TARGET)
    intervals = [t_interval(column) for column in off.T]
    return {
        f"|VDI - {TARGET}| at {weight}": f"{mean:.3f} ({low:.3f} to {high:.3f})"
        for weight, mean, (low, high) in zip(WEIGHTS, off.mean(0), intervals, strict=True)
    }


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the slopes and the gradient check, draw the figures, write ``report.html``."""
    uniform = {"published": uniform_causal_vdi(LENGTH), "corrected": 1.0}
    panels = {
        arm: (final_values(results, EXPERIMENT.names(arm), arm), reading)
        for arm, reading in uniform.items()
    }
    weights = target_figure(
        WEIGHTS, panels, "weight of the set-point", [TARGET] * len(WEIGHTS), config.seeds
    )
    present_experiment(
        "How strong must a controller of attention entropy be?",
        __doc__ or "",
        CLAIMS,
        EXPERIMENT,
        results,
        run_dir,
        tables={
            "does the weight move final VDI?": by_arm(
                [slope_row(arm, WEIGHTS, results, EXPERIMENT.names(arm)) for arm in ARMS]
            ),
            f"does it bring it to {TARGET}?": by_arm(
                [{"arm": arm, **distances(results, arm)} for arm in ARMS]
            ),
        },
        figures={"weights": (weights, "Final VDI against the weight of the set-point.")},
    )


if __name__ == "__main__":
    probekit.recipes.main(__file__)
