"""Do gates that read the shape of simplices help a model, or would constant gates do?

The terrain write-up scales three quarters of the residual coordinates by gates that read deformed
simplices, a regular template each, of order 1, 2 and 4: 38,552 parameters, "validity" by V^2 > 0,
training that stops where a CV of volumes leaves .21. But V^2 of points is never negative, two equal
features after a LayerNorm are 0, 8 Gaussian coordinates have a CV of .609, and gates below 1
rescale some coordinates against others whatever they read. Here

    readings          templates, gates on the model's own stream, the health check, parameters
    published SEED    trained as published (rates by group, clipping, host frozen) to turn
                      definitions into words, alpha from .01
    constant SEED     the same, gates that do not see the input
    room SEED         alpha from .3, near its ceiling, so that gates can matter
    room, constant    the same, gates that do not see the input

    probekit run field-modulator --preset quick --jobs 2      MiniLM is read, t5-wordnet trained
    probekit run field-modulator --preset paper --jobs 2      five seeds, batches of 32

Measured, quick: 38,552 parameters; on MiniLM 28,952, of which 23,680 reach the output. Published
templates have edges of .944 to 1.076. The gate of order 1 does not vary, those of order 2 and 4 by
.010 and .016. The check reads .77 in 8 dimensions of the embedding (Gaussian points .61). From .01
the word's NLL ends .008 nats below that without a modulator, with constant gates .007; before any
training it is .006 below. From .3 it ends .3 above, and gates that see the input are worth .005
and .010 by seed, where constant gates of two seeds are .017 apart.

Time on two cores: quick 2:26; paper 3 hours (estimated).

Source: "Geometric Terrain Analysis", section 12. It trains nothing there; task and schedule are
those of its section 9.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.pretrained import pretrained, tokenizer_of
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.terrain import field_pictures as draw
from probekit.terrain.field_study import (
    FACTORS,
    check_readings,
    gain,
    gate_readings,
    parameter_readings,
    published_field,
    template_readings,
)
from probekit.training import (
    DEFINITION,
    LemmaExamples,
    ModulatorTraining,
    definition_examples,
    fit_modulator,
    held_out_scores,
    interval_rows,
    masked_examples,
)
from probekit.training.modulator_study import draw_senses

NAME = "field-modulator"
WRITE_UP = "Geometric Terrain Analysis, field modulator"
CORRECTED = "the same, corrected"
ARMS: dict[str, dict[str, Any]] = {
    "published": {"gate": "simplex", "alpha": 0.01},
    "constant": {"gate": "constant", "alpha": 0.01},
    "room": {"gate": "simplex", "alpha": 0.3},
    "room, constant": {"gate": "constant", "alpha": 0.3},
}
Unit = tuple[str, int]  # "readings" or an arm, and a seed
Results = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Epochs of the published number of batches, each smaller."""

    seeds: tuple[int, ...] = (0, 1)  # of the modulator's initial values
    read: str = "minilm"  # an encoder's card, or card=folder
    host: str = "t5-wordnet"  # an encoder-decoder's
    examples: int = 2_112  # definitions; published (section 9): 9,362
    held_out: float = 0.5  # share of them; published: .1
    epochs: int = 2  # of 264 batches, as published; published: 10
    batch: int = 4  # published: 32
    shown: int = 64  # definitions on which gates are read

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls((0, 1, 2, 3, 4), examples=9_362, held_out=0.1, epochs=10, batch=32)


def units(config: Config) -> list[Unit]:
    """The longest first."""
    return [*((arm, seed) for seed in config.seeds for arm in ARMS), ("readings", 0)]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train an arm, or read what needs no training."""
    arm, seed = unit
    run = RunDir(run_dir / arm.replace(", ", "-") / f"seed{seed}")
    if (run.path / "readings.json").exists():
        return
    host = pretrained(config.host)
    training = ModulatorTraining(config.epochs, config.batch, held_out=config.held_out)
    examples = definitions(host, definition_examples, config.examples)
    if arm == "readings":
        held_out = examples.take(training.split(len(examples))[1])
        run.write_json("readings.json", read(config, held_out_scores(host, held_out, DEFINITION)))
        return
    field = published_field(host, seed=seed, **ARMS[arm])
    trace = fit_modulator(
        run,
        host,
        pk.FieldModulator(field, "encoder.resid_pre"),
        examples,
        DEFINITION,
        training,
        title=f"{arm}, seed {seed}",
        position=position,
        factors=FACTORS,
    )
    run.write_json("readings.json", {"epochs": trace.epochs, "alpha": field.alpha.tolist()})


def definitions(model: Any, make: Any, number: int) -> LemmaExamples:
    """A model's examples, drawn from its words of one token."""
    tokenizer, wordnet = tokenizer_of(model), pk.lexicon.load_wordnet()
    glosses, words, _ = draw_senses(wordnet, tokenizer, number)
    return make(tokenizer, glosses, words)


def read(config: Config, none: dict[str, float]) -> dict[str, Any]:
    """What needs no training; ``none`` is the host without a modulator."""
    model = pretrained(config.read)
    some = definitions(model, masked_examples, config.shown)
    return {
        "templates": template_readings(),
        "gates": gate_readings(model, some.ids, some.mask),
        "check": check_readings(model),
        "parameters": parameter_readings(model, some.ids[:4], some.mask[:4]),
        "none": none,
    }


