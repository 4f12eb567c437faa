"""Does a network raise its gain when its signal gets noisy? Noise at two places, and its amplitude.

The write-up adds noise to a trained network ("stroke") and looks for a reflex: a growing norm of
the residual stream that would keep the margin. It finds a constant norm and a falling margin. But
its noise comes after the last norm, and a feed-forward map with fixed weights cannot answer noise
that is added downstream of it: the norm is constant to the last bit, in an untrained network too.
Noise at the attention's norm is upstream, and there the second LayerNorm sets the length, to
sqrt(|gain|^2 + |offset|^2) whatever comes in. What the margin loses is what its logits lose when
they get Gaussian noise of covariance sigma^2 W W^T themselves. Nor has the published network a
causal mask, so that the next token is an input; the causal arm stands beside it.

    probekit run stroke --preset quick --jobs 2      three seeds of both arms, 1,500 steps
    probekit run stroke --preset paper --jobs 2      five seeds, V 256, L 64, 5,000 steps
    probekit run stroke --preset paper --vocab 4096 --length 128 --out published

Expected of quick: 0.988 of next tokens without noise and 0.39 with a causal mask (at most 0.754 can
be had); margins 7.7, 7.6, 4.5 and 2.0 at sigma 0, 0.3, 2 and 3, noisy logits within 0.02 of them
(published, on another vocabulary: 8.55, 8.47, 5.74, 3.02); the residual's norm, 8.07, changes by
exactly 0 under noise after the final norm, and by 0.3 % under noise at the attention's. Of paper:
0.9994 and 0.618, margins as steadily down, the same verdicts.

Time on two cores: quick 2 minutes; paper 50 minutes of one job at a load of 5, the published sizes
about 4 hours (estimated).

Source: "The Conservation of Separability", part A, stroke test. The amplitude 8.13 is of another
run there, with noise at the attention's norm.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import probekit as pk
import probekit.recipes
from probekit.claims import Claim
from probekit.hooked.model import HookedModel, weights
from probekit.recipe_report import present_results
from probekit.runs import RunDir
from probekit.training import (
    InterleavedTask,
    Optimisation,
    falling_share,
    find_leak,
    fit_under,
    gather,
    interval_rows,
    noisy_logit_scores,
    scores_under_noise,
)
from probekit.training.separability.noise_pictures import curves_figure

NAME = "stroke"
WRITE_UP = "The Conservation of Separability, stroke test"
ARMS = ("bidirectional", "causal")  # as published, and without the answer among the inputs
#: Where noise is added, and which norms are read: both before it, or both after.
SITES = {"final norm": "ln_final", "attention's norm": "0.ln1"}
#: By sigma at the final norm, as published.
PUBLISHED = {
    "accuracy": {0.0: 0.999, 0.3: 0.999, 2.0: 0.992, 3.0: 0.829},
    "margin": {0.0: 8.55, 0.3: 8.47, 2.0: 5.74, 3.0: 3.02},
}
AMPLITUDE = (8.12, 8.14)
PANELS = {"accuracy": "accuracy", "margin": "margin", "norm of the residual": "residual"}
NULLS = ("noisy logits", "what its norm sets")
Unit = tuple[str, int]  # an arm and a seed
Results = dict[str, Any]  # by arm what run_unit wrote, every number a list over the seeds


@dataclass(frozen=True)
class Config:
    """The published network on a smaller task."""

    seeds: tuple[int, ...] = (0, 1, 2)
    vocab: int = 64  # published: 4,096
    length: int = 32  # tokens; published: 128
    width: int = 64  # of the residual stream and of the MLP, four heads; as published
    steps: int = 1_500  # of Adam, lr 1e-3; published: 5,000
    batch: int = 32  # fresh sequences a step; published: 64
    sigmas: tuple[float, ...] = (0.3, 1.0, 2.0, 3.0)  # of the noise; published: without 1
    draws: int = 3  # of the noise

    @classmethod
    def quick(cls) -> "Config":
        return cls()

    @classmethod
    def paper(cls) -> "Config":
        return cls((42, 43, 44, 45, 46), vocab=256, length=64, steps=5_000, batch=64, draws=5)


def units(config: Config) -> list[Unit]:
    return [(arm, seed) for seed in config.seeds for arm in ARMS]


def run_unit(config: Config, unit: Unit, run_dir: Path, position: int) -> None:
    """Train a network, then add noise, with its weights as they are."""
    arm, seed = unit
    run = RunDir(run_dir / f"seed{seed}" / arm)
    if (run.path / "readings.json").exists():
        return
    task = InterleavedTask(config.vocab, config.length)
    sizes = {"d_model": config.width, "d_head": config.width // 4, "d_mlp": config.width}
    model = pk.load("interleaved", seed=seed, attention_dir=arm, **sizes, **task.config)
    optimisation = Optimisation(config.steps, config.batch, log_every=250)
    more: dict[str, Any] = {"title": f"{arm}, seed {seed}", "position": position}
    fit_under((), run, model, task, optimisation, seed, **more)
    tokens, labels = task.validation()
    leak = find_leak(model, tokens, labels, ceiling=task.ceiling)
    untrained = pk.random_twin(model, 2**31 + seed)
    how: dict[str, Any] = {"sigmas": (0.0, *config.sigmas), "draws": config.draws}
    run.write_json(
        "readings.json",
        {
            "noise": {
                place: scores_under_noise(model, tokens, labels, site, **how)
                for place, site in SITES.items()
            },
            "untrained": scores_under_noise(untrained, tokens, labels, "ln_final", **how),
            "logits": noisy_logit_scores(model, tokens, labels, seed=seed, **how),
            "length of the second norm": norm_length(model),
            "ceiling": task.ceiling,
            "leak": {**asdict(leak), "words": str(leak)},
        },
    )


@torch.no_grad()
def norm_length(model: HookedModel) -> float:
    """sqrt(|gain|^2 + |offset|^2) of the block's second LayerNorm: the length that it sets."""
    own = weights(model)
    return float(torch.cat([own["layers.0.ln2.weight"], own["layers.0.ln2.bias"]]).norm())


