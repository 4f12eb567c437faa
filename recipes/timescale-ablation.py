"""Does the second timescale set where attention entropy ends? The slow learning rate, swept.

The write-up trains the first block fast and the embeddings at a tenth of the rate, and plans to
vary that factor at a target of 0.65. Run as published (the terms have no gradient, unembedding and
final norm are in no optimizer) and corrected (live patterns, every parameter in an optimizer, the
answer not among the input tokens, rows normalised by the keys that they may see).

    probekit run timescale-ablation --preset quick --jobs 2      two seeds, 1,500 steps
    probekit run timescale-ablation --preset paper --jobs 2      three seeds, 10,000 steps

Expected: as published, a final VDI between 0.42 and 0.50 at every factor, as for the factor 0.1
that the write-up reports. What the corrected arm does is measured.

Source: "Homeostatic Crystallization in Transformers", planned timescale ablation.
"""

from dataclasses import dataclass
from pathlib import Path

import probekit.recipes
from probekit.claims import Claim, decide
from probekit.console import print_rows
from probekit.entropy import one_hot_last_row_vdi
from probekit.report import Report
from probekit.training import Condition, Homeostasis, Schedule
from probekit.training.experiment import (
    Experiment,
    Results,
    Unit,
    final_values,
    gradient_rows,
    slope_row,
)
from probekit.training.pictures import gradient_figure, trajectory_figure

NAME = "timescale-ablation"
WRITE_UP = "Homeostatic Crystallization, timescale ablation (planned)"
FACTORS = (0.01, 0.05, 0.1, 0.5)
TARGET = 0.65


@dataclass(frozen=True)
class Config(Schedule):
    """The published optimisation; the slow group's learning rate is swept."""

    seeds: tuple[int, ...] = (0, 1, 2)  # each trains both arms

    @classmethod
    def quick(cls) -> "Config":
        return cls(steps=1_500, seeds=(0, 1))

    @classmethod
    def paper(cls) -> "Config":
        return cls()


def condition(factor: float, corrected: bool) -> Condition:
    """One slow learning rate; the terms as published."""
    return Condition(
        f"{'corrected' if corrected else 'published'}-{factor:.2f}",
        Homeostasis(
            convergence=0.3,
            set_point=0.2,
            compensation=0.5,
            target=TARGET,
            attached=corrected,
            rows="visible" if corrected else "length",
        ),
        slow=factor,
        layout="leak-free" if corrected else "published",
        complete=corrected,
    )


EXPERIMENT = Experiment(
    {
        "published": [condition(factor, corrected=False) for factor in FACTORS],
        "corrected": [condition(factor, corrected=True) for factor in FACTORS],
    }
)
NAMES = {arm: [one.name for one in stack] for arm, stack in EXPERIMENT.stacks.items()}
TITLES = {name: name.replace("-", ", slow factor ") for names in NAMES.values() for name in names}


def units(config: Config) -> list[Unit]:
    return EXPERIMENT.units(config.seeds)


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    EXPERIMENT.run(unit, run_dir, config, position)


def collect(config: Config, run_dir: Path) -> Results:
    return EXPERIMENT.collect(config.seeds, run_dir)


CLAIMS = [
    Claim(
        "000-6 (timescales)",
        WRITE_UP,
        "VDI ends between 0.42 and 0.50 at every slow learning rate (means over seeds)",
        published=(0.42, 0.50),
        tolerance=0.0,
        measure=lambda results: list(final_values(results, NAMES["published"], "vdi").mean(0)),
        null=lambda results: [one_hot_last_row_vdi(6)],
        control="the last row attends to one token, the others uniformly: ln(5!)/(6 ln 6)",
    ),
]


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Draw the figures, print the gradient check and the slopes, write ``report.html``."""
    arms = [
        slope_row("published", FACTORS, results, NAMES["published"], "vdi"),
        slope_row("corrected", FACTORS, results, NAMES["corrected"], "vdi_visible"),
    ]
    gradients = gradient_rows(results, TITLES)
    print_rows("gradient check: the largest norm of each loss term's gradient", gradients)
    print_rows("does the slow learning rate move final VDI?", arms)
    report = Report("Does the second timescale set where attention entropy ends?")
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
