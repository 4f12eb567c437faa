"""What attaching costs, beside bare models and the same jobs through other libraries.

    python benchmarks/attach.py                          # about 20 minutes on two idle cores
    python benchmarks/attach.py --rounds 3 --no-save     # a glance

Three jobs: VDI of every layer, one head's z scaled, one layer's residual recorded; on the real
MiniLM and on a model of GPT-2's shape with random weights. Bare are Hugging Face alone (eager;
SDPA; SDPA beside one explicit softmax per layer), probekit's bridge with nothing attached, and with
taps that read nothing. probekit attaches once for all forwards or anew for each; the others do
what their documentation shows, once a forward. All arms share one set of weights, and those that
give numbers must give equal ones before they are timed.

The limits: VDI on every layer of MiniLM takes at most 1.10 of the same forward that computes
patterns (eager), at most 1.15 of SDPA plus one explicit softmax, and less than every peer; a record
takes less than nnsight's and pyvene's.
"""

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import harness
import peers
import torch
from peers import OMEGA, Subject, output_of
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import probekit as pk

Job = Callable[[Tensor, Tensor | None], Any]
Arms = dict[str, Job]

EAGER, SDPA, SOFTMAX, BRIDGE = "HF eager", "HF SDPA", "HF SDPA + softmax", "bridge"
ONCE, ANEW = "probekit, attached once", "probekit, attached anew"
TAPS = "taps only"
HUGGING_FACE = {EAGER: "eager", SDPA: "sdpa", SOFTMAX: "sdpa_and_softmax"}
JOBS = {
    "vdi": "VDI of every layer",
    "scaled": "one head of z scaled",
    "record": "the residual of one layer recorded",
}
OVER = {"vdi": (EAGER, SDPA, SOFTMAX), "scaled": (SDPA, BRIDGE), "record": (SDPA, BRIDGE)}