def collect(config: Config, run_dir: Path) -> Results:
    """Readings, and by arm each seed's last epoch with its alpha."""
    found: Results = RunDir(run_dir / "readings" / "seed0").read_json("readings.json")
    for arm in ARMS:
        runs = [
            RunDir(run_dir / arm.replace(", ", "-") / f"seed{seed}").read_json("readings.json")
            for seed in config.seeds
        ]
        found[arm] = [{**run["epochs"][-1], **run} for run in runs]
    return found


def at(*path: str) -> Callable[[Results], list[float]]:
    """A reading that needs no training, by its path."""

    def measure(results: Results) -> list[float]:
        found: Any = results
        for name in path:
            found = found[name]
        return [math.nan if found is None else float(found)]

    return measure


def over(arm: str, other: str) -> Callable[[Results], list[float]]:
    """How much lower an arm's NLL ends than another's, or than that without a modulator."""

    def measure(results: Results) -> list[float]:
        others = [results["none"]] * len(results[arm]) if other == "none" else results[other]
        return gain(results[arm], others)

    return measure


def chance(arm: str) -> Callable[[Results], list[float]]:
    """How far an arm's ends are apart from seed to seed, each seed with the next.

    Without their sign: with it they sum to 0, whatever the seeds do.
    """
    return lambda results: [
        abs(each) for each in gain(results[arm], [*results[arm][1:], results[arm][0]])
    ]


CLAIMS = [
    Claim("003-32", WRITE_UP, "the published configuration has 38,552 parameters", 38_552.0, 0.0,
          at("parameters", "published"), lambda _: None, "none: a count"),
    Claim("003-33", WRITE_UP, "the templates are regular: longest edge over shortest, less 1", 0.0,
          1e-3, at("templates", "published", "spread"), at("templates", "regular", "spread"),
          "basis vectors less their mean, in k dimensions"),
    Claim("003-34", WRITE_UP, "V^2 > 0 tells that a simplex exists: share of positions", 1.0, 0.0,
          at("gates", "simplex", "4", "share_v2_positive"), at("gates", "random"),
          "Gaussian points: V^2 is a Gram determinant"),
    Claim("003-34.k1", WRITE_UP, "the expert of order 1 gates by the input: deviation of its gate",
          (1e-4, 1.0), 0.0, at("gates", "simplex", "1", "gate_std"),
          at("gates", "constant", "1", "gate_std"), "a constant gate"),
    Claim("003-34.k4", CORRECTED, "that of order 4 does", (1e-4, 1.0), 0.0,
          at("gates", "simplex", "4", "gate_std"), at("gates", "constant", "4", "gate_std"),
          "a constant gate"),
    Claim("003-34.trained", CORRECTED,
          "reading the input pays: NLL of the word, constant gates less published ones (nats)",
          (0.01, 10.0), 0.0, over("published", "constant"), chance("constant"),
          "constant gates of another seed"),
    Claim("003-34.room", CORRECTED, "with alpha from .3 it does", (0.01, 10.0), 0.0,
          over("room", "room, constant"), chance("room, constant"),
          "constant gates of another seed"),
    Claim("003-34.any", CORRECTED, "a trained field helps at all: none less published",
          (0.01, 10.0), 0.0, over("published", "none"), over("constant", "none"),
          "none less constant gates"),
    Claim("003-35", WRITE_UP, "a healthy embedding has a CV of .21 in the check's 8 dimensions",
          0.21, 0.05, at("check", "cv"), at("check", "null"), "Gaussian points in 8 dimensions"),
]  # fmt: skip


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    arms = {"none": [results["none"]] * len(config.seeds), **{arm: results[arm] for arm in ARMS}}
    ends = {
        arm: {name: [run[name] for run in runs] for name in ("val_loss", "lemma_nll", "lemma_rank")}
        for arm, runs in arms.items()
    }
    gates = results["gates"]
    tables: dict[str, Any] = {
        "what is held out, at the end": interval_rows(ends, "arm"),
        "parameters": [results["parameters"]],
        "edges of the templates": [
            {"template": name, "k": k, "edges": ", ".join(f"{e:.4f}" for e in edges)}
            for name, each in results["templates"].items()
            for k, edges in each["edges"].items()
        ],
        "gates on the model's stream": [
            {"gate": gate, "k": k, **gates[gate][k]}
            for gate in ("simplex", "constant")
            for k in gates[gate]
        ],
    }
    starts = dict.fromkeys(options["alpha"] for options in ARMS.values())
    by_start = {
        start: {arm: results[arm] for arm, options in ARMS.items() if options["alpha"] == start}
        for start in starts
    }
    figures = {
        "training": (draw.training_figure(by_start, results["none"]["lemma_nll"]), TRAINING),
        "alpha": (draw.alpha_figure(by_start), ALPHA),
        "gates": (draw.gates_figure(gates), GATES),
        "check": (draw.check_figure(results["check"], gates["checks"]), CHECK),
    }
    title = "Field modulator: gates that read simplices, and gates that do not"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


TRAINING = (
    "Negative log likelihood of the word, held out; a line a seed. Dotted: without a modulator. "
    "The panels have scales of their own."
)
ALPHA = "Trained alpha by layer, mean over experts, a line a seed. The bounds are .001 and .35."
GATES = "Deviation of gates over positions. That of order 1 is 0: it sees nothing."
CHECK = (
    "The CV of pentachora of the embedding by the coordinates read, beside Gaussian points; "
    "crosses: the model's layers, as the check reads them. Grey: the band that counts as healthy."
)

if __name__ == "__main__":
    probekit.recipes.main(__file__)
