"""Conditions trained side by side: their stack, their optimizer, and what is logged of each.

Conditions that differ only in terms without a gradient are one computation. It is done once, and
each of them logs it against its own target; :func:`difference_if_apart` does it more than once.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..attachment import attach
from ..errors import RunError
from ..hooked.load import load
from ..hooked.model import weights
from ..probes import VDI, Record
from .conditions import Condition, Schedule
from .homeostasis import Homeostasis, convergence, live_vdi, loss_terms, total
from .kill_test import kill_test
from .modular import ModularData
from .monitor import gaussian_entropy
from .stack import Stack
from .stacked_adamw import StackedAdamW, clip_stacked_grad_norm
from .timescales import BETAS, complete_groups, published_groups
from .window import head_spread

CARD = "grokking"


class SideBySide:
    """The conditions' models in one stack, their optimizer, and what is done at each step."""

    def __init__(
        self, conditions: Sequence[Condition], seed: int, schedule: Schedule, *, apart: bool = False
    ) -> None:
        shared = {(one.slow is None, one.layout, one.complete) for one in conditions}
        if len(shared) != 1:
            raise RunError("conditions of one stack share slow=None, layout and complete")
        self.schedule = schedule
        self.losses = [one.losses for one in conditions]
        keys = [index if apart else algorithm(one) for index, one in enumerate(conditions)]
        runs = dict(zip(reversed(keys), reversed(conditions), strict=True))
        self.run_of = [list(runs).index(key) for key in keys]
        self.trained = [one.losses for one in runs.values()]
        self.live = apart or any(one.attached for one in self.trained)
        self.data = ModularData.of(seed, conditions[0].layout)
        self.model = load(CARD, seed=seed)
        self.stack = Stack([self.model] * len(runs))
        self.groups, groups = _groups(self.stack, list(runs.values()), schedule)
        self.optimizer = StackedAdamW(groups, weight_decay=schedule.weight_decay)

    def update(self, step: int) -> None:
        tokens, labels = self.data.batch(step, self.schedule.batch)
        if self.live:  # all terms are in the loss
            logits, patterns = self.stack.logits_and_patterns(tokens)
            terms = loss_terms(patterns[0], self.trained)
            loss = total(_cross_entropy(logits, labels), terms, self.trained)
        else:  # detached terms are constants: the published algorithm without their cost
            loss = _cross_entropy(self.stack.logits(tokens), labels)
        self.optimizer.zero_grad()
        loss.sum().backward()
        for group in self.groups:
            clip_stacked_grad_norm([self.stack.parameters[name] for name in group], 1.0)
        self.optimizer.step()

    def log(self, step: int) -> dict[str, Any]:
        """A row with one sub-row a run."""
        tokens, labels = self.data.batch(step, self.schedule.batch)
        monitor = step % self.schedule.monitor_every == 0
        with torch.set_grad_enabled(monitor):
            logits, patterns = self.stack.logits_and_patterns(tokens)
            task = _cross_entropy(logits, labels)[self.run_of]
            pattern = patterns[0][self.run_of]
            terms = {"task": task, **loss_terms(pattern, self.losses)}
        test_tokens, test_labels = self.data.test
        right = self.stack.logits(test_tokens).argmax(-1) == test_labels
        accuracy = right.double().mean(-1)[self.run_of]
        vdi, by_row = live_vdi(pattern.detach()), live_vdi(pattern.detach(), "visible")
        norms = self._gradients(pattern, terms) if monitor else {}
        monitored = [self._monitor(run, step) for run in range(len(self.stack))]
        runs = []
        for index, run in enumerate(self.run_of):
            row: dict[str, Any] = {
                "vdi": vdi[index],
                "vdi_mean": vdi[index].mean(),
                "vdi_spread": head_spread(vdi[index], sample=True),
                "vdi_visible": by_row[index],
                "test_accuracy": accuracy[index],
                "losses": {name: values[index].detach() for name, values in terms.items()},
                **{kind: {n: v[index] for n, v in each.items()} for kind, each in norms.items()},
            }
            runs.append({**row, **monitored[run]})
        return {"step": step, "runs": runs}

    @torch.enable_grad()
    def _gradients(
        self, pattern: Float[Tensor, "condition batch head query key"], terms: dict[str, Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """Norms of each term's gradient: as it is in the loss, and if patterns were attached."""
        vdi = torch.stack(
            [live_vdi(p, one.rows) for p, one in zip(pattern, self.losses, strict=True)]
        )
        targets = vdi.new_tensor([one.target for one in self.losses])
        live = {"convergence": convergence(vdi), "set_point": (vdi.mean(-1) - targets) ** 2}
        return {
            "gradient_norms": {name: self._norm(values) for name, values in terms.items()},
            "attached_gradient_norms": {name: self._norm(values) for name, values in live.items()},
        }

    def _norm(self, term: Float[Tensor, " condition"]) -> Float[Tensor, " condition"]:
        """Of the gradient with respect to all parameters; 0 where there is no gradient."""
        parameters = list(self.stack.parameters.values())
        norms = torch.zeros(len(term))
        for index, one in enumerate(term if term.requires_grad else ()):
            gradients = torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True)
            squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
            norms[index] = torch.stack(squares).sum().sqrt() if squares else 0.0
        return norms

    def _monitor(self, run: int, step: int) -> dict[str, Any]:
        """What only the hooked model can tell: the monitor's VDI, rows, kill tests."""
        every = self.schedule.monitor_every
        self.stack.copy_to(run, self.model)
        probes = [VDI(), Record("0.pattern"), Record("0.resid_post", name="resid")]
        with torch.no_grad(), attach(self.model, *probes) as seen:
            self.model(self.data.monitored)
        vdi = seen["vdi"]
        row: dict[str, Any] = {"monitor_vdi": vdi.values[0]}
        if step % every == 0:
            row["vdi_by_query"] = vdi.rows.values[0] if vdi.rows else None
            row["gaussian_entropy"] = gaussian_entropy(seen["resid"].values.flatten(0, 1))
            row["pattern"] = seen["record"].values[0]
            row["norms"] = {
                name: weights(self.model)[f"layers.0.attn.{name}.weight"].norm() for name in "qkvo"
            }
        if step % (2 * every) == every:
            row["kill_test"] = kill_test(self.model, self.data.monitored)
        return row


def difference_if_apart(
    conditions: Sequence[Condition], seed: int, schedule: Schedule, steps: int
) -> float:
    """The largest difference between parameters of conditions that :func:`algorithm` calls one.

    After ``steps`` steps, trained apart, with every term in the loss. 0 if it is right, and where
    no two conditions are one.
    """
    stacked = SideBySide(conditions, seed, schedule, apart=True)
    pairs = [
        (stacked.run_of[i], stacked.run_of[j])
        for i, j in combinations(range(len(conditions)), 2)
        if algorithm(conditions[i]) == algorithm(conditions[j])
    ]
    for step in range(steps if pairs else 0):
        stacked.update(step)
    return max(
        (
            float((parameter[i] - parameter[j]).detach().abs().max())
            for parameter in stacked.stack.parameters.values()
            for i, j in pairs
        ),
        default=0.0,
    )


def algorithm(condition: Condition) -> tuple[float | None, Homeostasis | None]:
    """What tells one run's parameters from another's: terms without a gradient do not."""
    return condition.slow, condition.losses if condition.losses.attached else None


def _cross_entropy(
    logits: Float[Tensor, "run batch d_vocab"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, " run"]:
    """The mean over the batch, a run each."""
    runs, batch, _ = logits.shape
    each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(runs), reduction="none")
    return each.view(runs, batch).mean(-1)


def _groups(
    stack: Stack, conditions: Sequence[Condition], schedule: Schedule
) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Names that are clipped together, and the optimizer's groups."""
    names = list(stack.parameters)
    if conditions[0].slow is None:
        return [names], [{"params": list(stack.parameters.values()), "lr": schedule.lr}]
    split = complete_groups(names) if conditions[0].complete else published_groups(names)
    slow = schedule.lr * torch.tensor([one.slow for one in conditions])
    groups = [
        {"params": [stack.parameters[name] for name in split[kind]], "lr": lr, "betas": betas}
        for kind, lr, betas in zip(("fast", "slow"), (schedule.lr, slow), BETAS, strict=True)
    ]
    return [split["fast"], split["slow"]], groups
