"""Is there an expressivity bound? Loss against gain, asymmetry and the distance from instability.

The dossier asks whether a relaxed block must be asymmetric to be expressive, and hence must come
near a Hopf bifurcation (Q3). Under a causal mask eigenvalues see only each token's own block of
the Jacobian, so that the asymmetry between tokens costs no stability. Here the value-output map is
held at an asymmetry r and a gain through training, ``W_V W_O = gamma (sqrt(1 - r^2) S / |S| + r A
/ |A|)``, and validation loss is read against both, and against the spectrum at z*.

    probekit run expressivity --preset quick --jobs 2      three seeds, ten settings, 200 steps
    probekit run expressivity --preset paper --jobs 2      five seeds, 25 settings, 1,000 steps

Measured, quick: a symmetric value map costs 0.03, 0.04 and 0.07 nats against the best other
asymmetry, each at its own best gain, an antisymmetric one -0.04 to 0.07: less than the 0.1 nats
asked for before the run, of one sign in three seeds. Loss and -Re mu have a rank correlation of
-0.07 to 0.65, where 95 % of shuffles stay below 0.63 to 0.68: no trade-off is seen. A gain of 2
trains worse, and two runs of 27 end with an unstable flow at z*. Each asymmetry at its own best
gain, and the antisymmetric map beside it, came with a review after the run.

Time on two cores: quick 12 minutes; paper 5 hours (estimated).

Source: the dossier "EP below-CE-2.1 divergence", Q3 (no threshold in r_str and gamma was measured
there); the parameterisation is its Eq. 37 and 38, here on the values of attention.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.dynamics import AsymmetryProjection, EquilibriumTraining, Phases, fit_equilibrium
from probekit.dynamics.answers import expressivity_answers
from probekit.dynamics.normality import split
from probekit.dynamics.training_pictures import scan_figure
from probekit.dynamics.training_study import (
    log_readings,
    rank_correlation,
    run_folder,
    shuffled_correlation,
    spectral_readings,
)
from probekit.recipe_report import present_results
from probekit.training import LanguageTask, gather, interval_rows

NAME = "expressivity"
DOSSIER = "EP below-CE-2.1 divergence"
FREE = "free"
Unit = tuple[str, int]  # a setting and a seed
Results = dict[str, Any]  # setting -> reading -> values, one a seed


@dataclass(frozen=True)
class Config:
    """A scan of asymmetry and gain on the small system of section 6.4."""

    seeds: tuple[int, ...] = (0, 1, 2)
    asymmetries: tuple[float, ...] = (0.0, 0.7, 1.0)
    gains: tuple[float, ...] = (0.5, 1.0, 2.0)  # root mean square singular value
    steps: int = 200
    d_model: int = 48
    length: int = 24
    batch: int = 8
    lr: float = 3e-3
    held_out: int = 32

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        asymmetries = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
        return cls(
            seeds=(0, 1, 2, 3, 4), asymmetries=asymmetries, gains=(0.5, 1.0, 2.0, 4.0), steps=1_000
        )

    @property
    def task(self) -> LanguageTask:
        return LanguageTask(level="characters", length=self.length, held_out=self.held_out)

    @property
    def settings(self) -> dict[str, AsymmetryProjection | None]:
        """By name; ``free`` projects nothing."""
        scan = {
            f"r {r:g}, gain {gain:g}": AsymmetryProjection(r, gain)
            for gain in self.gains
            for r in self.asymmetries
        }
        return {FREE: None, **scan}

    def load(self, seed: int) -> pk.EquilibriumModel:
        sizes = {"d_model": self.d_model, "d_head": self.d_model // 4, "d_mlp": 4 * self.d_model}
        return pk.load("equilibrium", seed=seed, **sizes, **self.task.config)


def units(config: Config) -> list[Unit]:
    return [(setting, seed) for setting in config.settings for seed in config.seeds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train one setting of one seed, then read its spectrum; goes on from its last checkpoint."""
    setting, seed = unit
    projection = config.settings[setting]
    run, model = run_folder(run_dir, setting, seed), config.load(seed)
    phases = Phases(free=60)
    training = EquilibriumTraining(config.steps, config.batch, config.lr, phases=phases)
    stabilisers = () if projection is None else (projection,)
    title = f"{setting}, seed {seed}"
    fit_equilibrium(
        run, model, config.task, training, stabilisers, seed, title=title, position=position
    )
    if not (run.path / "readings.json").exists():
        model = model.double()
        block = model.blocks[0].attn
        _, r, _ = split((block.o.weight @ block.v.weight).detach())
        found = {"loss": log_readings(run.rows())["loss"], "r_str of V O": float(r)}
        run.write_json("readings.json", found | spectral_readings(model, config.task))


