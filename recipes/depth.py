"""Is a deeper network's geometry its own, and do runs that collapse differ by their losses?

Swap: two networks of 2 or 4 layers learn the next token of interleaved streams, without a causal
mask; the write-up puts one's "QK" (the packed Q, K and V) into the other. Sedation: the same
networks, the final norm's output clamped to 60 %, and noise. Metastability: modular addition is
trained until it generalises, Q, K and V are frozen, and training goes on for long under strong
weight decay; accuracy collapses and comes back. "Stable" is there a run whose last log is good, and
arms are compared by a handful of runs. Three arms of the lambda sweep add a penalty of constant
value (the cosine of r with itself), whose gradient is 0, and the "anchor without penalty" is only
logged: with plain cross-entropy they are one algorithm under four names. The exact tests say how
many seeds a difference of 25 points would have needed.

    probekit run depth --preset quick --jobs 2      four seeds, p = 31, 32 features
    probekit run depth --preset paper --jobs 2      eight seeds, p = 113, 128 features, 20,000 steps

Expected of quick: both swaps leave chance, and so does V alone; true Q and K leave .11, as random
and zero ones do. The clamp scales margins by .599 and costs 3.5 points under noise of the published
A / sigma (26.5 published, on a task that is not said), as noise divided by 0.6 does. With decay
every run of 4 layers collapses, 1 to 6 times, and none without. Of 16 runs of one algorithm .62 end
"stable", where .68 of their logs are good; its four arms have 2, 4, 3 and 1 of 4, and no exact test
tells them apart. The moving average alone collapses less (p = .03, the least that four against four
can give). 64 seeds an arm would be needed to tell one half from one quarter.

Time on two cores: quick 5 minutes (9 of processor time); paper about 100
hours (estimated from 115 ms a step and run).

Source: "The Conservation of Separability", phases 2 (2.1, 2.3) and 4. That differences of stable
runs are claims on exact p values was decided after a first run, which had 25 points by chance.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import hypergeom

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.hooked.model import HookedModel
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.training import (
    InterleavedTask,
    ModularTask,
    Optimisation,
    Stack,
    accuracy,
    find_leak,
    fisher_exact,
    fit,
    fit_until,
    gather,
    interval_rows,
    seeds_needed,
)
from probekit.training.separability import deep
from probekit.training.separability import metastability_pictures as draw
from probekit.training.separability.arms import Arm, critical, train_arms
from probekit.training.separability.metastability import Arms, published_tests
from probekit.training.separability.swap_pictures import swap_figure

NAME = "depth"
WRITE_UP = "The Conservation of Separability, phase"
PREDICTION = "not published: if the arms are one algorithm"
#: One run each, on batches of its own.
ARMS = {
    "λ = 0": Arm(),
    "λ = 0.05": Arm("itself", 0.05),
    "λ = 0.3": Arm("itself", 0.3),
    "anchor, logged": Arm(),
    "moving average": Arm("average"),
    "anchor, orthogonal": Arm("anchor"),
}
SAME = ("λ = 0", "λ = 0.05", "λ = 0.3", "anchor, logged")  # plain cross-entropy, all of them
#: By number of layers what is trained side by side: its arms, and whether weights decay.
KINDS: dict[int, dict[str, tuple[dict[str, Arm], bool]]] = {
    4: {"arms": (ARMS, True), "no decay": ({"no decay": Arm()}, False)},
    2: {"two layers": ({"2 layers": Arm()}, True)},
}
PENALISED = ("λ = 0.05", "λ = 0.3")
CLAMP, RATIO = 0.6, 19.27 / 2  # published: norm 19.27 clamped to 11.56, noise of 2
Unit = tuple[str, int]
Results = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Small networks under the published protocol."""

    seeds: tuple[int, ...] = (0, 1, 2, 3)  # of the metastable runs
    modulus: int = 31  # published: 113
    fraction: float = 0.7  # of all pairs, in training; published: 0.5
    d_model: int = 32  # published: 128
    batch: int = 128  # published: 512
    lr: float = 4e-3  # AdamW; published: 1e-3
    weight_decay: float = 1.0  # as published
    young_steps: int = 1_500  # at most, until validation accuracy is .90 twice; published: 5,000
    steps: int = 800  # after that, with Q, K and V frozen; published: 20,000
    log_every: int = 20  # steps; published: 200
    pairs: tuple[int, ...] = (0, 1, 2)  # of networks for the swap
    vocab: int = 64  # of the interleaved streams; published: 4,096
    length: int = 16  # published: 128
    swap_steps: int = 400  # of Adam, lr 3e-3, batch 32; published: 15,000, lr 1e-3, batch 64

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls(
            tuple(range(42, 50)), 113, 0.5, 128, 512, 1e-3, 1.0, 5_000, 20_000, 200,
            (0, 1, 2, 3, 4), 256, 64, 5_000,
        )  # fmt: skip

    def load(self, layers: int, seed: int, task: Any) -> HookedModel:
        d = self.d_model
        sizes = {"n_layers": layers, "d_model": d, "d_head": d // 4, "d_mlp": 4 * d}
        return pk.load("modular-deep-4", seed=seed, **sizes, **task.config)


def units(config: Config) -> list[Unit]:
    """The longest first."""
    swaps = [(f"swap-{layers}", pair) for layers in KINDS for pair in config.pairs]
    return [("metastability", seed) for seed in config.seeds] + swaps


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train one seed's arms, or one pair of networks to swap between."""
    name, seed = unit
    run = RunDir(run_dir / f"seed{seed}" / name)
    if (run.path / "readings.json").exists():
        return
    found = run_arms if name == "metastability" else run_swap
    run.write_json("readings.json", found(config, name, seed, run, position))


def run_arms(config: Config, _: str, seed: int, run: RunDir, position: int) -> dict[str, Any]:
    """Train until the task is generalised, freeze attention, and train every arm from there."""
    task = ModularTask(modulus=config.modulus, fraction=config.fraction)
    adam = {"batch": config.batch, "lr": config.lr, "log_every": config.log_every}
    first = Optimisation(config.young_steps, weight_decay=config.weight_decay, **adam)
    then = Optimisation(config.steps, weight_decay=config.weight_decay, **adam)
    where: dict[str, Any] = {"title": f"metastability, {seed}", "position": position}
    found: dict[str, Any] = {}
    for layers, kinds in KINDS.items():
        model = config.load(layers, seed, task)
        young, folder = Stack([model]), RunDir(run.path / f"young, {layers} layers")
        (when,) = fit_until(folder, young, task, first, [seed], critical, **where)
        young.copy_to(0, model)
        found[folder.path.name] = when
        for kind, (arms, decays) in kinds.items():
            own = then if decays else replace(then, weight_decay=0.0)
            folder = RunDir(run.path / kind)
            found[kind] = train_arms(folder, model, arms, task, own, seed, **where)
    return found


def run_swap(config: Config, name: str, pair: int, run: RunDir, position: int) -> dict[str, Any]:
    """Train networks A and B, swap between them, and disturb A."""
    task, seeds = InterleavedTask(config.vocab, config.length), [2 * pair, 2 * pair + 1]
    a, b = networks = [config.load(int(name[-1]), seed, task) for seed in seeds]
    stack, steps = Stack(networks), config.swap_steps
    adam = Optimisation(steps, 32, 3e-3, log_every=steps // 5)
    fit(run, stack, task, adam, seeds, title=f"{name}, pair {pair}", position=position)
    for index, model in enumerate(networks):
        stack.copy_to(index, model)
    tokens, labels = task.validation()
    leak = find_leak(a, tokens, labels, ceiling=task.ceiling)
    return {
        "accuracy": {"A": accuracy(a, tokens, labels), "B": accuracy(b, tokens, labels)},
        "swaps": deep.deep_swaps(a, b, tokens, labels, pair),
        "sedation": deep.sedation_at(a, tokens, labels, CLAMP, RATIO),
        "chance": 1 / config.vocab,
        "leak": {**asdict(leak), "words": str(leak)},
    }


def collect(config: Config, run_dir: Path) -> Results:
    """The logs of every arm, and by number of layers what swaps and noise did, a number a pair."""

    def read(name: str, seeds: Sequence[int]) -> list[Any]:
        folders = [RunDir(run_dir / f"seed{seed}" / name) for seed in seeds]
        return [folder.read_json("readings.json") for folder in folders]

    found = read("metastability", config.seeds)
    logs = {
        arm: [one[kind]["logs"][arm] for one in found]
        for kinds in KINDS.values()
        for kind, (arms, _) in kinds.items()
        for arm in arms
    }
    return {
        "logs": logs,
        "arms": Arms.read(logs),
        "gradients": gather([one["arms"]["gradients"] for one in found]),
        "critical": {f"{n} layers": [one[f"young, {n} layers"] for one in found] for n in KINDS},
        "swaps": {n: gather(read(f"swap-{n}", config.pairs)) for n in KINDS},
    }


def swap_claim(id_: str, layers: int, part: str, null: str, words: str, control: str) -> Claim:
    """Accuracy after a swap in all layers, in units of chance, beside another swap's."""
    part_of, donor = null.split(" from ")
    return Claim(
        id_,
        f"{WRITE_UP} {2 if layers == 2 else 4}",
        f"{layers} layers, {words} (in units of chance)",
        published=(0.0, 2.0),
        tolerance=0.0,
        measure=lambda results: deep.in_chances(results["swaps"][layers], part, "B"),
        null=lambda results: deep.in_chances(results["swaps"][layers], part_of, donor),
        control=control,
    )


V_ALONE, RANDOM = "V alone from B, A's own routing", "fresh random Q and K"
CLAIMS = [
    swap_claim("002-P2.1", 2, "QKV", "V from B", '"QK" (Q, K and V) of B leaves 0.0 %', V_ALONE),
    swap_claim("002-P2.1.qk", 2, "QK", "QK from random", "the same of true Q and K", RANDOM),
    swap_claim("002-P4.1", 4, "QKV", "V from B", "the same, planned and not run", V_ALONE),
    Claim("002-P2.3", f"{WRITE_UP} 2",
          "2 layers: a clamp to 60 % costs 26.5 points under noise (99.6 to 73.1 %)",
          published=26.5, tolerance=16.5,
          measure=lambda results: deep.noise_losses(results["swaps"][2], "clamped, noise"),
          null=lambda results: deep.noise_losses(results["swaps"][2], "noise divided"),
          control="no clamp, the noise divided by 0.6"),
    Claim("002-P2.3.margin", f"{WRITE_UP} 2",
          "2 layers: the clamp to 60 % takes the margin from 8.67 to 5.20 (ratio)", published=0.6,
          tolerance=0.02,
          measure=lambda results: deep.margin_ratios(results["swaps"][2]["sedation"]),
          null=lambda _: [CLAMP],
          control="algebra: a linear read-out without offset scales with its input"),
    Claim("002-P4", f"{WRITE_UP} 4",
          "4 layers collapse after they have generalised: 6.4 times a run (share of runs)",
          published=1.0, tolerance=0.5, measure=lambda results: results["arms"].collapsing("λ = 0"),
          null=lambda results: results["arms"].collapsing("no decay"),
          control="the same without weight decay"),
    Claim("002-P4.stable", f"{WRITE_UP} 4", "40 to 50 % of runs are stable (accepted: 20 to 80 %)",
          published=(0.2, 0.8), tolerance=0.0,
          measure=lambda results: [results["arms"].stable(*SAME)],
          null=lambda results: [results["arms"].good(*SAME)],
          control="the share of good logs: a run is called stable whose last log is one"),
    Claim("002-P4c", f"{WRITE_UP} 4, 4.2c",
          "without penalty more runs are stable, 4 of 8 against 2 and 2 (p of Fisher's test)",
          published=(0.0, 0.05), tolerance=0.0,
          measure=lambda results: results["arms"].differ_in("stable", "λ = 0", *PENALISED),
          null=lambda _: [fisher_exact((4, 8), (4, 16))],
          control="the published counts themselves"),
    Claim("002-P4c.p", f"{WRITE_UP} 4, 4.2c",
          "4 of 8 against 2 of 8 stable runs: p = .31 in Fisher's exact test", published=0.31,
          tolerance=0.01, measure=lambda _: [fisher_exact((4, 8), (2, 8))],
          null=lambda _: [float(hypergeom.sf(3, 16, 6, 8))], control="the one-sided test"),
    Claim("002-P4c.same", PREDICTION,
          "exact tests do not tell the penalised arms from λ = 0 (least p of six)",
          published=(0.05, 1.0), tolerance=0.0,
          measure=lambda results: results["arms"].least_p("λ = 0", *PENALISED),
          null=lambda results: results["arms"].least_p("λ = 0", "anchor, logged"),
          control="two arms that differ in their batches only"),
    Claim("002-P4c.gradient", PREDICTION,
          "the penalty of the sweep has no gradient (its norm over the cross-entropy's)",
          published=0.0, tolerance=1e-4, measure=lambda results: results["gradients"]["itself"],
          null=lambda results: results["gradients"]["anchor"], control="the cosine with an anchor"),
    Claim("002-P4d.reference", f"{WRITE_UP} 4, 4.2d",
          "an anchor that is only logged makes more runs stable, 4 of 6 against 3 (p, Fisher's "
          "test)", published=(0.0, 0.05), tolerance=0.0,
          measure=lambda results: results["arms"].differ_in("stable", "anchor, logged", "λ = 0"),
          null=lambda _: [fisher_exact((4, 6), (3, 6))], control="the published counts themselves"),
    Claim("002-P4d.average", f"{WRITE_UP} 4, 4.2d",
          "the moving-average arm, which has a penalty, collapses less, 1.8 times to 6.2 (p, "
          "exact)", published=(0.0, 0.05), tolerance=0.0,
          measure=lambda results: results["arms"].differ_in("collapses", "moving average", "λ = 0"),
          null=lambda results: results["arms"].differ_in("collapses", "anchor, logged", "λ = 0"),
          control="a replicate of λ = 0"),
]  # fmt: skip


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    arms, found = results["arms"], {f"{n} layers": own for n, own in results["swaps"].items()}
    compared = {other: "a term of constant value" for other in PENALISED}
    compared |= {"anchor, logged": "nothing but batches", "moving average": "a term"}
    compared |= {"anchor, orthogonal": "a term", "2 layers": "depth", "no decay": "weight decay"}
    needed = f"{seeds_needed(0.5, 0.25)} seeds an arm tell .50 from .25 four times in five"
    critical_steps = [
        {"network": name, "validation accuracy .90 twice, at step": ", ".join(map(str, steps))}
        for name, steps in results["critical"].items()
    ]
    tables: dict[str, Any] = {
        "critical period": critical_steps,
        "arms": arms.rows(),
        f"exact tests ({needed})": arms.tests("λ = 0", compared),
        "exact tests of what was published": published_tests(),
        "gradient of each penalty over the cross-entropy's": interval_rows(
            {"λ = 0, where it ends": results["gradients"]}, "run"
        ),
    }
    for name, own in found.items():
        tables[f"accuracy after a swap, {name}"] = interval_rows(own["swaps"], "swapped")
        tables[f"sedation, {name}"] = interval_rows(own["sedation"], "setting")
    tables["is the answer among the inputs?"] = [
        {"network": name, "pair": pair, "A": words}
        for name, own in found.items()
        for pair, words in zip(config.pairs, own["leak"]["words"], strict=True)
    ]
    swaps = {name: own["swaps"] for name, own in found.items()}
    baselines = {name: float(np.mean(own["accuracy"]["A"])) for name, own in found.items()}
    figures = {
        "trajectories": (draw.trajectory_figure(results["logs"]), "A colour a seed; dotted: .90."),
        "survival": (draw.survival_figure(arms), SURVIVAL),
        "swaps": (swap_figure(swaps, baselines, 1 / config.vocab, {}), SWAPS),
    }
    title = "Deeper networks: swaps, sedation, and runs that collapse"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


SURVIVAL = "Left, as published; right, a run is called stable whose last log is good."
SWAPS = "Accuracy of A with a donor's weights in one place, beside A's own and chance."


if __name__ == "__main__":
    probekit.recipes.main(__file__)