def collect(config: Config, run_dir: Path) -> Results:
    """Read every unit's folder."""
    return {
        arm: gather(
            [RunDir(run_dir / f"seed{s}" / arm).read_json("readings.json") for s in config.seeds]
        )
        for arm in ARMS
    }


def by_sigma(results: Results, arm: str, place: str, what: str) -> dict[float, list[float]]:
    """A number a seed; ``place`` is one of SITES, "logits" or "untrained"."""
    found = results[arm]
    readings = found["noise"][place] if place in SITES else found[place]
    return {float(sigma): scores[what] for sigma, scores in readings.items()}


def largest_change(results: Results, place: str, what: str = "residual") -> list[float]:
    """Of a norm with sigma, as a fraction of what it is without noise; a number a seed."""
    norms = np.array(list(by_sigma(results, "bidirectional", place, what).values()))
    return list(np.abs(norms / norms[0] - 1).max(0))


def falling(results: Results, place: str) -> list[float]:
    margins = by_sigma(results, "bidirectional", place, "margin").values()
    return [falling_share(each) for each in zip(*margins, strict=True)]


def most_disturbed(results: Results, place: str) -> list[float]:
    """The residual's norm under the largest sigma."""
    norms = by_sigma(results, "bidirectional", place, "residual")
    return norms[max(norms)]


CLAIMS = [
    Claim(
        "002-A1.accuracy",
        WRITE_UP,
        "without noise 99.9 % of next tokens are predicted",
        published=0.999,
        tolerance=0.02,
        measure=lambda results: by_sigma(results, "bidirectional", "final norm", "accuracy")[0.0],
        null=lambda results: by_sigma(results, "causal", "final norm", "accuracy")[0.0],
        control="the same with a causal mask",
    ),
    Claim(
        "002-A1.amplitude",
        WRITE_UP,
        "the residual's norm does not answer noise after the final norm (largest change, fraction)",
        published=0.0,
        tolerance=1e-6,
        measure=lambda results: largest_change(results, "final norm"),
        null=lambda results: largest_change(results, "untrained"),
        control="an untrained network: the noise is downstream of the norm",
    ),
    Claim(
        "002-A1.margin",
        WRITE_UP,
        "the margin falls with every step of noise (share of steps)",
        published=1.0,
        tolerance=0.0,
        measure=lambda results: falling(results, "final norm"),
        null=lambda results: falling(results, "logits"),
        control="no network: Gaussian noise of covariance sigma^2 W W^T on the clean logits",
    ),
    Claim(
        "002-A1.upstream",
        WRITE_UP,
        "under the largest noise at the attention's norm the residual's norm is 8.12 to 8.14",
        published=AMPLITUDE,
        tolerance=0.2,
        measure=lambda results: most_disturbed(results, "attention's norm"),
        null=lambda results: results["bidirectional"]["length of the second norm"],
        control="sqrt(|gain|^2 + |offset|^2) of the second LayerNorm, whatever its input",
    ),
]


