"""A model of nothing but logits, for the probes of logits."""

import torch
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import probekit as pk


class Unembed(HookedRootModule):
    """Nothing but logits: a model whose output is its input."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = HookedRootModule()
        self.embed.original_component = torch.nn.Embedding(1, 1)
        self.embed.hook_in = HookPoint()
        self.unembed = HookedRootModule()
        self.unembed.hook_out = HookPoint()
        self.setup()

    def forward(self, ids: Tensor, logits: Tensor) -> Tensor:
        self.embed.hook_in(ids)
        return self.unembed.hook_out(logits)


def draw(batch: int, length: int, vocab: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab, (batch, length), generator=generator)
    return ids, torch.randn(batch, length, vocab, generator=generator)


def read(probe: pk.Observer, *forwards: tuple[Tensor, Tensor]) -> pk.Measurement:
    """What ``probe`` reads of forwards with the given token ids and logits."""
    model = Unembed()
    with pk.attach(model, probe) as run:
        for ids, logits in forwards:
            model(ids, logits)
    return run[probe.key]


def next_or_same(ids: Tensor, targets: str) -> list[tuple[int, int, int]]:
    """(example, position, label) of each counted position."""
    batch, length = ids.shape
    shift = 1 if targets == "next" else 0
    return [(b, t, int(ids[b, t + shift])) for b in range(batch) for t in range(length - shift)]