@dataclass(frozen=True)
class Shape:
    """Batch and length of the input, and how often it is run."""

    batch: int
    length: int
    rounds: int
    padded: bool = False

    @property
    def large(self) -> bool:
        return self.batch * self.length > 1000

    def inputs(self) -> tuple[Tensor, Tensor | None]:
        """Random ids; of half of the texts the last quarter is padding, or there is no mask."""
        ids = torch.randint(1000, 20_000, (self.batch, self.length))
        if not self.padded:
            return ids, None
        mask = torch.ones_like(ids)
        mask[: self.batch // 2, self.length * 3 // 4 :] = 0
        return ids, mask

    def __str__(self) -> str:
        return f"{self.batch} x {self.length}{', half padded' if self.padded else ''}"


@dataclass(frozen=True, kw_only=True)
class Tap(pk.Observer):
    """Reads nothing: what computing the pattern and firing its hook costs by itself."""

    def sites(self) -> tuple[pk.Site, ...]:
        return (pk.Site("pattern"),)

    def measure(self, x: Tensor, at: pk.Firing) -> None:
        return None

    def combine(self, total: None, new: None) -> None:
        return None

    def finish(self, totals: Any) -> pk.Measurement:
        raise NotImplementedError("a tap measures nothing")


def sdpa_and_softmax(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """SDPA, and the pattern beside it: what whoever wants SDPA and patterns has to pay."""
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    scores = torch.matmul(query, key.transpose(2, 3)) * query.shape[-1] ** -0.5
    if attention_mask is not None:
        scores = scores + torch.where(attention_mask, 0.0, torch.finfo(scores.dtype).min)
    return output, scores.softmax(-1)


class Probekit:
    """The jobs, and the bridges that they are done on."""

    def __init__(self, subject: Subject) -> None:
        self.items = {
            "vdi": pk.VDI(),
            "scaled": pk.HeadScale(layer=0, head=0, omega=OMEGA),
            "record": pk.Record(f"{subject.middle}.resid_post"),
        }
        names = ("bare", "taps", "anew", *self.items)
        self.models: dict[str, Any] = {name: pk.wrap(subject.fresh("sdpa")) for name in names}

    def attached(self, name: str, item: Any, stack: contextlib.ExitStack) -> Job:
        """A bridge's forward with an item attached for as long as ``stack`` is open."""
        stack.enter_context(pk.attach(self.models[name], item))
        return forward(self.models[name])

    def anew(self, job: str, ids: Tensor, mask: Tensor | None) -> Tensor:
        """One forward with the item attached for it alone, and what that gives."""
        model = self.models["anew"]
        with pk.attach(model, self.items[job]) as run:
            output = model(ids, attention_mask=mask)
        return output_of(output) if job == "scaled" else run[job].values


def forward(model: nn.Module) -> Job:
    """A model as it is."""
    return lambda ids, mask: model(ids, attention_mask=mask)


def agree(arms: Arms, ids: Tensor, mask: Tensor | None) -> None:
    """Refuse to time arms that do not give the same numbers."""
    expected = arms[ANEW](ids, mask)
    for name, arm in arms.items():
        error = (arm(ids, mask) - expected).abs().max() / expected.abs().max()
        assert error <= 1e-5, f"{name} differs from {ANEW} by {error:.1e}"


def measure(
    report: harness.Report, subject: Subject, libraries: list[Any], shapes: Sequence[Shape]
) -> None:
    """Time every job on every shape of the input."""
    bare = {name: forward(subject.fresh(kind)) for name, kind in HUGGING_FACE.items()}
    ours = Probekit(subject)
    bare[BRIDGE] = forward(ours.models["bare"])
    for shape, (job, title) in itertools.product(shapes, JOBS.items()):
        ids, mask = shape.inputs()
        arms: Arms = {ANEW: partial(ours.anew, job)}
        arms |= {each.title: getattr(each, job) for each in libraries if hasattr(each, job)}
        agree(arms, ids, mask)
        with contextlib.ExitStack() as stack:
            once = {ONCE: ours.attached(job, ours.items[job], stack)}
            if job == "vdi":
                once = {TAPS: ours.attached("taps", Tap(), stack)} | once
            shared = bare if job == "vdi" else {name: bare[name] for name in (SDPA, BRIDGE)}
            calls = {name: partial(arm, ids, mask) for name, arm in (shared | once | arms).items()}
            question = f"{subject.title}, {shape}: {title}"
            # Of a record's rivals some are within a percent: that takes more rounds to tell.
            rounds = 3 * shape.rounds if job == "record" else shape.rounds
            times = harness.timed(calls, rounds, question)
        report.table(f"{question}, {rounds} rounds", times, OVER[job])
        for arm, reference, limit in limits(subject, shape, job, list(arms)):
            what = f"{question}: {arm} / {reference}"
            interval = times.interval(arm, reference)
            report.limit(what, times.ratio(arm, reference), limit, interval=interval)


def limits(
    subject: Subject, shape: Shape, job: str, arms: list[str]
) -> Iterator[tuple[str, str, float]]:
    """What may take how many times what."""
    if job == "vdi" and subject.title == "MiniLM":
        if shape.large:
            yield from ((ONCE, EAGER, 1.10), (ONCE, SOFTMAX, 1.15))
        yield from ((ONCE, peer, 1.0) for peer in arms if peer != ANEW)
    if job == "record":
        rivals = [peer for peer in arms if peer in ("nnsight", "pyvene")]
        yield from itertools.product((ONCE, ANEW), rivals, (1.0,))


def main(config: harness.Settings) -> None:
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    AttentionInterface.register("sdpa_and_softmax", sdpa_and_softmax)
    AttentionMaskInterface.register("sdpa_and_softmax", sdpa_mask)
    few = max(1, config.rounds // 2)
    minilm = [
        Shape(16, 128, config.rounds),
        Shape(16, 128, config.rounds, padded=True),
        Shape(4, 32, 5 * config.rounds),
    ]
    gpt2 = [Shape(4, 128, few), Shape(1, 32, config.rounds)]
    with harness.Report(__file__, __doc__, config) as report:
        for subject, shapes in ((peers.minilm(), minilm), (peers.gpt2(), gpt2)):
            measure(report, subject, peers.available(subject, report.note), shapes)


if __name__ == "__main__":
    harness.keep_freed_memory()
    main(harness.settings(harness.Settings(), __doc__))
