"""Does a modulated encoder-decoder still talk sense, and is it the geometry that it talks of?

The terrain write-up looks at greedy texts of seven prompts, original and modulated, and calls them
coherent. Here every text has numbers: how many tokens changed, how likely the new text is to the
original model, and how far the two models' next-token distributions are apart along it; at every
alpha of a sweep, for the trained modulator and for controls:

    trained       on definitions, by the repaired loss, from .01 (see lerp-training)
    words alone   the same, without the rows that training gave to tokens of definitions
    permuted      the same, all its rows dealt out anew among the tokens that have one
    shrink only   the stream times 1 - alpha before every block, without rows

    probekit run talk --preset quick --jobs 2                          T5 of two layers
    probekit run talk --preset paper --jobs 2                          and T5-small where cached
    probekit run talk --prompts FILE                                   a prompt a line

In IPython: ``pk.talk(model, "summarize: a young dog", pk.Lerp(module, site="encoder.resid_pre"))``.

Measured, quick (t5-wordnet): at .01 82 % of texts are the original ones, token by token (92 % by
the shrinking alone), and .05 nats a token stranger to the original model. At .29154 none is: 80 %
are empty, and they are 9 nats a token stranger, where the shrinking alone has .2. The next token's
KL is 3.4 nats; with rows dealt out anew .3, and with the words' rows alone .2, as with the
shrinking. So it is not the words' geometry that is said, but rows that training gave to what every
prompt holds: those of ":" and "summarize" are more than three times as long as a word's.

Time on two cores: quick 2:09; paper about 4 hours (estimated from quick's steps).

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
from matplotlib.figure import Figure

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.errors import RunError
from probekit.files import read_text
from probekit.modulators import LerpModulator, permuted_rows, zero_rows
from probekit.plotting import series_style
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
TRAINED, WORDS, PERMUTED, SHRINK = KINDS = ("trained", "words alone", "permuted", "shrink only")
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
        count = config.glosses
        others = study.draw_senses(wordnet, tokenizer, count, seed=7)[0] if count else []
        texts = config.texts(others)  # before the training: their file may not be there
        glosses, words, synsets = study.draw_senses(wordnet, tokenizer, config.examples)
        examples = definition_examples(tokenizer, glosses, words)
        module = study.start_module(model, wordnet, examples, synsets, 0.01, seed)
        training = ModulatorTraining(batch=config.batch, seed=42 + seed)
        run = RunDir(unit_folder(run_dir, entry, kind).path / "training")
        fit_modulator(
            run, model, pk.Lerp(module, site=SITE), examples, DEFINITION, training,
            title=f"{named(entry)}, {kind}", position=position,
        )  # fmt: skip
        return {
            name: [
                vars(said)
                for said in pk.talk(
                    model, texts, item, alphas=config.alphas,
                    tokenizer=tokenizer, max_new_tokens=config.longest,
                ).said
            ]
            for name, item in controls(module, examples.lemmas, seed).items()
        }  # fmt: skip

    read_or_missing(entry, kind, run_dir, readings)


def controls(module: LerpModulator, words: Any, seed: int) -> dict[str, pk.Lerp]:
    """The modulator, and what remains of it without some of its rows, or with rows elsewhere.

    Training gives rows to the tokens of definitions too, and those are what prompts are made of:
    of the published prompts and definitions 4 % are words, 77 % are tokens with a row. So rows are
    dealt out among all of these; among words alone hardly any that is read would change.

    Args:
        words: tokens that had a row of WordNet's similarity before training.
    """
    tokens = module.geometry.detach().any(-1).nonzero()[:, 0]
    return {
        TRAINED: pk.Lerp(module, site=SITE),
        WORDS: pk.Lerp(zero_rows(module, words.unique()), site=SITE),
        PERMUTED: pk.Lerp(permuted_rows(module, seed, tokens), site=SITE),
        SHRINK: pk.Lerp(module, site=SITE, form="shrink-only"),
    }


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
            for kinds in known(results, option="--hosts").values()
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


def further(kind: str, other: str) -> Callable[[Results], list[float]]:
    """How much further a kind's next token is from the original's than another's is (nats)."""

    def measure(results: Results) -> list[float]:
        own, rest = (
            mean_of(lambda said: said["kl"], 0.29154, each)(results) for each in (kind, other)
        )
        return [a - b for a, b in zip(own, rest, strict=True)]

    return measure


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
    Claim("003-31.rows", CORRECTED,
          "at .29154 it matters which token has which row: KL of the next token less that of rows "
          "dealt out anew, nats", (0.5, 100.0), 0.0, further(TRAINED, PERMUTED),
          further(PERMUTED, SHRINK), "rows dealt out anew less the shrinking"),
    Claim("003-31.geometry", CORRECTED,
          "and it is the words' geometry: KL of the words' rows alone less that of the shrinking, "
          "nats", (0.5, 100.0), 0.0, further(WORDS, SHRINK), further(PERMUTED, SHRINK),
          "rows dealt out anew less the shrinking"),
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
    names = {
        "KL (nats a token)": "KL (nats a token)",
        "NLL less the original's": "NLL less the original's (nats a token)",
        "texts unchanged": "share of texts unchanged",
    }
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.8))
    alphas = alphas_of(runs)
    for axis, (name, label) in zip(axes, names.items(), strict=True):
        for index, kind in enumerate(KINDS):
            each = [[average(NUMBERS[name], run[kind], alpha) for run in runs] for alpha in alphas]
            style = series_style(index)
            axis.plot(alphas, np.mean(each, 1), ms=5, **style, label=kind)
            if len(runs) > 1:
                low, high = np.array([t_interval(values) for values in each]).T
                axis.fill_between(alphas, low, high, color=style["color"], alpha=0.15, lw=0)
        axis.axvline(0.29154, color="0.3", lw=0.8, ls=":", label="0.29154")
        axis.set_xlabel("alpha")
        axis.set_ylabel(label)
    axes[-1].set_ylim(-0.05, 1.05)  # an interval of Student's knows no bounds
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=5, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
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
