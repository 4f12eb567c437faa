"""Does a modulated encoder-decoder still talk sense, and is it the geometry that it talks of?

The terrain write-up looks at greedy texts of seven prompts, original and modulated, and calls them
coherent. Here every text has numbers: how many tokens changed, how likely the new text is to the
original model, and how far the two models' next-token distributions are apart along it; at every
alpha of a sweep, for the trained modulator and for two that hold no geometry:

    trained       on definitions, by the repaired loss, from .01 (see lerp-training)
    permuted      the same, its words' rows dealt out anew
    shrink only   the same, all rows 0: the stream times 1 - alpha at every layer

    probekit run talk --preset quick --jobs 2                          T5 of two layers
    probekit run talk --preset paper --jobs 2                          and T5-small where cached
    probekit run talk --prompts FILE                                   a prompt a line

In IPython: ``pk.talk(model, "summarize: a young dog", pk.Lerp(module), alphas=(0.01, 0.5))``.

Measured, quick (t5-wordnet): at .01 82 % of texts are the original ones, token by token (92 % by
the shrinking alone), and .05 nats a token stranger to the original model. At .29154 none is: they
are 9 nats a token stranger, where the shrinking alone has .2. But rows dealt out anew do the same,
at every alpha (KL 3.36 and 3.32): what is said then is not the words' geometry.

Time on two cores: quick 4 minutes (6 beside other work); paper not measured.

Source: "Geometric Terrain Analysis", section 11 (T5-small). Prompts are of the published subjects,
in other words: a pet, a translation, mathematics, a dog, a wolf, love, the number seven, and for
the sweep a triangle; and WordNet's definitions, of which more are read to have intervals.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.errors import RunError
from probekit.files import read_text
from probekit.modulators import LerpModulator
from probekit.runs import RunDir
from probekit.terrain.presenting import present_models
from probekit.terrain.units import (
    PRETRAINED,
    Results,
    collect_kinds,
    known,
    named,
    read_or_missing,
    unit_folder,
)
from probekit.training import (
    DEFINITION,
    ModulatorTraining,
    definition_examples,
    fit_modulator,
    t_interval,
)
from probekit.training import modulator_study as study

NAME = "talk"
WRITE_UP = "Geometric Terrain Analysis, qualitative generation"
CORRECTED = "the same, with controls"
SITE = "encoder.resid_pre"
TRAINED, PERMUTED, SHRINK = KINDS = ("trained", "permuted", "shrink only")
PROMPTS = (
    "summarize: a small furry animal that sleeps on the sofa and is fed by the family",
    "translate English to German: The garden is green after the rain.",
    "summarize: the science of numbers, quantities and shapes and of how they are related",
    "summarize: a tame animal that barks and guards the house",
    "summarize: a wild animal that hunts in packs and howls",
    "summarize: a deep feeling of affection for a person",
    "summarize: the number that comes after six and before eight",
    "summarize: a flat figure with three straight sides and three angles",
)
Unit = tuple[str, str]


@dataclass(frozen=True)
class Config:
    """Hosts by card, or as card=folder."""

    hosts: tuple[str, ...] = ("t5-wordnet",)
    prompts: str = ""  # a file with a prompt a line; "" takes the recipe's own and definitions
    glosses: int = 40  # definitions that are prompts too
    alphas: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.29154, 0.5)
    seeds: tuple[int, ...] = (0, 1)  # of the modulator's training
    examples: int = 294  # trained on, a tenth held out; batches of 4, 10 epochs
    batch: int = 4
    longest: int = 64  # tokens of an answer

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        hosts, seeds = ("t5-wordnet", "t5-small"), (0, 1, 2, 3, 4)
        return cls(hosts, glosses=400, seeds=seeds, examples=9_362, batch=32, longest=128)

    def texts(self, glosses: Sequence[str]) -> list[str]:
        """The prompts of the file, or the recipe's own and ``glosses``."""
        if not self.prompts:
            return [*PROMPTS, *(pk.lexicon.PREFIX + gloss for gloss in glosses)]
        fix = "give --prompts a UTF-8 text, a prompt a line"
        lines = read_text(self.prompts, fix, RunError).splitlines()
        texts = [line.strip() for line in lines if line.strip()]
        if not texts:
            raise RunError(f"--prompts {self.prompts} holds no prompt; write one a line")
        return texts


