"""Networks trained with and without noise, under noise: with their signal, without, and as loud.

Three readings tell apart what an accuracy under noise can mean. With the signal deleted only what
was known beforehand is left. With the noise scaled down by as much as one network is louder, what
is left of the difference is not amplitude. And a network untrained but for an offset knows nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from ...hooked.load import random_twin
from ...hooked.model import HookedModel
from ..leak import find_leak
from .bases import permuted_twin
from .disturbance import read_signal
from .hardened import NETWORKS, noise_accuracies, silence
from .hybrids import read_activations, similarity
from .noise_response import scores_under_noise
from .sedation import setting_key

#: What is compared: networks, or what they are to be held against.
PAIRS = {
    "hardened, baseline": ("hardened", "baseline"),  # as published: unlike starts
    "hardened, baseline of its start": ("hardened", "another baseline"),
    "two baselines": ("baseline", "another baseline"),
    "hardened, itself permuted": ("hardened", "permuted"),
    "two untrained": ("untrained", "another untrained"),
}


def injure(
    networks: Mapping[str, HookedModel],
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch 1"],
    site: str,
    sigmas: Sequence[float],
    draws: int,
) -> dict[str, Any]:
    """Readings of networks under noise, in JSON's types, the same draws for all.

    ``noise`` is :func:`scores_under_noise` of each; ``alone`` the accuracy of baseline and hardened
    on the noise alone, by sigma; ``length`` the mean L2 norm of the signal at the site, at the
    position read; ``as loud`` the accuracy of the baseline under noise divided by how much louder
    the hardened network is there, by sigma before that; ``leak`` what :func:`find_leak` says.

    Args:
        networks: by name, of which "baseline" and "hardened" are two.
        site: where noise is added and the signal deleted, such as ``"0.ln1"``.
    """
    padded = F.pad(labels, (tokens.shape[1] - 1, 0), value=-100)
    lengths = {n: read_signal(m, tokens, site=site).norm_there for n, m in networks.items()}
    louder = lengths["hardened"] / lengths["baseline"]

    def accuracies(name: str, sigmas: Sequence[float], *before: Any) -> dict[str, float]:
        return noise_accuracies(networks[name], tokens, labels, [site], sigmas, draws, *before)

    quieter = accuracies("baseline", [sigma / louder for sigma in sigmas])
    leaks = {
        name: find_leak(lambda ids, model=model: model(ids)[:, -1:], tokens, labels)
        for name, model in networks.items()
    }
    return {
        "noise": {
            name: scores_under_noise(model, tokens, padded, site, sigmas, draws)
            for name, model in networks.items()
        },
        "alone": {
            name: accuracies(name, [sigma for sigma in sigmas if sigma], silence(site))
            for name in ("baseline", "hardened")
        },
        "as loud": dict(zip(map(setting_key, sigmas), quieter.values(), strict=True)),
        "length": lengths,
        "leak": {name: {**asdict(leak), "words": str(leak)} for name, leak in leaks.items()},
    }


def pair_similarities(
    networks: Mapping[str, HookedModel], tokens: Int[Tensor, "batch pos"], seed: int
) -> dict[str, dict[str, float]]:
    """:func:`similarity` of each of :data:`PAIRS`.

    Args:
        networks: those of :data:`NETWORKS`.
        seed: of the permutation and of the untrained networks.
    """
    hardened = networks["hardened"]
    every = {name: networks[name] for name in NETWORKS} | {
        "permuted": permuted_twin(hardened, seed),
        "untrained": random_twin(hardened, 2**31 + 2 * seed),
        "another untrained": random_twin(hardened, 2**31 + 2 * seed + 1),
    }
    read = {name: read_activations(model, tokens) for name, model in every.items()}
    return {pair: similarity(read[one], read[other]) for pair, (one, other) in PAIRS.items()}
