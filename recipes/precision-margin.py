"""Do tasks of higher precision get larger margins? Modulus, updates, vocabulary and width apart.

The write-up trains sums mod p for p from 7 to 227 and reads that margin and amplitude grow with p,
the price of precision. But every p trained for as many epochs, which is 100 updates for p = 7 and
40,300 for p = 227; a margin grows with every update. The vocabulary grows with p (16 to 256). There
is no causal mask, so that the sum is an input. And the "40 % more energy" of sums beside streams
compares widths: a LayerNorm's output has norm sqrt(d_model) times its gain.

    sequence    as published: [a, +, b, =, a + b, PAD, ...], all positions, logged through training:
                read after equal epochs, as published, and after equal updates
    vocabulary  p = 13 among the 256 tokens of p = 227, instead of 16
    wide        p = 113 at twice the width
    leak-free   [a, b], trained with weight decay until held-out sums are right

    probekit run precision-margin --preset quick --jobs 2      three seeds, 5 epochs
    probekit run precision-margin --preset paper --jobs 2      the published sizes and epochs

Expected of quick, means over seeds: after equal epochs margins are 0.4, 1.3, 4.6, 8.2 and 11.0 for
p = 7 to 227, and 227 alone after as many updates has -0.5, 0.9, 3.9, 7.8 and 11.0. After equal
updates they fall from 13 on: 8.3, 8.6, 8.3, 8.2, 7.8; where the sum is predicted 5.2, 6.3, 5.8,
4.8, 3.6. Leak-free they fall too, 5.7 (59) and 4.9 (113), with distances of 5.3 and 5.5. The
vocabulary takes 0.5 off the margin of 13. Gains of the final norm grow with updates, 1.00 to 1.43,
far beyond the published 1.04, whose tensor is not said (after the block's own norm stroke reads
1.01). Twice the width has 1.38 times the amplitude, sqrt(2) less what its gain is behind at 200
updates.

Time on two cores: quick 4 minutes at a load of 3, paper about 3 hours (estimated).

Source: "The Conservation of Separability", part A (precision drives margin). Its two documents give
margins of 4.2, 5.8, 6.5 and of 5.8, 6.4, 6.5 for p = 7, 113 and 227, averaged over all positions.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.training import (
    ModularTask,
    Optimisation,
    Stack,
    find_leak,
    fit,
    interval_rows,
    margin_readings,
    rising_shares,
    updates_per_epoch,
)
from probekit.training.separability.margin_pictures import modulus_figure, updates_figure
from probekit.training.separability.margin_runs import (
    MarginRun,
    MarginRuns,
    leak_rows,
    margin_rows,
    part_rows,
)

NAME = "precision-margin"
WRITE_UP = "The Conservation of Separability, precision and margin"
CONTROLLED = "the same, with what varied beside precision held fixed"
MODULI = (7, 13, 41, 113, 227)
EQUALS = 3  # the position of "=", where the sum is predicted
#: By modulus, as its two documents have them, and A / sqrt(d) at width 128.
MARGINS = {
    "published, findings": {7: 4.2, 113: 5.8, 227: 6.5},
    "published, paper": {7: 5.8, 113: 6.4, 227: 6.5},
}
AMPLITUDES = {7: 11.41, 13: 11.47, 41: 11.49, 113: 11.72, 227: 11.74}
GAINS = {p: amplitude / math.sqrt(128) for p, amplitude in AMPLITUDES.items()}
GENERAL = 0.95  # held-out accuracy from which a leak-free margin counts
EMBEDDED = (13,)  # moduli of "vocabulary"
WIDE = 113  # modulus of "wide"
Unit = tuple[str, int, int]  # an arm, a modulus and a seed


@dataclass(frozen=True)
class Config:
    """The published model at half its width, and a twentieth of the epochs."""

    seeds: tuple[int, ...] = (0, 1, 2)
    width: int = 64  # of the residual stream and of the MLP; published: 128
    epochs: int = 5  # of every modulus; published: 100
    updates: int = 500  # of every modulus, where equal; a multiple of 5, as epochs
    wide_updates: int = 200  # at twice the width
    batch: int = 64  # sequences
    examples: int = 100  # held-out sums at most
    leak_free_moduli: tuple[int, ...] = (59, 113)  # small ones do not generalise
    leak_free_width: int = 128
    leak_free_updates: int = 2_000  # of AdamW, lr 2e-3, weight decay .5, clip 1, batch 256

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        sizes = {"width": 128, "epochs": 100, "updates": 10_000, "wide_updates": 2_000}
        return cls((0, 1, 2, 3, 4), **sizes, examples=500, leak_free_updates=10_000)

    @property
    def widths(self) -> dict[str, int]:
        return {"wide": 2 * self.width, "leak-free": self.leak_free_width}

    def task(self, arm: str, modulus: int) -> ModularTask:
        if arm == "leak-free":
            return ModularTask("two-token", modulus, 0.8, seed=0, held_out=500)
        return ModularTask("sequence", modulus, 0.5, seed=0, held_out=self.examples)

    def epochs_end(self, modulus: int) -> int:
        """Updates of the published number of epochs, scaled."""
        return self.epochs * updates_per_epoch(self.task("sequence", modulus), self.batch)

    def optimisation(self, arm: str, modulus: int) -> Optimisation:
        if arm == "leak-free":
            steps = self.leak_free_updates
            return Optimisation(steps, 256, 2e-3, 0.5, 1.0, log_every=max(1, steps // 20))
        if arm == "wide":
            return Optimisation(self.wide_updates, self.batch, log_every=self.wide_updates)
        adam = Optimisation(self.updates, self.batch, log_every=math.gcd(self.updates, self.epochs))
        if arm == "vocabulary":
            return replace(adam, log_every=self.updates)
        return replace(adam, steps=max(self.updates, self.epochs_end(modulus)))

    def ends(self, arm: str, modulus: int) -> dict[str, int]:
        """Where a log is read: after equal epochs, after equal updates, and at its end."""
        steps = self.optimisation(arm, modulus).steps
        return {
            "epochs": min(steps, self.epochs_end(modulus)),
            "updates": min(steps, self.updates),
            "end": steps,
        }


def units(config: Config) -> list[Unit]:
    """The longest first."""
    units = [("sequence", MODULI[-1])] + [("leak-free", p) for p in config.leak_free_moduli]
    units += [("sequence", p) for p in reversed(MODULI[:-1])]
    units += [("vocabulary", p) for p in EMBEDDED] + [("wide", WIDE)]
    return [(arm, p, seed) for arm, p in units for seed in config.seeds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train one network, and read its margins as it trains."""
    arm, modulus, seed = unit
    run = RunDir(run_dir / f"seed{seed}" / arm / f"p{modulus}")
    if (run.path / "leak.json").exists():
        return
    task = config.task(arm, modulus)
    width = config.widths.get(arm, config.width)
    sizes = {"d_model": width, "d_head": width // 4, "d_mlp": width, **task.config}
    if arm == "vocabulary":
        sizes["d_vocab"] = config.task("sequence", MODULI[-1]).config["d_vocab"]
    model = pk.load("interleaved", seed=seed, **sizes)
    stack, (tokens, labels) = Stack([model]), task.validation()
    there = EQUALS if task.form == "sequence" else 1

    def watch(step: int, row: Any) -> dict[str, Any]:
        return margin_readings(stack, tokens, labels, there)

    optimisation = config.optimisation(arm, modulus)
    title = f"{arm}, p = {modulus}, seed {seed}"
    fit(run, stack, task, optimisation, [seed], title=title, position=position, watch=watch)
    stack.copy_to(0, model)
    read = labels.shape[1]
    leak = find_leak(lambda ids: model(ids)[:, -read:], tokens, labels, ceiling=task.ceiling)
    run.write_json("leak.json", {"found": leak.found, "words": str(leak)})


def collect(config: Config, run_dir: Path) -> MarginRuns:
    """Read every unit's log and leak."""
    runs: dict[str, dict[int, list[MarginRun]]] = {}
    for arm, modulus, seed in units(config):
        run = RunDir(run_dir / f"seed{seed}" / arm / f"p{modulus}")
        rows = {row["step"]: row for row in run.rows()}
        leak, ends = run.read_json("leak.json"), config.ends(arm, modulus)
        found = MarginRun(rows, ends, leak["words"] if leak["found"] else None)
        runs.setdefault(arm, {}).setdefault(modulus, []).append(found)
    return MarginRuns(runs)


def widths(results: MarginRuns) -> list[float]:
    """Amplitude at twice the width over that at one after as many updates, a number a seed."""
    step = results.runs["wide"][WIDE][0].ends["end"]
    pairs = (results.read(arm, WIDE, step, "norm") for arm in ("wide", "sequence"))
    return [wide / narrow for wide, narrow in zip(*pairs, strict=True)]


CLAIMS = [
    Claim(
        "002-A4",
        WRITE_UP,
        "margins grow with p from 7 to 227, epochs being equal (share of steps up)",
        published=1.0,
        tolerance=0.0,
        measure=lambda results: results.rising("sequence", "epochs", "margin"),
        null=lambda results: rising_shares(list(results.one_by_updates("margin").values())),
        control="p = 227 alone, after as many updates as each p had",
    ),
    Claim(
        "002-A4.updates",
        CONTROLLED,
        "margins grow with p, updates being equal (share of steps up)",
        published=1.0,
        tolerance=0.0,
        measure=lambda results: results.rising("sequence", "updates", "margin"),
        null=lambda results: results.rising_with_vocabulary("margin"),
        control="p = 13 among 16 tokens and among 256",
    ),
    Claim(
        "002-A4.sum",
        CONTROLLED,
        "the same where the sum is predicted (the sum being an input one further on)",
        published=1.0,
        tolerance=0.0,
        measure=lambda results: results.rising("sequence", "updates", "margin_there"),
        null=lambda results: results.rising("sequence", "updates", "distance_there"),
        control="the margin over |W_label - W_rival|, a distance in the final stream",
    ),
    Claim(
        "002-A4.leak-free",
        CONTROLLED,
        "margins of held-out sums grow with p where the sum has to be computed (share of steps up)",
        published=1.0,
        tolerance=0.0,
        measure=lambda results: results.rising_where_learned("leak-free", "margin_there", GENERAL),
        null=lambda results: results.rising_where_learned("leak-free", "distance_there", GENERAL),
        control="the margin over |W_label - W_rival|",
    ),
    Claim(
        "002-A4.gain",
        WRITE_UP,
        "amplitude is 11.41 to 11.74 at width 128: gains of 1.009 to 1.038 (p = 227)",
        published=(1.009, 1.038),
        tolerance=0.03,
        measure=lambda results: results.read("sequence", 227, "epochs", "gain"),
        null=lambda results: results.read("sequence", 227, 0, "gain"),
        control="the same network untrained",
    ),
    Claim(
        "002-A4.energy",
        WRITE_UP,
        "sums take 40 % more amplitude than streams, 11.64 / 8.13 (p = 113 at widths 2 d and d)",
        published=11.64 / 8.13,
        tolerance=0.05,
        measure=widths,
        null=lambda results: [math.sqrt(2)],
        control="sqrt(2), what a LayerNorm of the same gain gives at twice the width",
    ),
]


def amplitude_rows(results: MarginRuns, config: Config) -> list[dict[str, str]]:
    """Norms of the final norm's output, and the gains that they are."""
    rows: dict[str, Any] = {}
    for p in MODULI:
        rows[f"p = {p}, width {config.width}"] = {
            "A": results.read("sequence", p, "epochs", "norm"),
            "A / sqrt(d)": results.read("sequence", p, "epochs", "gain"),
            "published A / sqrt(d)": [GAINS[p]],
        }
    for arm, times in (("sequence", 1), ("wide", 2)):
        rows[f"p = {WIDE}, width {times * config.width}, {config.wide_updates} updates"] = {
            "A": results.read(arm, WIDE, config.wide_updates, "norm"),
            "A / sqrt(d)": results.read(arm, WIDE, config.wide_updates, "gain"),
        }
    return interval_rows(rows, "amplitude")


def present(config: Config, results: MarginRuns, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    tables = {
        "margins by modulus": margin_rows(results, MARGINS),
        "margins where the sum is predicted": part_rows(results),
        "amplitude": amplitude_rows(results, config),
        "is the answer among the inputs?": leak_rows(results),
    }
    margins = MARGINS["published, findings"]
    figures = {
        "modulus": (modulus_figure(results, margins, GAINS), MODULUS),
        "updates": (updates_figure(results), "Margins grow with updates, whatever the modulus."),
    }
    title = "Precision and margin: modulus, updates, vocabulary, width"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


MODULUS = (
    "Means over seeds with 95 % t-intervals. Dashed: one modulus alone, after as many updates as "
    "each has in equal epochs. Diamonds were published, of twice the width and 20 times the epochs."
)

if __name__ == "__main__":
    probekit.recipes.main(__file__)
