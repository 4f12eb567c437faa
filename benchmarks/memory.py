"""Whether memory grows with the number of forwards.

    python benchmarks/memory.py       # about seven minutes

The real MiniLM, 4 texts of 32 tokens. Each arm runs on a bridge of its own, first a tenth of the
forwards, after which the resident memory of the process is read, then the rest, after which it is
read again (Linux: from /proc). Recording alone grows, by what it keeps.
"""

import contextlib
import gc
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import peers
import torch
from torch import Tensor
from tqdm.auto import trange

import probekit as pk

LIMIT = 5.0
BATCH, LENGTH = 4, 32


@dataclass(frozen=True)
class Config(harness.Settings):
    """Sizes of the comparison."""

    forwards: int = 3000


def resident() -> float:
    """Of this process now, in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(forward: Callable[[], object], forwards: int, title: str) -> float:
    """How many MB the last nine tenths of the forwards add."""
    before = 0.0
    for number in trange(forwards, desc=title, leave=False):
        if number == forwards // 10:
            before = resident()
        forward()
    return resident() - before


def build_arms(
    bridge: Callable[[], Any], ids: Tensor, stack: contextlib.ExitStack
) -> dict[str, Callable[[], object]]:
    """A forward for each; ``stack`` detaches what is attached."""

    def attached(*items: Any) -> Callable[[], object]:
        model = bridge()
        stack.enter_context(pk.attach(model, *items))
        return lambda: model(ids)

    bare, anew = bridge(), bridge()

    def attach_anew() -> None:
        with pk.attach(anew, pk.HeadScale(0, 0, 0.5), pk.VDI()):
            anew(ids)

    return {
        "nothing attached": lambda: bare(ids),
        "VDI": attached(pk.VDI()),
        "HeadScale, VDI": attached(pk.HeadScale(0, 0, 0.5), pk.VDI()),
        "HeadScale, VDI, attached anew": attach_anew,
    }


def main(config: Config) -> None:
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    subject = peers.minilm()
    ids = torch.randint(1000, 20_000, (BATCH, LENGTH))
    counted = config.forwards - config.forwards // 10
    patterns = counted * subject.layers * subject.base.config.num_attention_heads * ids.numel()
    question = f"growth over {counted} forwards, patterns of {patterns * LENGTH * 4 / 1e6:.0f} MB"
    with contextlib.ExitStack() as stack, harness.Report(__file__, __doc__, config) as report:
        for name, forward in build_arms(lambda: pk.wrap(subject.fresh("sdpa")), ids, stack).items():
            found = growth(forward, config.forwards, name)
            report.value(question, name, found, "MB")
            report.limit(f"{question}: {name}", found, LIMIT, "MB")


if __name__ == "__main__":
    main(harness.settings(Config(), __doc__))
