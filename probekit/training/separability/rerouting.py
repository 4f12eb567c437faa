"""Does attention reroute around noise? Effects over examples, and patterns with what they average.

For a trained network that gets noise at one layer's attention output, against the same network
without. What an average of patterns forgets cannot change in it: over heads, which head attends
where; over queries, from where. What is left is how much each key gets on the whole, and that is
alike for other inputs, too.

The write-up's "head contribution", the sum of a head's pattern, is not here: rows of attention sum
to 1, so that it is the number of queries, always.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...entropy import row_entropy
from ...errors import ProbekitError
from ...geometry import flattened_cosine
from ...hooked.load import random_twin
from ...hooked.model import HookedModel
from ...interventions import Noise
from ...items import Item
from ..effect_size import cohens_d
from ..leak import find_leak
from ..tasks import Task
from .hardened import noise_accuracies
from .hybrids import read_activations

#: What is averaged before the cosine: axes of [batch, head, query, key].
AVERAGES = {
    "as published": (1, 2),
    "by query": (1,),
    "by head": (2,),
    "by head and query": (),
}


@dataclass(frozen=True)
class RepeatedTask:
    """A random half, repeated; all tokens but the last are given, and the last is asked for.

    It has the token that stands half a sequence earlier, always at the same position: a network
    need not find it by what came before it, so that this is no test of induction.

    Args:
        length: of the whole sequence, even.
        held_out: sequences in :meth:`validation`, from a generator of their own.

    Raises:
        ProbekitError: an odd length, or sizes below 2.
    """

    vocab: int = 4096
    length: int = 64
    held_out: int = 1_000

    def __post_init__(self) -> None:
        if min(self.vocab, self.length) < 2 or self.length % 2:
            raise ProbekitError(
                f"vocab and length must be at least 2 and length even, given {self.vocab} and "
                f"{self.length}"
            )

    @property
    def config(self) -> dict[str, Any]:
        """Sizes of a model's input and vocabulary."""
        return {"n_ctx": self.length - 1, "d_vocab": self.vocab}

    @property
    def ceiling(self) -> float:
        """All can be predicted."""
        return 1.0

    def batch(
        self, generator: np.random.Generator, size: int
    ) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch 1"]]:
        """Fresh sequences."""
        half = torch.from_numpy(generator.integers(0, self.vocab, (size, self.length // 2)))
        sequence = torch.cat([half, half], dim=1)
        return sequence[:, :-1], sequence[:, -1:]

    def validation(self) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch 1"]]:
        """Sequences that training does not draw."""
        return self.batch(np.random.default_rng([self.vocab, self.length]), self.held_out)


def pattern_similarities(
    one: Float[Tensor, "batch head query key"], other: Float[Tensor, "batch head query key"]
) -> dict[str, float]:
    """Cosines of two networks' (or runs') patterns by what is averaged first, of AVERAGES."""
    return {
        name: flattened_cosine(*(each.mean(axes) if axes else each for each in (one, other)))
        for name, axes in AVERAGES.items()
    }


def reroute(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], noise: Item, added: float
) -> dict[str, Any]:
    """The network under ``noise`` against itself without, in JSON's types.

    ``d`` is Cohen's d over examples: of each layer's attention entropy (nats, mean over heads and
    queries), of the residual stream's length after the last block (mean over positions), and of
    that length if nothing answers: the clean stream plus noise of deviation ``added``.
    ``similarity`` and ``other inputs`` are :func:`pattern_similarities` by layer, of clean with
    noisy patterns and of clean patterns with those of the next example.

    Args:
        noise: at the output of a layer's attention.
        added: deviation of that noise.
    """
    layers = range(model.cfg.n_layers)
    clean = [read_activations(model, tokens, layer=layer) for layer in layers]
    noisy = [read_activations(model, tokens, noise, layer=layer) for layer in layers]
    both = list(zip(clean, noisy, strict=True))
    last = clean[-1].residual
    drawn = torch.randn(last.shape, generator=torch.Generator().manual_seed(0))
    effects = {
        f"entropy, layer {layer}": cohens_d(_entropy(one.pattern), _entropy(two.pattern))
        for layer, (one, two) in enumerate(both)
    }
    effects["amplitude"] = cohens_d(_length(last), _length(noisy[-1].residual))
    effects["amplitude, noise alone"] = cohens_d(_length(last), _length(last + added * drawn))
    return {
        "d": effects,
        "similarity": {
            f"layer {layer}": pattern_similarities(one.pattern, two.pattern)
            for layer, (one, two) in enumerate(both)
        },
        "other inputs": {
            f"layer {layer}": pattern_similarities(one.pattern, one.pattern.roll(1, 0))
            for layer, one in enumerate(clean)
        },
    }


def rerouted(
    model: HookedModel, task: Task, site: str, sigma: float, draws: int, seed: int
) -> dict[str, Any]:
    """:func:`reroute` of a trained network and of an untrained one, in JSON's types.

    Beside them ``trained and untrained``, :func:`pattern_similarities` of layer 1 without noise,
    ``accuracy`` by sigma, and ``leak``, what :func:`find_leak` says.

    Args:
        site: the output of layer 0's attention.
        seed: of the untrained network and of the noise.
    """
    tokens, labels = task.validation()
    untrained, item = random_twin(model, 2**31 + seed), Noise(sigma, site, seed)
    patterns = [read_activations(each, tokens, layer=1).pattern for each in (model, untrained)]
    leak = find_leak(lambda ids: model(ids)[:, -1:], tokens, labels, ceiling=task.ceiling)
    return {
        "accuracy": noise_accuracies(model, tokens, labels, [site], (0.0, sigma), draws),
        "trained": reroute(model, tokens, item, sigma),
        "untrained": reroute(untrained, tokens, item, sigma),
        "trained and untrained": pattern_similarities(*patterns),
        "leak": str(leak),
    }


def _entropy(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, " batch"]:
    return row_entropy(pattern.double()).mean((1, 2))


def _length(residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, " batch"]:
    return residual.double().norm(dim=-1).mean(-1)
