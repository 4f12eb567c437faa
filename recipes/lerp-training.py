"""Does a modulator's alpha find a constant by itself, and what does its training loss measure?

The terrain write-up freezes T5-small and trains a geometric modulator (table, projection, an alpha
a layer) to turn definitions into words. It reports that alpha, from .01, ends at .29154 by itself.
But Adam moves a logit by about the learning rate a step, and the published schedule's rates sum to
1.452: from .01 that reaches .044, and not much more where gradients grow. And the published loss
lets the decoder read the very tokens that it is to say, so that copying solves it, and no encoder
is needed. Here

    published from .01       the published loss: what the encoder says is not needed
    repaired from START      decoder inputs shifted, tied head scaled: Hugging Face's loss
    masked from START        for encoders: the word at the mask, through the word embeddings
    pretrained               both losses with the encoder and with its output replaced by zeros, of
                             the host, of a random T5-small, and of the whole host trained that way

    probekit run lerp-training --preset quick --jobs 2      T5 of two layers, and MiniLM
    probekit run lerp-training --preset paper --jobs 2      all examples, and T5-small where cached

The optimizer, schedule, clipping and split are the published ones. quick keeps the number of
batches, which is what alpha's reach depends on, and makes them smaller: 264 batches of 4
definitions an epoch for 10 epochs. MiniLM, which is slower, has 26 batches an epoch and that
schedule's own reach. The table's rows are WordNet's Wu-Palmer similarity of up to 600 words, 0 for
all others.

Measured, quick: from .01 the published loss carries alpha to .0495, the repaired one to .037. Equal
steps would reach .0436; Adam's are longer while gradients grow, and one alpha of one run passes .05
(.05002). From .1 and .5 it ends at .21 and .52: starts are 99.9 % of the variance of the
ends' logits. Without its encoder's output the host learns the published task to 1e-7 nats (3.5 the
repaired one), and a random T5-small has .0015 (11.6). Trained by the repaired loss held-out words
get likelier by .27 nats, by the published one less likely by 1.7.

Time on two cores: quick 7:35; paper about 15 hours (estimated from quick's steps).

Source: "Geometric Terrain Analysis", section 9 (T5-small, 9,362 words). The hosts differ: card
t5-wordnet has seen most of these definitions when it was trained.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.pretrained import pretrained
from probekit.runs import RunDir
from probekit.terrain.presenting import present_models
from probekit.terrain.units import (
    PRETRAINED,
    Results,
    named,
    read_or_missing,
    unit_folder,
)
from probekit.training import (
    DEFINITION,
    LEAKING,
    MASKED_LEMMA,
    ModulatorTraining,
    definition_examples,
    fit_modulator,
    held_out_scores,
    masked_examples,
)
from probekit.training import modulator_pictures as draw
from probekit.training import modulator_results as res
from probekit.training import modulator_study as study

NAME = "lerp-training"
WRITE_UP = "Geometric Terrain Analysis, training the modulator"
CORRECTED = "the same, corrected"
CONSTANT = 0.29154
OBJECTIVES = {"published": LEAKING, "repaired": DEFINITION, "masked": MASKED_LEMMA}
Unit = tuple[str, str]  # a host, and "pretrained" or "OBJECTIVE from START seed SEED"


@dataclass(frozen=True)
class Config:
    """Hosts by card, or as card=folder; sizes keep the published number of batches."""

    hosts: tuple[str, ...] = ("t5-wordnet",)  # encoder-decoders
    encoders: tuple[str, ...] = ("minilm",)
    starts: tuple[float, ...] = (0.01, 0.1, 0.5)  # published: .01
    seeds: tuple[int, ...] = (0, 1)  # of the projection's start and of the split
    encoder_seeds: tuple[int, ...] = (0,)
    examples: int = 1_174  # definitions, a tenth held out; published: 9,362
    encoder_examples: int = 115
    batch: int = 4  # published: 32
    epochs: int = 10
    silenced_steps: int = 200  # of the whole host, without its encoder

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        more = {"examples": 9_362, "encoder_examples": 9_362, "batch": 32, "silenced_steps": 1_000}
        seeds = (0, 1, 2, 3, 4)
        return cls(hosts=("t5-wordnet", "t5-small"), seeds=seeds, encoder_seeds=seeds, **more)

    def training(self, seed: int) -> ModulatorTraining:
        return ModulatorTraining(epochs=self.epochs, batch=self.batch, seed=42 + seed)


def units(config: Config) -> list[Unit]:
    found: list[Unit] = [(entry, PRETRAINED) for entry in config.hosts + config.encoders]
    for entry in config.hosts:
        kinds = [f"published from {config.starts[0]:g}"]
        kinds += [f"repaired from {start:g}" for start in config.starts]
        found += [(entry, f"{kind} seed {seed}") for kind in kinds for seed in config.seeds]
    for entry in config.encoders:
        kinds = [f"masked from {start:g}" for start in config.starts]
        found += [(entry, f"{kind} seed {n}") for kind in kinds for n in config.encoder_seeds]
    return found


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train one modulator, or read both losses of a host; notes why it is not to be had."""
    entry, kind = unit
    wordnet, encoder = pk.lexicon.load_wordnet(), entry in config.encoders
    count = config.encoder_examples if encoder else config.examples

    def readings(model: Any, tokenizer: Any) -> dict[str, Any]:
        glosses, words, synsets = study.draw_senses(wordnet, tokenizer, count)
        examples = (masked_examples if encoder else definition_examples)(tokenizer, glosses, words)
        if kind == PRETRAINED:
            _, held_out, _ = config.training(0).split(len(examples))
            objective = MASKED_LEMMA if encoder else DEFINITION
            found = held_out_scores(model, examples.take(held_out), objective)
            return {**found, **({} if encoder else leaks(config, entry, model, examples))}
        form, start, seed = parts(kind)
        module = study.start_module(model, wordnet, examples, synsets, start, seed)
        lerp = pk.Lerp(module, site="resid_pre" if encoder else "encoder.resid_pre")
        run = RunDir(unit_folder(run_dir, entry, kind).path / "training")
        training = config.training(seed)
        where: dict[str, Any] = {"title": f"{named(entry)}, {kind}", "position": position}
        trace = fit_modulator(run, model, lerp, examples, OBJECTIVES[form], training, **where)
        return study.trace_readings(trace, training, start, len(examples))

    read_or_missing(entry, kind, run_dir, readings)


