"""Networks that go on from one state with attention's geometry frozen, and how alike they end.

What the write-up calls geometry is the packed Q, K and V. A probe trains beside an anchor that does
not learn any more; each of its logs has the cosine to that anchor, so that one sees at which
accuracy the cosine gets small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...runs import RunDir
from ..branches import branch, fit_keeping
from ..fit import Optimisation, fit
from ..leak import find_leak
from ..stack import Stack
from ..tasks import Task
from .solutions import Solution, compare_solutions, read_solution, similarity_penalty


@dataclass(frozen=True)
class BranchRuns:
    """The fits of one seed on one task, each in a folder of its own.

    Args:
        seed: batches of number b are drawn by ``10 seed + b``: fits that give one number see the
            same batches.
    """

    run: RunDir
    task: Task
    seed: int
    title: str
    position: int

    def train(
        self,
        name: str,
        stack: Stack,
        how: Optimisation,
        batches: Sequence[int],
        *,
        at: int,
        frozen: Sequence[str] = (),
    ) -> Stack:
        """Train by cross-entropy alone; returns the stack as it was at step ``at``."""
        seeds, more = self._seeds(batches), {**self._where(name), "frozen": frozen}
        return fit_keeping(self._folder(name), stack, self.task, how, seeds, at, **more)

    def probes(
        self,
        name: str,
        stack: Stack,
        anchor: Stack,
        how: Optimisation,
        batches: Sequence[int],
        penalties: Mapping[int, str],
    ) -> None:
        """Train with geometry frozen beside an anchor, a network for each run of the stack.

        Args:
            penalties: by run what :func:`similarity_penalty` asks to be 0.
        """
        tokens, labels = self.task.validation()

        def watch(*_: Any) -> Mapping[str, Any]:
            pairs = (each.final(tokens, labels.shape[1]) for each in (stack, anchor))
            return {"cosine": torch.cosine_similarity(*pairs, dim=-1).mean((1, 2))}

        more = {**self._where(name), "frozen": geometry(stack), "watch": watch}
        if penalties:
            held = branch([(anchor, run) for run in penalties])
            more["penalty"] = similarity_penalty(held, penalties)
        fit(self._folder(name), stack, self.task, how, self._seeds(batches), **more)

    def solution(self, stack: Stack, run: int) -> Solution:
        """One network on the task's validation set."""
        tokens, labels = self.task.validation()
        return read_solution(stack, run, tokens, labels.shape[1])

    def compare(
        self, anchor: Solution, others: Mapping[str, Solution]
    ) -> dict[str, dict[str, float]]:
        """Of each other network its accuracy, and how alike it is to the anchor."""
        _, labels = self.task.validation()
        return {
            name: {
                "accuracy": float((other.logits.argmax(-1) == labels.flatten()).double().mean()),
                **compare_solutions(anchor, other, labels),
            }
            for name, other in others.items()
        }

    def curve(self, name: str, run: int, what: str = "accuracy") -> dict[int, float]:
        """By step what the logs of a fit have of one run."""
        return {row["step"]: row[what][run] for row in self._folder(name).rows()}

    def curves(
        self, name: str, networks: Sequence[str], what: str = "accuracy"
    ) -> dict[str, dict[int, float]]:
        """:meth:`curve` of each run of a fit, by what it is called."""
        return {network: self.curve(name, run, what) for run, network in enumerate(networks)}

    def leak(self, stack: Stack) -> str:
        """Whether the answer is among the inputs of a stack's first network, in words."""
        tokens, labels = self.task.validation()
        read = labels.shape[1]
        return str(
            find_leak(
                lambda x: stack.unembed(stack.final(x, read))[0],
                tokens,
                labels,
                ceiling=self.task.ceiling,
            )
        )

    def _folder(self, name: str) -> RunDir:
        return RunDir(self.run.path / name)

    def _seeds(self, batches: Sequence[int]) -> list[int]:
        return [10 * self.seed + batch for batch in batches]

    def _where(self, name: str) -> dict[str, Any]:
        return {"title": f"{self.title}, {name}", "position": self.position}


def geometry(stack: Stack) -> list[str]:
    """Names of the parameters of Q, K and V, in all layers."""
    return [name for name in stack.parameters if any(f".attn.{p}." in name for p in "qkv")]
