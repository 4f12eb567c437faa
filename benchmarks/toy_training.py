"""How fast seeds of the grokking toy train: one by one, through bridges, and stacked.

    python benchmarks/toy_training.py                          # about four minutes
    python benchmarks/toy_training.py --rounds 3 --no-save     # a glance

Every arm trains the same seeds as published (batches of 512 drawn a seed each, AdamW with weight
decay 1, gradients clipped at norm 1) and is timed over its optimizer steps, drawing included:

(a)  plain PyTorch: the model of the write-up as an nn.Module, every position unembedded, one
     seed after the other;
(b)  the same loop through TransformerLens's native bridge, ``TransformerBridge.boot_native`` (its
     attention has biases, which the write-up's has not: 256 of 162,000 parameters), and (b') the
     same through ``pk.load("grokking")``, which has none;
(c)  ``readout_logits``, one seed after the other;
(d)  one ``Stack`` of all seeds, and (d') the same giving attention patterns with gradients;
(e)  two processes of one thread, each a ``Stack`` of its share.

All but (e) are one process with the same threads. The limit: (d) makes at least 2.5 times the steps
of (b).
"""

import contextlib
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import harness
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

import probekit as pk
from probekit.hooked.model import weights
from probekit.training import (
    Stack,
    StackedAdamW,
    clip_stacked_grad_norm,
    modular_split,
    modular_tokens,
    readout_logits,
)

BATCH, LR, DECAY, CLIP = 512, 1e-3, 1.0, 1.0
LIMIT = 2.5

Train = Callable[[int], None]  # that many steps of every seed

PLAIN, LENS, BRIDGE = "(a) plain PyTorch", "(b) native bridge", "(b') pk.load bridge"
READOUT, STACK, LIVE = "(c) readout_logits", "(d) Stack", "(d') Stack with patterns"
PROCESSES = "(e) two processes, Stacks"


@dataclass(frozen=True)
class Config(harness.Settings):
    """Sizes of the comparison."""

    rounds: int = 15
    steps: int = 10
    """Optimizer steps of each seed in a round."""
    seeds: int = 5


