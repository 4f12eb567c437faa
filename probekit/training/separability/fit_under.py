"""Training with items in place, which the gradient goes through; and what clamps do to it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from ...attachment import attach
from ...hooked.model import weights
from ...interventions import Clamp
from ...items import Item
from ...runs import RunDir
from ..fit import Optimisation, fit, read_weights
from ..stack import Stack
from ..tasks import Task
from .disturbance import disturbed_scores, read_signal


def fit_under(
    items: Sequence[Item],
    run: RunDir,
    model: TransformerBridge,
    task: Task,
    optimisation: Optimisation,
    seed: int,
    **more: Any,
) -> None:
    """Train ``model`` in place while ``items`` act, in training and in what is logged.

    Without items it is trained as a stack, which is faster and gives the same to rounding. What an
    item does must depend on the model and its input only, as a clamp does: :class:`Noise` draws by
    the number of the forward, which begins again when a killed run is resumed.

    Args:
        more: title, position, frozen and whatever else :func:`fit` takes.

    Raises:
        RunError: see :func:`fit`.
    """
    if not items:
        stack = Stack([model])
        fit(run, stack, task, optimisation, [seed], **more)
        stack.copy_to(0, model)
    elif run.done:
        read_weights(run, model)
    else:
        with attach(model, *items):
            fit(run, model, task, optimisation, [seed], **more)


#: Condition -> the clamp in place; all but the control have their attention frozen.
FROZEN = {"control": None, "frozen": None, "frozen, norm": "norm", "frozen, variance": "variance"}


def train_frozen(
    folder: Path,
    load: Callable[[], TransformerBridge],
    task: Task,
    optimisation: Optimisation,
    seed: int,
    position: int,
) -> dict[str, dict[str, float]]:
    """Train with attention frozen as it was initialised, with a clamp in place or none.

    As published the clamps' targets are what the control reads after its last block, and they are
    put after the final norm.

    Args:
        load: gives the untrained model, each time the same.

    Returns:
        by condition, of :data:`FROZEN`, the :func:`disturbed_scores` on held-out examples.
    """
    found: dict[str, dict[str, float]] = {}
    targets: dict[str | None, float] = {}
    tokens, labels = task.validation()
    for condition, mode in FROZEN.items():
        model, run = load(), RunDir(folder / condition.replace(", ", "-"))
        items: list[Any] = [Clamp(mode, targets[mode])] if mode else []
        frozen = [n for n in weights(model) if ".attn." in n and condition != "control"]
        title = f"{condition}, seed {seed}"
        more: dict[str, Any] = {"title": title, "position": position, "frozen": frozen}
        fit_under(items, run, model, task, optimisation, seed, **more)
        if condition == "control":
            last = f"{model.cfg.n_layers - 1}.resid_post"
            signal = read_signal(model, tokens, site=last)
            targets = {"norm": signal.norm, "variance": signal.spread}
        found[condition] = disturbed_scores(model, items, tokens, labels)
    return found
