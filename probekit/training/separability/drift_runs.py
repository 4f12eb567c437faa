"""Train a model and log how each of its parts moves, and how much of that is weight decay.

Between two logs n steps apart AdamW multiplies a parameter by ``(1 - lr * wd)**n`` and adds what
the gradients did. ``beyond_decay`` is the length of the second part alone: a part that only decays
has a velocity, but nothing beyond decay.

Source: "The Conservation of Separability", experiments 2 and 2B, which log the velocity only.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...attachment import attach
from ...errors import ProbekitError
from ...hooked.model import weights
from ...hooked.selection import Selection
from ...probes import VDI
from ...runs import RunDir
from ..drift import DriftTracker, parameter_distance, parameter_norm
from ..fit import Optimisation, cross_entropy, fit, read_logits
from ..stack import Stack
from ..tasks import Task

#: Parts whose drift is logged, by the parts of FreezeWeights; the write-up's "QK" is QKV where
#: the three are packed.
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **{part: (part,) for part in ("Q", "K", "V", "O", "MLP", "LN", "EMBED", "POS", "UNEMBED")},
        "QK": ("Q", "K"),
        "QKV": ("Q", "K", "V"),
        "OV": ("V", "O"),
    }
)
_LOOKED_AT = 256  # validation examples whose attention is logged


def part_names(
    model: TransformerBridge, groups: Mapping[str, Sequence[str]] = GROUPS
) -> dict[str, tuple[str, ...]]:
    """Names of the parameters of each group, as a checkpoint and a :class:`Stack` have them.

    Args:
        groups: by name, parts of Q, K, V, O, MLP, LN, EMBED, POS, UNEMBED.

    Raises:
        ProbekitError: an unknown part, one that the model lacks, or one that is fused with others.
    """
    named = {tensor.data_ptr(): name for name, tensor in weights(model).items()}
    found: dict[str, tuple[str, ...]] = {}
    for group, parts in groups.items():
        slices = Selection(tuple(parts)).find(model)
        if any(each.view.numel() != each.parameter.numel() for each in slices):
            raise ProbekitError(f"{group} is a slice of a fused parameter; track the whole of it")
        found[group] = tuple(dict.fromkeys(named[each.parameter.data_ptr()] for each in slices))
    return found


def fit_with_drift(
    run: RunDir,
    model: TransformerBridge,
    task: Task,
    optimisation: Optimisation,
    seed: int,
    *,
    title: str,
    position: int,
) -> None:
    """:func:`fit` one native model; each log row also says how the parts of ``GROUPS`` moved.

    ``parts`` holds for each of them ``norm``, ``velocity``, ``drift`` and ``displacement`` of
    :class:`DriftTracker`, ``beyond_decay`` (above) and ``gradient``, the root mean square of the
    loss gradient on training examples that are the same at every log. ``entropy`` is attention
    entropy by layer and head (:class:`VDI`, 1 for uniform attention), ``head_norm`` the norm of
    each head's rows of Q and K. The model is left with the weights that the run ended with.

    Raises:
        RunError: the folder holds another run.
    """
    watched = _Watched(Stack([model]), model, task, optimisation)
    fit(
        run,
        watched.stack,
        task,
        optimisation,
        [seed],
        title=title,
        position=position,
        watch=watched.row,
        state=watched.tracker.state,
    )
    watched.stack.copy_to(0, model)


class _Watched:
    """What is logged of a stack of one run."""

    def __init__(
        self, stack: Stack, model: TransformerBridge, task: Task, optimisation: Optimisation
    ) -> None:
        self.stack, self.model, self.optimisation = stack, model, optimisation
        self.tracker = DriftTracker(stack.parameters, part_names(model), stacked=True)
        self.shown = task.validation()[0][:_LOOKED_AT]
        self.examples = task.batch(np.random.default_rng(0), optimisation.batch)

    def row(self, step: int, _: Any) -> dict[str, Any]:
        beyond = self._each(self._beyond_decay(step))
        gradients = self._each(self._gradient)
        parts = self.tracker.log(self.stack.parameters)
        for part, moved in parts.items():
            moved |= {"beyond_decay": beyond[part], "gradient": gradients[part]}
        return {
            "parts": {
                part: {what: float(value) for what, value in moved.items()}
                for part, moved in parts.items()
            },
            **self._heads(),
        }

    def _each(self, measure: Callable[[Sequence[str]], Tensor]) -> dict[str, Tensor]:
        return {part: measure(names) for part, names in self.tracker.parts.items()}

    def _beyond_decay(self, step: int) -> Callable[[Sequence[str]], Tensor]:
        steps = min(step, self.optimisation.log_every)
        kept = (1 - self.optimisation.lr * self.optimisation.weight_decay) ** steps
        decayed = {
            name.removeprefix("drift.last."): tensor.double() * kept
            for name, tensor in self.tracker.state.items()
            if name.startswith("drift.last.")
        }
        return lambda names: parameter_distance(self.stack.parameters, decayed, names, stacked=True)

    @property
    def _gradient(self) -> Callable[[Sequence[str]], Tensor]:
        tokens, labels = self.examples
        own = self.stack.parameters
        with torch.enable_grad():
            loss = cross_entropy(read_logits(self.stack, tokens, labels.shape[-1]), labels)
            found = torch.autograd.grad(loss.sum(), list(own.values()))
        gradients = dict(zip(own, found, strict=True))
        return lambda names: (
            parameter_norm(gradients, names, stacked=True)
            / sum(own[name].numel() for name in names) ** 0.5
        )

    def _heads(self) -> dict[str, Float[Tensor, "layer head"]]:
        self.stack.copy_to(0, self.model)
        with attach(self.model, VDI(normaliser="visible")) as run:
            self.model(self.shown)
        layers, heads = run["vdi"].values.shape
        norms = [
            [_norm_of_head(self.model, layer, head) for head in range(heads)]
            for layer in range(layers)
        ]
        return {"entropy": run["vdi"].values, "head_norm": torch.tensor(norms)}


def _norm_of_head(model: TransformerBridge, layer: int, head: int) -> float:
    """Of its rows of Q and K as one vector."""
    found = Selection(("Q", "K"), layers=(layer,), heads=(head,)).find(model)
    return float(torch.cat([each.view.flatten() for each in found]).double().norm())
