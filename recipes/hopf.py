"""Does a relaxed block oscillate by a Hopf bifurcation, or does its Euler map? A diagnosis.

The dossier saw residuals that do not settle and argued for a Hopf bifurcation: weaker attention
ends them (the W_O knockout), and the Jacobian has complex eigenvalues. Here five kinds of systems
are planted, with eigenvalues in closed form, and the tools are tried on them. What decides is a
sweep of steps over one physical time, beside the spectrum at the true fixed point, which a causal
mask makes exact and cheap: J is block-triangular over positions. What does not decide: the
knockout, which ends a Hopf cycle and an Euler artefact alike; J at the last state of a relaxation;
the numerical abscissa; rho, whose value of about 1.4 is that of a random matrix.

    probekit run hopf --preset quick      five regimes, 100 random systems, three random blocks
    probekit run hopf --preset paper      ten seeds, larger blocks

Measured, paper: closed form to 2e-15; five of five regimes on every seed and 994 of 1,000 random
systems, where the spectrum at z_T names 419; exact zeros above the diagonal, eigenvalues by blocks
within 3e-4 (1e-8 to 1e-4 on most seeds: they are ill-conditioned). Rescaled leads are equal to 3e-5
to 3e-4 for c = 0, 1, 3, not to 1e-4 (D2): the norms' epsilon of 1e-5 is not rescaled, and with one
of 1e-12 they agree to 4e-11. Weaker attention ends Hopf cycles and Euler artefacts alike, on every
seed. r_str is rho / 2 to 0.4 % (of 64 random vectors; of the dossier's 8 to 1.6 %), rho 1.395 to
1.430 about the null of sqrt(2), on four seeds beyond the dossier's 1.37 to 1.42 (D9.rho). At
random weights the abscissa lies 1.0 to 1.6 right of the rightmost eigenvalue, not more than 3 (D8;
trained blocks are in ep-training). Turned up to 8, W_O of random blocks crosses on four seeds of
ten (two Hopf bifurcations, a real branch point, an Euler instability), W_2 on six, where three more
lose the branch, and the qk gain on three and four.

Time on two cores: quick 2 minutes with --jobs 2, paper 3:30.

Source: the dossier "EP below-CE-2.1 divergence", D1 to D9. D6 there sets a planted
Hopf cycle beside a trained Euler artefact; here both are planted.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.dynamics.answers import first_crossing, hopf_answers, knockout_ends
from probekit.dynamics.hopf_study import (
    knob_scan,
    knockout_reading,
    planted_readings,
    regime_reading,
    structure_reading,
)
from probekit.dynamics.pictures import (
    animate_eigenvalues,
    eigenvalue_figure,
    phase_figure,
    sweep_figure,
    trace_figure,
)
from probekit.dynamics.rotor import REGIMES, as_in_the_dossier
from probekit.recipe_report import present_results
from probekit.runs import RunDir

NAME = "hopf"
DOSSIER = "EP below-CE-2.1 divergence"
OSCILLATING = ("continuous Hopf", "Euler instability")
Unit = tuple[str, int]  # what is measured, and a seed
Results = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Planted systems of one width, random blocks of another."""

    seeds: tuple[int, ...] = (0, 1, 2)
    rotor_width: int = 32
    rotor_length: int = 4
    time: float = 40.0  # physical, of each relaxation
    orbit_steps: int = 150  # of the Lyapunov exponent
    planted: int = 100  # random planted systems, all of one seed
    planted_width: int = 8
    d_model: int = 64  # of the blocks with random weights
    length: int = 8
    knobs: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0, 8.0)
    alphas: tuple[float, ...] = (1.0, 0.7, 0.4, 0.2, 0.0)
    dampings: tuple[float, ...] = (0.0, 1.0, 3.0)

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        knobs = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
        return cls(seeds=tuple(range(10)), length=16, time=80.0, knobs=knobs, planted=1_000)


