"""Both arms against a plain PyTorch loop: one model, two AdamW, each group clipped to 1.

In float64, so that the one and the other differ by rounding only: Adam divides a gradient by its
own size, which in single precision makes a step out of an error.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import probekit as pk
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import ConditionRun, Schedule, modular_split, train_conditions, two_arms

SEED, STEPS, BATCH, LR = 3, 3, 64, 2e-2
SCHEDULE = Schedule(steps=STEPS, batch=BATCH, lr=LR, log_every=1, monitor_every=STEPS)
ARMS = ("published", "corrected")
#: Slow factor and losses of the conditions that train side by side.
SETTINGS: dict[str, dict[str, float]] = {
    "low": {"slow": 0.1, "convergence": 3.0, "set_point": 2.0, "target": 0.4},
    "high": {"slow": 0.5, "convergence": 0.5, "set_point": 40.0, "target": 0.9},
}


def _tokens(pairs: Tensor, arm: str) -> tuple[Tensor, Tensor]:
    """a a b b 0 and the answer, or '=' in its place; read at the last position."""
    rows = [[a, a, b, b, 0, (a + b) % 113 if arm == "published" else 113] for a, b in pairs]
    return torch.tensor(rows), pairs.sum(-1) % 113


def _vdi(pattern: Tensor, rows: str) -> Tensor:
    """A query at a time, over the keys that it may see; ``[head]``."""
    mean = pattern.mean(0)
    entropies = [torch.special.entr(mean[:, q, : q + 1]).sum(-1) for q in range(6)]
    if rows == "length":
        return sum(entropies) / 6 / np.log(6)
    return sum(entropies[q] / np.log(q + 1) for q in range(1, 6)) / 5


class PlainLoop:
    """One condition alone, with the rows that it logs."""

    def __init__(self, arm: str, slow: float, target: float, **factors: float) -> None:
        self.arm, self.target, self.factors = arm, target, factors
        self.model = pk.load("grokking", seed=SEED)
        self.parameters = weights(self.model)
        left_out = ("ln_out.", "head.") if arm == "published" else ()
        fast = [p for name, p in self.parameters.items() if name.startswith("layers.0.")]
        rest = [
            p
            for name, p in self.parameters.items()
            if not name.startswith(("layers.0.", *left_out))
        ]
        self.optimizers = [
            torch.optim.AdamW(fast, lr=LR, betas=(0.9, 0.95), weight_decay=1.0),
            torch.optim.AdamW(rest, lr=LR * slow, betas=(0.9, 0.99), weight_decay=1.0),
        ]
        self.rows = [self._step(step) for step in range(STEPS + 1)]
        self.weights = {name: p.detach() for name, p in self.parameters.items()}

    def _step(self, step: int) -> dict[str, Any]:
        """Log and, but at the end, update."""
        train, _ = modular_split()
        draw = np.random.default_rng([SEED, 0, step]).integers(0, len(train), BATCH)
        tokens, labels = _tokens(train[draw], self.arm)
        seen: list[Tensor] = []
        with pk.attach(self.model, pk.Edit("0.pattern", lambda p: seen.append(p) or p)):
            task = F.cross_entropy(self.model(tokens)[:, -1], labels)
        by_length, visible = (_vdi(seen[0], rows) for rows in ("length", "visible"))
        vdi = by_length if self.arm == "published" else visible
        terms = {
            "task": task,
            "convergence": (vdi[0] - vdi[1]).abs() / 2**0.5,
            "set_point": (vdi.mean() - self.target) ** 2,
        }
        row = {
            "vdi": by_length,
            "vdi_visible": visible,
            "vdi_mean": by_length.mean(),
            "vdi_spread": (by_length[0] - by_length[1]).abs() / 2**0.5,
            "test_accuracy": self._accuracy(),
            "losses": {name: float(term.detach()) for name, term in terms.items()},
            "norms": {name: self._norm(term) for name, term in terms.items()},
        }
        if step < STEPS:
            self._update(terms)
        return row

    def _update(self, terms: dict[str, Tensor]) -> None:
        loss = terms["task"]
        if self.arm == "corrected":
            loss = loss + sum(factor * terms[name] for name, factor in self.factors.items())
        self.model.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
            optimizer.step()

    def _norm(self, term: Tensor) -> float:
        """Of the gradient with respect to everything, by way of one long vector."""
        parameters = list(self.parameters.values())
        gradients = torch.autograd.grad(
            term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())

    @torch.no_grad()
    def _accuracy(self) -> float:
        """On the first thousand test pairs."""
        tokens, labels = _tokens(modular_split()[1][:1000], self.arm)
        return float((self.model(tokens)[:, -1].argmax(-1) == labels).double().mean())


@pytest.fixture(scope="module", autouse=True)
def _double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module", params=ARMS)
def arm(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def plain(arm: str) -> dict[str, PlainLoop]:
    return {name: PlainLoop(arm, **settings) for name, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def trained(arm: str, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(arm)
    pairs = [two_arms(name, **settings) for name, settings in SETTINGS.items()]
    conditions = [pair[ARMS.index(arm)] for pair in pairs]
    train_conditions(folder / "stack", conditions, SEED, SCHEDULE, title="", position=0)
    return folder


@pytest.fixture(scope="module")
def rows(arm: str, trained: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: ConditionRun.read(trained / f"{arm}-{name}").rows for name in SETTINGS}


def test_the_weights_are_the_plain_loops(plain, trained) -> None:
    step, tensors, _ = RunDir(trained / "stack").load_checkpoint()  # type: ignore[misc]
    assert step == STEPS
    for loop in plain.values():  # which run of the stack it is, is the stack's own business
        distances = [
            max(float((tensors[key][run] - own).abs().max()) for key, own in loop.weights.items())
            for run in range(len(SETTINGS))
        ]
        # The guard of 1e-10 inside the logarithm, seen through Adam; conditions are 1e-3 apart.
        assert min(distances) < 1e-6 and max(distances) > 1e-3


def test_vdi_losses_and_spread_are_the_plain_loops(plain, rows) -> None:
    for name, loop in plain.items():
        assert [row["step"] for row in rows[name]] == list(range(STEPS + 1))
        for row, own in zip(rows[name], loop.rows, strict=True):
            for key in ("vdi", "vdi_visible", "vdi_mean", "vdi_spread"):
                assert row[key] == pytest.approx(own[key].tolist(), abs=1e-8), key
            assert row["losses"] == pytest.approx(own["losses"], abs=1e-8)


def test_accuracy_is_each_runs_own_on_test_pairs(plain, rows) -> None:
    logged = {name: [row["test_accuracy"] for row in rows[name]] for name in SETTINGS}
    assert logged == {
        name: [row["test_accuracy"] for row in loop.rows] for name, loop in plain.items()
    }
    assert logged["low"] != logged["high"]


def test_gradient_norms_are_those_in_the_loss_and_those_if_attached(arm, plain, rows) -> None:
    for name, loop in plain.items():
        for row, own in list(zip(rows[name], loop.rows, strict=True))[::STEPS]:
            live = {term: own["norms"][term] for term in ("convergence", "set_point")}
            assert row["attached_gradient_norms"] == pytest.approx(live, rel=1e-6)
            in_loss = live if arm == "corrected" else dict.fromkeys(live, 0.0)
            expected = {"task": own["norms"]["task"], **in_loss}
            assert row["gradient_norms"] == pytest.approx(expected, rel=1e-6)