class Batches:
    """The published batches: a generator for each seed and step."""

    def __init__(self) -> None:
        self.tokens, self.labels = modular_tokens(modular_split()[0])

    def __call__(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        generator = np.random.default_rng([seed, 0, step])
        draw = torch.from_numpy(generator.integers(0, len(self.tokens), BATCH))
        return self.tokens[draw], self.labels[draw]


class PlainAttention(nn.Module):
    """Causal attention as the write-up's code has it: explicit scores, an additive mask."""

    def __init__(self, width: int = 64, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            project(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5
        mask = torch.full((length, length), -1e9).triu(1)
        z = (scores + mask).softmax(-1) @ v
        return self.o(z.transpose(1, 2).reshape(batch, length, width))


class PlainModel(nn.Module):
    """The write-up's transformer, unembedding every position."""

    def __init__(self, width: int = 64, vocabulary: int = 1000) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Embedding(16, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attention = PlainAttention(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.unembed = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1]))
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.unembed(self.norm3(x))


def plain(seed: int) -> PlainModel:
    """(a)'s model with the weights of ``pk.load("grokking", seed=seed)``."""
    model = PlainModel()
    theirs = weights(pk.load("grokking", seed=seed))
    names = {
        "embed.": "tok_embed.",
        "position.": "pos.",
        "norm1.": "layers.0.ln1.",
        "norm2.": "layers.0.ln2.",
        "norm3.": "ln_out.",
        "attention.": "layers.0.attn.",
        "mlp.0.": "layers.0.mlp.fc_in.",
        "mlp.2.": "layers.0.mlp.fc_out.",
        "unembed.": "head.",
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            own = next(prefix for prefix in names if name.startswith(prefix))
            parameter.copy_(theirs[names[own] + name.removeprefix(own)])
    return model


def boot(seed: int) -> TransformerBridge:
    """(b)'s model: TransformerLens's own native bridge, of the same shape but for biases."""
    cfg = pk.load("grokking", seed=0).cfg
    names = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_ctx", "d_vocab", "act_fn")
    fields = {name: getattr(cfg, name) for name in names}
    return TransformerBridge.boot_native(  # type: ignore[attr-defined]
        TransformerBridgeConfig(
            **fields, normalization_type="LN", attention_dir="causal", seed=seed
        )
    )


def one_by_one(
    models: Sequence[Any], logits_of: Callable[[Any, Tensor], Tensor], batches: Batches
) -> Train:
    """Every seed's steps, a seed after the other."""
    optimizers = [
        torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY) for model in models
    ]

    def train(steps: int) -> None:
        for seed, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            for step in range(steps):
                tokens, labels = batches(seed, step)
                loss = F.cross_entropy(logits_of(model, tokens), labels)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()

    return train


def stacked(seeds: Sequence[int], batches: Batches, patterns: bool = False) -> Train:
    """Every seed's steps, all seeds at once."""
    stack = Stack([pk.load("grokking", seed=seed) for seed in seeds])
    parameters = list(stack.parameters.values())
    optimizer = StackedAdamW(parameters, lr=LR, weight_decay=DECAY)

    def logits_of(tokens: Tensor) -> tuple[Tensor, Tensor | float]:
        if not patterns:
            return stack.logits(tokens), 0.0
        logits, (pattern,) = stack.logits_and_patterns(tokens)
        return logits, pattern.square().mean()  # a stand-in for a loss on the pattern

    def train(steps: int) -> None:
        for step in range(steps):
            drawn = [batches(seed, step) for seed in seeds]
            tokens, labels = (torch.stack(each) for each in zip(*drawn, strict=True))
            logits, extra = logits_of(tokens)
            # A mean within a run, a sum over runs.
            task = F.cross_entropy(logits.flatten(0, 1), labels.flatten()) * len(seeds)
            optimizer.zero_grad()
            (task + extra).backward()
            clip_stacked_grad_norm(parameters, CLIP)
            optimizer.step()

    return train


def serve(connection: Any, seeds: list[int]) -> None:
    """A worker of arm (e): trains as many steps as it is told, until the benchmark ends."""
    torch.set_num_threads(1)
    train = stacked(seeds, Batches())
    with contextlib.suppress(EOFError):
        while True:
            train(connection.recv())
            connection.send("done")


def in_processes(seeds: int, workers: int = 2) -> Train:
    """Every seed's steps, the seeds shared out over processes."""
    context = multiprocessing.get_context("spawn")
    ends = []
    for worker in range(workers):
        ours, theirs = context.Pipe()
        own = list(range(worker, seeds, workers))
        context.Process(target=serve, args=(theirs, own), daemon=True).start()
        ends.append(ours)

    def train(steps: int) -> None:
        for end in ends:
            end.send(steps)
        for end in ends:
            end.recv()

    return train


def build_arms(seeds: int) -> dict[str, Train]:
    """Each arm's training, with models of its own."""
    batches = Batches()

    def each(build: Callable[[int], Any]) -> list[Any]:
        return [build(seed) for seed in range(seeds)]

    def load(seed: int) -> TransformerBridge:
        return pk.load("grokking", seed=seed)

    def last(model: Any, tokens: Tensor) -> Tensor:
        return model(tokens)[:, -1]

    return {
        PLAIN: one_by_one(each(plain), last, batches),
        LENS: one_by_one(each(boot), last, batches),
        BRIDGE: one_by_one(each(load), last, batches),
        READOUT: one_by_one(each(load), readout_logits, batches),
        STACK: stacked(range(seeds), batches),
        LIVE: stacked(range(seeds), batches, patterns=True),
        PROCESSES: in_processes(seeds),
    }


def main(config: Config) -> None:
    warnings.simplefilter("ignore")
    arms = {name: partial(arm, config.steps) for name, arm in build_arms(config.seeds).items()}
    with harness.Report(__file__, __doc__, config) as report:
        steps = dict.fromkeys(arms, config.seeds * config.steps)
        times = harness.timed(arms, config.rounds, items=steps)
        report.table(f"a step of one of {config.seeds} seeds", times, (PLAIN, LENS, STACK))
        interval = times.interval(STACK, LENS)
        report.limit(f"{STACK} / {LENS}", times.ratio(STACK, LENS), 1 / LIMIT, interval=interval)


if __name__ == "__main__":
    main(harness.settings(Config(), __doc__))
