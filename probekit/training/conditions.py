"""Conditions of a homeostatic-training experiment: how one run departs from the others, as data.

:func:`~probekit.training.train_conditions` trains them.
Source: "Homeostatic Crystallization", sections 4-5.
"""

from dataclasses import dataclass, field

from ..errors import RunError
from .homeostasis import Homeostasis
from .modular import Layout


@dataclass(frozen=True)
class Condition:
    """One run.

    Args:
        name: of its folder.
        losses: what is added to the cross-entropy.
        slow: factor of the slow group's learning rate; None is one optimizer for all (baseline).
        layout: whether the answer is among the input tokens, as published, or not.
        complete: whether the dual-timescale groups hold every parameter.
    """

    name: str
    losses: Homeostasis = field(default_factory=Homeostasis)
    slow: float | None = 0.1
    layout: Layout = "published"
    complete: bool = False


def two_arms(
    name: str, *, slow: float | None = 0.1, **losses: float
) -> tuple[Condition, Condition]:
    """A condition as published and corrected, ``published-<name>`` and ``corrected-<name>``.

    Corrected: live patterns, rows normalised by the keys that they may see, the answer not among
    the input tokens, and every parameter in an optimizer.

    Args:
        losses: weights and target, fields of :class:`Homeostasis`.
    """
    return (
        Condition(f"published-{name}", Homeostasis(**losses), slow),  # type: ignore[arg-type]
        Condition(
            f"corrected-{name}",
            Homeostasis(**losses, attached=True, rows="visible"),  # type: ignore[arg-type]
            slow,
            layout="leak-free",
            complete=True,
        ),
    )


@dataclass(frozen=True)
class Schedule:
    """The published optimisation, and how often to look."""

    steps: int = 10_000  # optimizer steps
    batch: int = 512  # examples a step, drawn with replacement
    lr: float = 1e-3  # of the first block, or of all
    weight_decay: float = 1.0  # on all optimized parameters
    log_every: int = 100  # steps between log rows
    monitor_every: int = 500  # steps between monitor checkpoints; kill tests at every second one

    def __post_init__(self) -> None:
        check_intervals(self.steps, self.log_every, self.monitor_every)


def check_intervals(steps: int, log_every: int, monitor_every: int) -> None:
    """Every monitor checkpoint is a log row, and there is one after the start.

    Raises:
        RunError: it is not so.
    """
    if monitor_every % log_every or steps < monitor_every:
        raise RunError(
            "monitor_every must be a multiple of log_every, and at most steps; given "
            f"{monitor_every}, {log_every} and {steps}"
        )