def units(config: Config) -> list[Unit]:
    """The longest first; the random planted systems need one seed only."""
    return [("planted", config.seeds[0])] + [
        (what, seed) for what in ("regimes", "knobs", "knockout", "structure")
        for seed in config.seeds
    ]  # fmt: skip


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Measure one thing with one seed."""
    what, seed = unit
    run = RunDir(run_dir / f"seed{seed}" / what)
    if not (run.path / "readings.json").exists():
        run.write_json("readings.json", MEASURES[what](config, seed))


def regimes(config: Config, seed: int) -> Any:
    sizes = (config.rotor_width, config.rotor_length)
    return {
        label: regime_reading(label, *sizes, config.time, config.orbit_steps, seed)
        for label in REGIMES
    }


def planted(config: Config, seed: int) -> Any:
    return planted_readings(config.planted, config.planted_width, config.time, seed)


def knockout(config: Config, seed: int) -> Any:
    sizes = (config.rotor_width, config.rotor_length)
    return {
        label: knockout_reading(label, config.alphas, *sizes, round(config.time / 0.1), seed)
        for label in OSCILLATING
    }


def random_block(config: Config, seed: int) -> tuple[Any, torch.Tensor]:
    """A block with random weights, and its input."""
    model = pk.load("equilibrium", seed=seed, dtype=torch.float64, d_model=config.d_model,
                    d_head=config.d_model // 4, d_mlp=4 * config.d_model)  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    return as_in_the_dossier(model), torch.randn(
        1, config.length, config.d_model, generator=generator
    ).double()


def knobs(config: Config, seed: int) -> Any:
    return knob_scan(*random_block(config, seed), config.knobs)


def structure(config: Config, seed: int) -> Any:
    return structure_reading(*random_block(config, seed), config.dampings)


MEASURES = {
    "planted": planted,
    "regimes": regimes,
    "knobs": knobs,
    "knockout": knockout,
    "structure": structure,
}


def collect(config: Config, run_dir: Path) -> Results:
    """Every unit's readings: a list over seeds, by regime where there are regimes."""
    found: Results = {name: [] for name in MEASURES}
    for what, seed in units(config):
        found[what].append(RunDir(run_dir / f"seed{seed}" / what).read_json("readings.json"))
    for what, labels in (("regimes", REGIMES), ("knockout", OSCILLATING)):
        found[what] = {label: [each[label] for each in found[what]] for label in labels}
    return found


def over_seeds(results: Results, key: str) -> list[float]:
    """A reading of the random blocks."""
    return [each[key] for each in results["structure"]]


def worst(results: Results, key: str) -> list[float]:
    """The largest of the five planted regimes, a seed each."""
    return [max(values) for values in zip(*_planted(results, key), strict=True)]


def right(results: Results, key: str) -> list[float]:
    """How many of the five are named as planted, a seed each."""
    labels = list(results["regimes"])
    named = zip(*_planted(results, key), strict=True)
    return [float(sum(a == b for a, b in zip(seed, labels, strict=True))) for seed in named]


def _planted(results: Results, key: str) -> list[list[Any]]:
    return [[each[key] for each in readings] for readings in results["regimes"].values()]


def share(results: Results, key: str) -> list[float]:
    """The share of the random planted systems that is named as planted."""
    found = results["planted"][0]
    return [sum(each[key] == each["label"] for each in found) / len(found)]


def least_floor(results: Results, label: str, ends: bool = True) -> list[float]:
    """The least floor over alpha < 1 (or the one at alpha = 1), a seed each."""
    return [
        min(row["floor"] for alpha, row in scan.items() if (float(alpha) < 1) == ends)
        for scan in results["knockout"][label]
    ]


def misled(results: Results, key: str) -> list[float]:
    """|lambda| - 1 of the Euler instability's map, from J at one of two states."""
    return [each[f"multiplier at {key}"] - 1 for each in results["regimes"]["Euler instability"]]


def claim(
    identity: str, statement: str, published: Any, tolerance: float, measure: Any, null: Any,
    control: str,
) -> Claim:  # fmt: skip
    return Claim(
        f"001-{identity}", DOSSIER, statement, published, tolerance, measure, null, control
    )