def score_rows(results: Results, arm: str, place: str) -> list[dict[str, str]]:
    """Accuracy and margin by sigma, beside what noisy logits read and what was published."""
    rows: dict[str, Any] = {}
    for what, published in PUBLISHED.items():
        for sigma, values in by_sigma(results, arm, place, what).items():
            row = rows.setdefault(f"σ = {sigma:g}", {})
            row[what] = values
            if place == "final norm":
                row[f"{what}, noisy logits"] = by_sigma(results, arm, "logits", what)[sigma]
                if arm == "bidirectional" and sigma in published:
                    row[f"{what}, published"] = [published[sigma]]
    return interval_rows(rows, "noise")


def norm_rows(results: Results) -> list[dict[str, str]]:
    """The residual's norm by sigma, and what the second LayerNorm sets."""
    rows: dict[str, Any] = {}
    for arm in ARMS:
        for place in (*SITES, "untrained"):
            norms = by_sigma(results, arm, place, "residual")
            at = f"noise at the {place}" if place in SITES else "untrained"
            rows[f"{arm}, {at}"] = {f"σ = {sigma:g}": norm for sigma, norm in norms.items()}
        rows[f"{arm}, what its norm sets"] = {"σ = 0": results[arm]["length of the second norm"]}
    return interval_rows(rows, "norm of the residual")


def figure(results: Results, place: str) -> Any:
    """Accuracy, margin and the residual's norm against sigma, both arms, with nulls."""
    panels: dict[str, Any] = {
        what: {arm: by_sigma(results, arm, place, key) for arm in ARMS}
        for what, key in PANELS.items()
    }
    if place == "final norm":
        for what in PUBLISHED:
            panels[what] |= {
                f"{arm}, noisy logits": by_sigma(results, arm, "logits", what) for arm in ARMS
            }
        panels["norm of the residual"]["untrained"] = by_sigma(
            results, "bidirectional", "untrained", "residual"
        )
    else:
        panels["norm of the residual"] |= {
            f"{arm}, what its norm sets": dict.fromkeys(
                by_sigma(results, arm, place, "margin"), results[arm]["length of the second norm"]
            )
            for arm in ARMS
        }
    published = {what: {"bidirectional": values} for what, values in PUBLISHED.items()}
    return curves_figure(
        panels,
        f"σ of noise at the {place}",
        ["accuracy", "margin (logits)", "mean L2 norm"],
        published=published if place == "final norm" else {},
        dashed=[f"{arm}, {null}" for arm in ARMS for null in NULLS],
    )


def present(config: Config, results: Results, run_dir: Path) -> None:
    """Print the tables, draw the figures, write ``report.html``."""
    tables: dict[str, Any] = {
        f"noise at the {place}, {arm}": score_rows(results, arm, place)
        for place in SITES
        for arm in ARMS
    }
    tables["does a norm answer?"] = norm_rows(results)
    tables["is the answer among the inputs?"] = [
        {"arm": arm, "seed": seed, "found": words}
        for arm in ARMS
        for seed, words in zip(config.seeds, results[arm]["leak"]["words"], strict=True)
    ]
    words = "Means over seeds with 95 % t-intervals; "
    figures = {
        "stroke": (
            figure(results, "final norm"),
            words + "noise on the logits alone falls on the same lines, and the norm is flat in an "
            "untrained network too. Diamonds were published for a vocabulary of 4,096.",
        ),
        "upstream": (
            figure(results, "attention's norm"),
            words + "the second LayerNorm sets the norm, whatever noise comes in.",
        ),
    }
    title = "Stroke: noise, margin and a norm that cannot answer"
    present_results(title, __doc__ or "", CLAIMS, results, run_dir, tables=tables, figures=figures)


if __name__ == "__main__":
    probekit.recipes.main(__file__)
