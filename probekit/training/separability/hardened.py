"""Training under noise ("hardening"), and accuracy under noise afterwards.

A network that was trained under noise and answers under noise has learned to be heard above it, or
that its answer does not need what the noise covers. Read the length of the signal where the noise
is added, and the accuracy with the signal deleted, before calling it robust.

Read more: Bishop 1995, "Training with Noise is Equivalent to Tikhonov Regularization".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...hooked.model import HookedModel
from ...interventions import Edit, Noise
from ...items import Item
from ...runs import RunDir
from ..fit import Optimisation, fit
from ..stack import Stack
from ..tasks import Task
from .hybrids import accuracy
from .sedation import setting_key

#: Trained without noise, with it, and without again; the last two have one start.
NETWORKS = ("baseline", "hardened", "another baseline")


@dataclass(frozen=True)
class LastLabel:
    """A task of which only the last position is trained and scored.

    Its ceiling is unknown. Of ``ModularTask("sequence")`` the last label is PAD in every example:
    a constant, which an offset answers.
    """

    task: Task

    @property
    def config(self) -> dict[str, Any]:
        """Sizes of a model's input and vocabulary."""
        return self.task.config

    @property
    def ceiling(self) -> float | None:
        """Unknown."""
        return None

    def batch(
        self, generator: np.random.Generator, size: int
    ) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch 1"]]:
        """The task's own, less all labels but the last."""
        tokens, labels = self.task.batch(generator, size)
        return tokens, labels[:, -1:]

    def validation(self) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch 1"]]:
        """The task's own, less all labels but the last."""
        tokens, labels = self.task.validation()
        return tokens, labels[:, -1:]


def fit_hardened(
    run: RunDir,
    model: TransformerBridge,
    task: Task,
    optimisation: Optimisation,
    seed: int,
    sites: Sequence[str],
    sigma: float,
    **more: Any,
) -> None:
    """Train ``model`` in place under ``N(0, sigma^2)`` at ``sites``, drawn anew at every step.

    What is logged is without noise. May be killed, and goes on with the noise of its step.

    Args:
        seed: of the batches and of the noise.
        more: title, position and whatever else :func:`fit` takes, but edits.

    Raises:
        RunError: see :func:`fit`.
    """

    def edits(step: int) -> list[Item]:
        return noise(sites, sigma, seed * (optimisation.steps + 1) + step)

    fit(run, model, task, optimisation, [seed], edits=edits, **more)


def train_hardened(
    run: RunDir,
    load: Callable[[int], HookedModel],
    task: Task,
    optimisation: Optimisation,
    seed: int,
    sites: Sequence[str],
    sigma: float,
    **more: Any,
) -> dict[str, HookedModel]:
    """Two networks trained without noise, and one with it that starts as the second of them.

    So the first and the hardened have nothing in common but the task, as two networks without a
    seed; the second and the hardened differ by the noise alone. May be killed, and goes on.

    Args:
        load: from a seed to a network with its initial weights; starts are ``2 seed`` and the next.
        more: title and position, see :func:`fit`.

    Returns:
        the networks by :data:`NETWORKS`.

    Raises:
        RunError: see :func:`fit`.
    """
    starts = (2 * seed, 2 * seed + 1)
    baseline, other, hardened = (load(start) for start in (*starts, starts[1]))
    stack = Stack([baseline, other])
    fit(RunDir(run.path / "baseline"), stack, task, optimisation, starts, **more)
    for index, model in enumerate((baseline, other)):
        stack.copy_to(index, model)
    folder = RunDir(run.path / "hardened")
    fit_hardened(folder, hardened, task, optimisation, starts[1], sites, sigma, **more)
    return dict(zip(NETWORKS, (baseline, hardened, other), strict=True))


def noise(sites: Sequence[str], sigma: float, seed: int) -> list[Item]:
    """An item a site; sites draw apart, as :class:`~probekit.Noise` draws by site."""
    return [Noise(sigma, site, seed) for site in sites]


def noise_accuracies(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch read"],
    sites: Sequence[str],
    sigmas: Sequence[float],
    draws: int,
    *before: Item,
) -> dict[str, float]:
    """Accuracy (fraction) by sigma, the mean over draws, the same draws for every sigma.

    Args:
        sites: where noise is added, such as ``["0.ln1"]``.
        before: act first: a swap of weights, or :func:`silence`.
    """
    return {
        setting_key(sigma): float(
            np.mean(
                [
                    accuracy(model, tokens, labels, *before, *noise(sites, sigma, seed))
                    for seed in range(draws if sigma else 1)
                ]
            )
        )
        for sigma in sigmas
    }


def silence(site: str) -> Edit:
    """Deletes the signal at a site. With noise after it, what is predicted is known beforehand."""
    return Edit(site, torch.zeros_like)