def leaks(config: Config, entry: str, model: Any, examples: Any) -> dict[str, Any]:
    """Both losses with and without the encoder: host, random T5-small, host trained without it."""
    batch = examples.take(torch.arange(min(128, len(examples))))
    found: dict[str, Any] = {"host": study.leak_losses(model, batch)}
    found["random T5-small"] = study.leak_losses(random_t5_small(), batch)
    for form, objective in study.FORMS.items():
        training = ModulatorTraining(batch=32)
        steps = config.silenced_steps
        found[f"silenced {form}"] = study.train_silenced(
            pretrained(entry), examples, objective, training, steps
        )
    return found


def random_t5_small() -> Any:
    """The write-up's architecture with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return pk.wrap(T5ForConditionalGeneration(T5Config(decoder_start_token_id=0)))


def parts(kind: str) -> tuple[str, float, int]:
    """Objective, start and seed of a unit's kind."""
    form, _, rest = kind.partition(" from ")
    start, _, seed = rest.partition(" seed ")
    return form, float(start), int(seed)


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's readings: by host and kind, a run a seed."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for entry, kind in units(config):
        readings = unit_folder(run_dir, entry, kind).read_json("readings.json")
        runs = found.setdefault(named(entry), {})
        runs.setdefault(kind.partition(" seed ")[0], []).append(readings)
    return found


CLAIMS = [
    Claim("003-27", WRITE_UP, "from .01 alpha ends at .29154 by itself (mean over layers)",
          CONSTANT, 0.01, res.each_run(res.ends, "published"),
          res.each_run(lambda run: run["band"][-1][1], "published"),
          "where steps of the schedule's rates end that all agree"),
    Claim("003-27.reach", CORRECTED,
          "from .01 under the schedule no alpha exceeds .05, in any layer at any batch",
          (0.0, 0.05), 0.0, res.each_run(lambda run: run["largest"], "published", "repaired"),
          res.each_run(lambda run: run["largest"], "repaired", start=0.1), "the same from .1"),
    Claim("003-27.within", CORRECTED,
          "all alphas end inside the reach of their start (share of layers; all hosts)",
          1.0, 0.0, res.each_run(lambda run: res.inside(run, run["band"][-1]), *OBJECTIVES,
                                 start=None),
          res.inside_others, "inside the reach of another start"),
    Claim("003-27.start", CORRECTED,
          "where alpha ends is decided by where it starts: starts' share of the variance of logits",
          (0.9, 1.0), 0.0, res.shares(study.start_share), res.shares(study.seed_share),
          "seeds' share"),
    Claim("003-28", CORRECTED,
          "without its encoder the host learns the published task all the same (loss, nats)",
          (0.0, 0.05), 0.0, res.losses("silenced published"), res.losses("silenced repaired"),
          "the repaired task"),
    Claim("003-28.random", CORRECTED,
          "a random T5-small solves it, with the encoder's output at 0 (1e-9 nats)",
          (0.0, 0.01), 0.0, res.losses("random T5-small", "published", "silenced"),
          res.losses("random T5-small", "repaired", "silenced"), "the repaired loss"),
    Claim("003-28.words", CORRECTED,
          "the repaired loss makes held-out words likelier (by more than .01 nats)",
          (0.01, 20.0), 0.0, res.each_run(res.gain, "repaired"),
          res.each_run(res.gain, "published"), "the published loss, from .01"),
]  # fmt: skip


def figures(kinds: Any) -> dict[str, Any]:
    """Of one host."""
    form = "repaired" if "host" in kinds[PRETRAINED][0] else "masked"
    runs = res.runs_of(kinds, form)
    found = {
        "alpha": (draw.alpha_figure(runs), ALPHA),
        "ends": (draw.ends_figure(runs), ENDS),
        "loss": (draw.loss_figure({k: v for k, v in kinds.items() if k != PRETRAINED}), LOSS),
    }
    if form == "repaired":
        trained = {name: kinds[PRETRAINED][0][f"silenced {name}"] for name in study.FORMS}
        found["silenced"] = (draw.silence_figure(trained), SILENCED)
    return found


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    title = "Training a modulator: what alpha reaches, and what the loss needs"
    present_models(
        title, __doc__ or "", CLAIMS, results, run_dir, tables=res.tables, figures=figures
    )  # fmt: skip


ALPHA = (
    "Alpha of every layer and run by batches, on a logit scale; shaded what steps of the "
    "schedule's rates reach from each start. Adam's are longer while gradients grow. Dotted: "
    ".29154 and .5."
)
ENDS = "Where alpha ends, a column of points a layer with 95 % intervals, and each start's reach."
LOSS = "Losses by epoch (dotted: of the batches), and the likelihood of held-out words."
SILENCED = "The whole host trained while its encoder's output is 0; losses below 1e-9 drawn there."

if __name__ == "__main__":
    probekit.recipes.main(__file__)