def collect(config: Config, run_dir: Path) -> Results:
    """Read every run's folder."""
    return {
        setting: gather(
            [run_folder(run_dir, setting, seed).read_json("readings.json") for seed in config.seeds]
        )
        for setting in config.settings
    }


def correlations(results: Results) -> list[float]:
    """Over the scan: the rank correlation of loss with -Re mu, a seed each."""
    return [rank_correlation(*_columns(results, seed)) for seed in _seeds(results)]


def shuffled(results: Results) -> list[float]:
    """What 95 % of shuffles stay below in absolute value, a seed each."""
    return [shuffled_correlation(*_columns(results, seed)) for seed in _seeds(results)]


def above_shuffles(results: Results, correlation: list[float]) -> list[float]:
    """A correlation of each seed less what 95 % of shuffles stay below."""
    return [r - s for r, s in zip(correlation, shuffled(results), strict=True)]


def _columns(results: Results, seed: int) -> tuple[list[float], list[float]]:
    rows = [readings for setting, readings in results.items() if setting != FREE]
    return [-row["lead"][seed] for row in rows], [row["loss"][seed] for row in rows]


def _seeds(results: Results) -> range:
    return range(len(results[FREE]["loss"]))


def cost(results: Results, asymmetry: str) -> list[float]:
    """Loss at an asymmetry less the least at any other, each at its own best gain; a seed each.

    Of "r 0": what a symmetric map costs. The least of several favours the others by chance, and so
    it does for any asymmetry: that of "r 1" is the null.
    """
    costs = []
    for seed in _seeds(results):
        best: dict[str, float] = {}
        for setting, row in results.items():
            if setting != FREE:
                r = setting.split(", ")[0]
                best[r] = min(best.get(r, math.inf), row["loss"][seed])
        costs.append(best[asymmetry] - min(loss for r, loss in best.items() if r != asymmetry))
    return costs


NEEDED = 0.1  # nats that a symmetric map has to cost
CLAIMS = [
    Claim("001-Q3.asymmetry", DOSSIER,
          "expressivity needs asymmetry: a symmetric value map costs more than 0.1 nats",
          (NEEDED, 10.0), 0.0, lambda r: cost(r, "r 0"), lambda r: cost(r, "r 1"),
          "what an antisymmetric map costs"),
    Claim("001-Q3.margin", DOSSIER,
          "the lower the loss the nearer to instability: rank correlation of loss with -Re mu, "
          "less what 95 % of shuffles stay below",
          (0.0, 1.0), 0.0, lambda r: above_shuffles(r, correlations(r)),
          lambda r: above_shuffles(r, [0.0 for _ in _seeds(r)]), "no correlation"),
]  # fmt: skip


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the table, draw the figure, write ``report.html``."""
    points = [
        {"asymmetry": projection.asymmetry, "gain": projection.gain, **_one(results[name], seed)}
        for name, projection in config.settings.items() if projection is not None
        for seed in _seeds(results)
    ]  # fmt: skip
    free = [_one(results[FREE], seed) for seed in _seeds(results)]
    tables: dict[str, Any] = {
        "settings": interval_rows(results, "setting"),
        "answers": expressivity_answers(
            cost(results, "r 0"), NEEDED, correlations(results), shuffled(results)
        ),
    }
    figures = {
        "scan": (
            scan_figure(points, free),
            "Left: loss by asymmetry, a color a gain, a dot a seed. Right: the same runs against "
            "how far the rightmost eigenvalue at z* lies from the imaginary axis.",
        )
    }
    title = "Expressivity against the margin to instability"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


def _one(row: dict[str, list[float]], seed: int) -> dict[str, float]:
    # The setting's own gain and asymmetry are not those that are measured on the whole block.
    return {key: values[seed] for key, values in row.items() if key != "gain"}


if __name__ == "__main__":
    probekit.recipes.main(__file__)
