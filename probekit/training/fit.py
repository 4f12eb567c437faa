"""Train the models of a stack, or one hooked model, on a task; may be killed and resumed.

For experiments that train many small models under one protocol and look at them afterwards: the
loop, the log of what validation reads, and the weights. Items that act in training (noise, clamps)
need a hooked model; models without them train faster as a stack.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.model_bridge import TransformerBridge

from ..attachment import attach
from ..errors import RunError
from ..hooked.equilibrium_model import EquilibriumModel
from ..hooked.model import copy_into, weights
from ..items import Item
from ..runs import RunDir
from .loop import train
from .stack import Stack
from .stacked_adamw import StackedAdamW, clip_stacked_grad_norm
from .tasks import Task

Model = Stack | TransformerBridge
#: (step, tokens, what the final norm gives at the positions that are read) to what is added to
#: each run's loss
Penalty = Callable[
    [int, Int[Tensor, "*run batch pos"], Float[Tensor, "run batch read d_model"]],
    Float[Tensor, " run"],
]
#: (step, its row of the log) to what is added to the row
Watch = Callable[[int, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Optimisation:
    """By AdamW; without weight decay it is Adam."""

    steps: int
    batch: int
    lr: float = 1e-3
    weight_decay: float = 0.0  # decoupled, on all trained parameters
    clip: float | None = None  # largest gradient norm of a run
    log_every: int = 100  # steps


def fit(
    run: RunDir,
    model: Model,
    task: Task,
    optimisation: Optimisation,
    seeds: Sequence[int],
    *,
    title: str,
    position: int,
    frozen: Sequence[str] = (),
    penalty: Penalty | None = None,
    edits: Callable[[int], Sequence[Item]] | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
    state: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Train ``model`` in place; a finished run only gives it the weights that it ended with.

    ``metrics.jsonl`` gets a row every ``log_every`` steps: on the task's validation set accuracy
    (fraction), loss (nats) and margin (label's logit less the largest other), on the step's batch
    ``train_accuracy`` and ``train_loss``, each a number a run; and what ``watch`` adds.

    Args:
        seeds: of the batches, one a run; runs of one seed see the same batches.
        frozen: parameters that are not trained, by their names in a checkpoint.
        penalty: added to the cross-entropy, of stacks only.
        edits: by step what acts on one hooked model while it is trained, not while it is logged.
            Seed noise by the step, or a resumed run would draw other noise.
        stop: asked after each log whether the run ends here.
        state: further tensors of ``watch`` or ``penalty``, saved and restored with a checkpoint.

    Raises:
        RunError: a parameter to freeze that is not there, another number of seeds than runs, edits
            of a stack, or a folder of another run.
    """
    own = _parameters(model)
    runs = len(model) if isinstance(model, Stack) else 1
    _check(own, runs, seeds, frozen)
    if edits and isinstance(model, Stack):
        raise RunError("edits attach to a hooked model, not to a stack; train one model at a time")
    run.start(
        {"task": repr(task), **asdict(optimisation), "seeds_of_runs": seeds, "frozen": frozen}
    )
    for name, parameter in own.items():
        parameter.requires_grad_(name not in frozen)
    if run.done:
        read_weights(run, model)
        return
    trained = [parameter for name, parameter in own.items() if name not in frozen]
    optimizer = StackedAdamW(trained, lr=optimisation.lr, weight_decay=optimisation.weight_decay)
    held_out, every = task.validation(), optimisation.log_every

    def batch(step: int) -> tuple[Tensor, Tensor]:
        # A generator a step, so that a resumed run draws what an uninterrupted one would.
        drawn = {
            seed: task.batch(np.random.default_rng([seed, 0, step]), optimisation.batch)
            for seed in seeds
        }
        if len(drawn) == 1:
            return drawn[seeds[0]]
        tokens, labels = zip(*(drawn[seed] for seed in seeds), strict=True)
        return torch.stack(tokens), torch.stack(labels)

    def update(step: int) -> None:
        tokens, labels = batch(step)
        optimizer.zero_grad()
        with _acting(model, edits, step):
            if penalty is None:
                loss = cross_entropy(read_logits(model, tokens, labels.shape[-1]), labels)
            else:
                assert isinstance(model, Stack)
                final = model.final(tokens, labels.shape[-1])
                loss = cross_entropy(model.unembed(final), labels)
                loss = loss + penalty(step, tokens, final)
            loss.sum().backward()
        if optimisation.clip is not None:
            _clip(trained, optimisation.clip, isinstance(model, Stack))
        optimizer.step()

    def log(step: int) -> dict[str, Any]:
        seen = scores(model, *batch(step))
        row = {"step": step, **scores(model, *held_out)}
        row |= {f"train_{name}": seen[name] for name in ("accuracy", "loss")}
        return {**row, **(watch(step, row) if watch else {})}

    train(
        run,
        model,
        optimizer,
        steps=optimisation.steps,
        update=update,
        log=log,
        log_every=every,
        checkpoint_every=optimisation.log_every
        * (1 if stop else max(1, 500 // optimisation.log_every)),
        title=title,
        position=position,
        stop=stop,
        state=state,
    )
    run.write_json("summary.json", {"steps": optimisation.steps})


def read_weights(run: RunDir, model: Model | EquilibriumModel) -> None:
    """Give ``model`` the weights of the last checkpoint: of a finished run, those it ended with.

    Raises:
        RunError: there is no checkpoint, or it is damaged.
        CardError: it is of another model.
    """
    saved = run.load_checkpoint()
    if saved is None:
        raise RunError(f"{run.path} has no checkpoint; run it first")
    own = _parameters(model)
    copy_into(own, {name: tensor for name, tensor in saved[1].items() if name in own})


def read_logits(
    model: Model, tokens: Int[Tensor, "*run batch pos"], read: int
) -> Float[Tensor, "run batch read d_vocab"]:
    """Logits at the last ``read`` positions, with an axis `run` of 1 for one model."""
    if isinstance(model, Stack):
        return model.unembed(model.final(tokens, read))
    logits = model(tokens[0] if tokens.ndim == 3 else tokens)
    return logits[None, :, -read:]


@torch.no_grad()
def scores(
    model: Model, tokens: Int[Tensor, "*run batch pos"], labels: Int[Tensor, "*run batch read"]
) -> dict[str, Float[Tensor, " run"]]:
    """Accuracy (fraction), cross-entropy (nats) and margin (logits), a number a run."""
    logits = read_logits(model, tokens, labels.shape[-1])
    labels = labels.expand(logits.shape[:-1])
    return {
        "accuracy": (logits.argmax(-1) == labels).double().mean((1, 2)),
        "loss": cross_entropy(logits, labels).double(),
        "margin": margins(logits, labels).double().mean((1, 2)),
    }


def cross_entropy(
    logits: Float[Tensor, "run batch read d_vocab"], labels: Int[Tensor, "*run batch read"]
) -> Float[Tensor, " run"]:
    """The mean over examples and read-out positions, a run each (nats)."""
    each = F.cross_entropy(
        logits.flatten(0, 2), labels.expand(logits.shape[:-1]).flatten(), reduction="none"
    )
    return each.view(len(logits), -1).mean(-1)


def margins(
    logits: Float[Tensor, "*rest d_vocab"], labels: Int[Tensor, "*rest"]
) -> Float[Tensor, "*rest"]:
    """Logit of the label less the largest other: 0 is the decision boundary."""
    chosen = logits.gather(-1, labels[..., None])
    others = logits.scatter(-1, labels[..., None], -torch.inf)
    return chosen[..., 0] - others.amax(-1)


def _acting(
    model: Model, edits: Callable[[int], Sequence[Item]] | None, step: int
) -> AbstractContextManager[Any]:
    return (
        nullcontext() if edits is None or isinstance(model, Stack) else attach(model, *edits(step))
    )


def _parameters(model: Model | EquilibriumModel) -> dict[str, Any]:
    return dict(model.parameters) if isinstance(model, Stack) else dict(weights(model))


def _clip(parameters: Sequence[Tensor], largest: float, stacked: bool) -> None:
    if stacked:
        clip_stacked_grad_norm(parameters, largest)
    else:
        nn.utils.clip_grad_norm_(parameters, largest)


def _check(
    own: Mapping[str, Tensor], runs: int, seeds: Sequence[int], frozen: Sequence[str]
) -> None:
    unknown = [name for name in frozen if name not in own]
    if unknown:
        raise RunError(f"cannot freeze {', '.join(unknown)}; the parameters are {', '.join(own)}")
    if len(seeds) != runs:
        raise RunError(f"fit needs a seed a run: {runs} runs, given {len(seeds)} seeds")