def units(config: Config) -> list[Unit]:
    return [(entry, f"seed {seed}") for entry in config.hosts for seed in config.seeds]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train one modulator and let it talk; notes why the host is not to be had, if it is not."""
    entry, kind = unit
    seed, wordnet = int(kind.split()[1]), pk.lexicon.load_wordnet()

    def readings(model: Any, tokenizer: Any) -> dict[str, Any]:
        glosses, words, synsets = study.draw_senses(wordnet, tokenizer, config.examples)
        examples = definition_examples(tokenizer, glosses, words)
        module = study.start_module(model, wordnet, examples, synsets, 0.01, seed)
        training = ModulatorTraining(batch=config.batch, seed=42 + seed)
        run = RunDir(unit_folder(run_dir, entry, kind).path / "training")
        fit_modulator(
            run, model, pk.Lerp(module, site=SITE), examples, DEFINITION, training,
            title=f"{named(entry)}, {kind}", position=position,
        )  # fmt: skip
        others, _, _ = study.draw_senses(wordnet, tokenizer, config.glosses, seed=7)
        texts = config.texts(others)
        return {
            name: [
                vars(said)
                for said in pk.talk(
                    model, texts, pk.Lerp(each, site=SITE), alphas=config.alphas,
                    tokenizer=tokenizer, max_new_tokens=config.longest,
                ).said
            ]
            for name, each in controls(module, examples.lemmas, seed).items()
        }  # fmt: skip

    read_or_missing(entry, kind, run_dir, readings)


def controls(module: LerpModulator, words: Any, seed: int) -> dict[str, LerpModulator]:
    """The modulator, and the two that hold no geometry."""
    found = {TRAINED: module}
    for name in (PERMUTED, SHRINK):
        copy = LerpModulator(**module.config)
        copy.load_state_dict(module.state_dict())
        found[name] = copy
    tokens = words.unique()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(tokens)))
    found[PERMUTED].set_geometry(module.geometry.detach()[tokens[order]], tokens)
    found[SHRINK].set_geometry(torch.zeros_like(module.geometry))
    return found


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's readings; a host's first seed stands for whether it is to be had."""
    by_seed = collect_kinds(units(config), run_dir)
    return {
        name: {PRETRAINED: [runs[0] for runs in kinds.values()]} for name, kinds in by_seed.items()
    }


def mean_of(
    value: Callable[[dict[str, Any]], float], alpha: float, kind: str
) -> Callable[[Results], list[float]]:
    """A measure: the mean over prompts at one alpha, a value a run of every host."""

    def measure(results: Results) -> list[float]:
        return [
            average(value, run[kind], alpha)
            for kinds in known(results).values()
            for run in kinds[PRETRAINED]
        ]

    return measure


def average(
    value: Callable[[dict[str, Any]], float], said: Sequence[dict[str, Any]], alpha: float
) -> float:
    chosen = [value(each) for each in said if each["alpha"] == alpha]
    return math.fsum(chosen) / len(chosen) if chosen else math.nan


def stranger(said: dict[str, Any]) -> float:
    """How much less likely a text is to the original model than its own (nats a token)."""
    return said["nll"] - said["original_nll"]


def unchanged(said: dict[str, Any]) -> float:
    return float(said["levenshtein"] == 0)


def coherent(id: str, alpha: float, source: str) -> Claim:
    statement = f"at alpha {alpha:g} texts are as likely to the original model as its own"
    return Claim(
        id, source, f"{statement} (nats a token more, mean over prompts)", (-1.0, 0.1), 0.0,
        mean_of(stranger, alpha, TRAINED), mean_of(stranger, alpha, SHRINK),
        "the stream shrunk as much, without geometry",
    )  # fmt: skip


