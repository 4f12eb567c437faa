"""Does the second timescale set where attention entropy ends? The slow learning rate, swept.

The write-up trains the first block fast and the embeddings at a tenth of the rate, and plans to
vary that factor at a target of 0.65. Run as published (the terms have no gradient, unembedding and
final norm are in no optimizer) and corrected (live patterns, every parameter in an optimizer, the
answer not among the input tokens, rows normalised by the keys that they may see).

    probekit run timescale-ablation --preset quick --jobs 2      two seeds, 1,500 steps
    probekit run timescale-ablation --preset paper --jobs 2      three seeds, 10,000 steps

Expected: as published, a final VDI between 0.42 and 0.50 at the factors 0.05 and 0.1 that the
write-up reports; what other factors and the corrected arm do is measured. With `paper` the
published arm's VDI rises with the factor, from 0.42 at 0.01 to 0.60 at 0.5.

Time on two cores: paper 22 minutes (on a busy machine), quick about 3.

Source: "Homeostatic Crystallization in Transformers", planned timescale ablation.
"""

from dataclasses import dataclass
from pathlib import Path

import probekit.recipes
from probekit.claims import Claim
from probekit.entropy import one_hot_last_row_vdi, uniform_causal_vdi
from probekit.experiment_report import present_experiment
from probekit.training import two_arms
from probekit.training.experiment import (
    ARMS,
    Experiment,
    ExperimentConfig,
    Results,
    by_arm,
    final_values,
    slope_row,
)
from probekit.training.pictures import target_figure

NAME = "timescale-ablation"
LENGTH = 6
WRITE_UP = "Homeostatic Crystallization, timescale ablation (planned)"
FACTORS = (0.01, 0.05, 0.1, 0.5)
PUBLISHED = ("0.05", "0.10")
#: The terms as published.
LOSSES = {"compensation": 0.5, "convergence": 0.3, "set_point": 0.2, "target": 0.65}


@dataclass(frozen=True)
class Config(ExperimentConfig):
    """The published optimisation; the slow group's learning rate is swept."""

    @classmethod
    def quick(cls) -> "Config":
        return cls(steps=1_500, seeds=(0, 1))


EXPERIMENT = Experiment(
    [two_arms(f"slow-{factor:.2f}", slow=factor, **LOSSES) for factor in FACTORS]
)
units, run_unit, collect = EXPERIMENT.units, EXPERIMENT.run_unit, EXPERIMENT.collect


CLAIMS = [
    Claim(
        "000-6 (timescales)",
        WRITE_UP,
        "VDI ends between 0.42 and 0.50 at the published slow learning rates, 0.05 and 0.1",
        published=(0.42, 0.50),
        tolerance=0.0,
        measure=lambda results: list(
            final_values(results, ["published-slow-0.05", "published-slow-0.10"], "published").mean(
                1
            )
        ),
        null=lambda results: [one_hot_last_row_vdi(LENGTH)],
        control="the last row attends to one token, the others uniformly: ln(5!)/(6 ln 6)",
    ),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the slopes and the gradient check, draw the figures, write ``report.html``."""
    uniform = {"published": uniform_causal_vdi(LENGTH), "corrected": 1.0}
    panels = {
        arm: (final_values(results, EXPERIMENT.names(arm), arm), reading)
        for arm, reading in uniform.items()
    }
    target = LOSSES["target"]
    factors = target_figure(
        FACTORS, panels, "slow learning rate / fast", [target] * len(FACTORS), config.seeds
    )
    present_experiment(
        "Does the second timescale set where attention entropy ends?",
        __doc__ or "",
        CLAIMS,
        EXPERIMENT,
        results,
        run_dir,
        tables={
            "does the slow learning rate move final VDI?": by_arm(
                [slope_row(arm, FACTORS, results, EXPERIMENT.names(arm)) for arm in ARMS]
            )
        },
        figures={"factors": (factors, "Final VDI against the slow learning rate.")},
    )


if __name__ == "__main__":
    probekit.recipes.main(__file__)