CLAIMS = [
    claim("D1.upper", "no Jacobian entry above the diagonal blocks (largest)", 0.0, 0.0,
          lambda r: over_seeds(r, "upper blocks"), lambda r: over_seeds(r, "lower blocks"),
          "the same below them"),
    claim("D1.eig", "the blocks' eigenvalues are those of the whole (largest distance)", 0.0, 1e-3,
          lambda r: over_seeds(r, "eigenvalue distance"), lambda r: None, "none"),
    claim("D2", "damping rescales time: relative spread of Re mu / (1 + c)", 0.0, 1e-4,
          lambda r: over_seeds(r, "scaled spread"), lambda r: over_seeds(r, "raw spread"),
          "the spread of Re mu itself"),
    claim("D3", "closed-form eigenvalue at token 0: largest relative error", 0.0, 0.01,
          lambda r: worst(r, "closed form error"), lambda r: worst(r, "bare leak error"),
          "the leak alone, -(1 + c)"),
    claim("D4", "the diagnosis names the five planted regimes", 5.0, 0.0,
          lambda r: right(r, "regime"), lambda r: right(r, "regime at z_T"),
          "the spectrum at z_T alone"),
    claim("D4.random", "and at least 95 of 100 random planted systems", (0.95, 1.0), 0.0,
          lambda r: share(r, "regime"), lambda r: share(r, "at z_T"),
          "the spectrum at z_T alone"),
    claim("D5", "some alpha < 1 restores convergence of a Hopf cycle: floor of r", (0.0, 1e-8), 0.0,
          lambda r: least_floor(r, "continuous Hopf"),
          lambda r: least_floor(r, "continuous Hopf", ends=False), "alpha = 1"),
    claim("D6", "it restores that of an Euler artefact too, so that it is not specific: floor",
          (0.0, 1e-8), 0.0, lambda r: least_floor(r, "Euler instability"),
          lambda r: least_floor(r, "Euler instability", ends=False), "alpha = 1"),
    claim("D7.z*", "the map is unstable at z* of an Euler artefact: max |lambda| - 1 (0.235 there)",
          (1e-6, 1.0), 0.0, lambda r: misled(r, "z*"), lambda r: misled(r, "z_T"),
          "the same at z_T"),
    claim("D7.z_T", "and looks stable at z_T: max |lambda| - 1 (-0.068 there)", (-1.0, -1e-6), 0.0,
          lambda r: misled(r, "z_T"), lambda r: misled(r, "z*"), "the same at z*"),
    claim("D8", "the numerical abscissa lies more than 3 right of the rightmost eigenvalue",
          (3.0, 100.0), 0.0, lambda r: over_seeds(r, "abscissa less lead"),
          lambda r: over_seeds(r, "blocks' abscissa less lead"), "that of the diagonal blocks"),
    claim("D9", "r_str is rho / 2: their ratio, estimated apart", 1.0, 0.01,
          lambda r: over_seeds(r, "2 r_str / rho"), lambda r: None, "none: an identity"),
    claim("D9.rho", "rho of about 1.4 (the dossier's) is the unstructured null", (1.37, 1.42), 0.0,
          lambda r: over_seeds(r, "rho"), lambda r: [pk.dynamics.UNSTRUCTURED_RHO],
          "independent entries, sqrt(2)"),
]  # fmt: skip


def furthest_scan(knobs: list[dict[str, list[Any]]]) -> tuple[list[Any], str]:
    """The scan with the largest multiplier of all, and its name."""
    found = [
        (max(abs(1 + 0.1 * complex(*row["fast"])) for row in rows if row["converged"]), seed, knob)
        for seed, scans in enumerate(knobs)
        for knob, rows in scans.items()
    ]
    _, seed, knob = max(found)
    return knobs[seed][knob], f"{knob} (system {seed})"


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    first = {label: readings[0] for label, readings in results["regimes"].items()}
    names = ("regime", "observed", "predicted", "regime at z_T", "margin", "exponent",
             "multiplier at z*", "multiplier at z_T")  # fmt: skip
    sweeps = {label: each["evidence"] for label, each in first.items()}
    tables: dict[str, Any] = {
        "planted regimes, first seed": [
            {"planted": label, **{name: each[name] for name in names}}
            for label, each in first.items()
        ],
        "sweep of steps, first seed": [
            {"planted": label, **row} for label, rows in sweeps.items() for row in rows
        ],
        "knockout, first seed": [
            {"planted": label, "alpha": alpha, **row}
            for label, scans in results["knockout"].items()
            for alpha, row in scans[0].items()
        ],
        "does some alpha < 1 end it?": [
            {"planted": label, "seeds": len(scans), "ended": sum(map(knockout_ends, scans))}
            for label, scans in results["knockout"].items()
        ],
        "knobs of random blocks: the first that is not stable": [
            {"seed": seed, **{knob: first_crossing(rows) for knob, rows in scans.items()}}
            for seed, scans in zip(config.seeds, results["knobs"], strict=True)
        ],
        "answers": hopf_answers(results),
    }
    scans = results["knobs"][0]
    moved, title = furthest_scan(results["knobs"])
    animate_eigenvalues(moved, 0.1, title, run_dir / "eigenvalues.gif")
    figures = {
        "traces": (trace_figure({k: e["trace"] for k, e in first.items()}), "Residuals by step."),
        "sweep": (sweep_figure(sweeps), "A cycle of the flow does not mind the step."),
        "phase": (phase_figure({k: e["phase"] for k, e in first.items()}), "The last 120 steps."),
        "eigenvalues": (
            eigenvalue_figure(scans, 0.1),
            "At z*, light to dark as the knob is turned up; inside the circle the map is stable, "
            "left of the dotted line the flow. eigenvalues.gif moves the knob that gets furthest.",
        ),
    }
    title = "Hopf bifurcation or Euler artefact"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


if __name__ == "__main__":
    probekit.recipes.main(__file__)