CLAIMS = [
    coherent("003-31", 0.01, WRITE_UP),
    coherent("003-31.constant", 0.29154, WRITE_UP),
    coherent("003-31.half", 0.5, WRITE_UP),
    Claim("003-31.same", CORRECTED,
          "at alpha .01 most texts are the original ones, token by token (share of prompts)",
          (0.5, 1.0), 0.0, mean_of(unchanged, 0.01, TRAINED), mean_of(unchanged, 0.01, SHRINK),
          "the stream shrunk as much, without geometry"),
    Claim("003-31.geometry", CORRECTED,
          "what changes at .29154 is the words' geometry: KL of the next token, nats",
          (0.1, 100.0), 0.0, mean_of(lambda said: said["kl"], 0.29154, TRAINED),
          mean_of(lambda said: said["kl"], 0.29154, PERMUTED), "rows dealt out anew"),
]  # fmt: skip


def tables(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Means by alpha and table, and the texts of the first run's first prompts."""
    swept, texts = [], []
    for host, kinds in results.items():
        runs = kinds[PRETRAINED]
        for kind in KINDS:
            for alpha in alphas_of(runs):
                swept.append({"host": host, "table": kind, **sweep_row(runs, kind, alpha)})
        shown = list(dict.fromkeys(said["prompt"] for said in runs[0][TRAINED]))[: len(PROMPTS)]
        texts += [
            {
                "host": host,
                **{key: said[key] for key in ("prompt", "alpha", "original", "modulated")},
            }
            for said in runs[0][TRAINED]
            if said["prompt"] in shown
        ]
    return {"by alpha, means over prompts": swept, "texts of the trained modulator": texts}


def alphas_of(runs: Sequence[dict[str, Any]]) -> list[float]:
    return sorted({said["alpha"] for said in runs[0][TRAINED]})


NUMBERS: dict[str, Callable[[dict[str, Any]], float]] = {
    "KL (nats a token)": lambda said: said["kl"],
    "NLL less the original's": stranger,
    "tokens changed, Levenshtein": lambda said: said["levenshtein"],
    "tokens changed, Hamming": lambda said: said["hamming"],
    "texts unchanged": unchanged,
}


def sweep_row(runs: Sequence[dict[str, Any]], kind: str, alpha: float) -> dict[str, Any]:
    row: dict[str, Any] = {"alpha": f"{alpha:g}"}
    for name, value in NUMBERS.items():
        each = [average(value, run[kind], alpha) for run in runs]
        row[name] = f"{math.fsum(each) / len(each):.3f}"
    return row


def sweep_figure(runs: Sequence[dict[str, Any]]) -> Figure:
    """Divergence, strangeness and unchanged texts by alpha, with intervals over runs."""
    names = ("KL (nats a token)", "NLL less the original's", "texts unchanged")
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    alphas = alphas_of(runs)
    for axis, name in zip(axes, names, strict=True):
        for index, kind in enumerate(KINDS):
            each = [[average(NUMBERS[name], run[kind], alpha) for run in runs] for alpha in alphas]
            axis.plot(alphas, np.mean(each, 1), "o-", ms=3, color=f"C{index}", label=kind)
            if len(runs) > 1:
                low, high = np.array([t_interval(values) for values in each]).T
                axis.fill_between(alphas, low, high, color=f"C{index}", alpha=0.15, lw=0)
        axis.axvline(0.29154, color="0.3", lw=0.8, ls=":")
        axis.set_xlabel("alpha")
        axis.set_ylabel(name)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figure, write ``report.html``."""

    def figures(kinds: Any) -> dict[str, Any]:
        return {"sweep": (sweep_figure(kinds[PRETRAINED]), SWEEP)}

    title = "Talking under modulation"
    present_models(
        title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures
    )  # fmt: skip


SWEEP = "By alpha, with 95 % intervals over runs; dotted: .29154."

if __name__ == "__main__":
    probekit.recipes.main(__file__)
