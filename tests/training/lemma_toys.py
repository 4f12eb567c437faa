"""A tiny T5 and examples of definitions; as a script, a training run in processes that are killed.

python lemma_toys.py FOLDER STEPS...      one is killed before its update 10, say, one more at
                                          its 3rd, and the last ends; prints how they ended
"""

import functools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from families import VOCAB, tiny_bert, tiny_t5
from torch import Tensor
from transformers import BertModel, T5ForConditionalGeneration

import probekit as pk
from probekit.modulators import LerpModulator
from probekit.runs import RunDir
from probekit.training import (
    DEFINITION,
    LemmaExamples,
    ModulatorTrace,
    ModulatorTraining,
    Objective,
    fit_modulator,
)

TRAINING = ModulatorTraining(epochs=3, batch=8, lr=0.02)


def toy_t5(**sizes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pk.load("t5-small", hf_model=T5ForConditionalGeneration(tiny_t5(**sizes)).eval())


def toy_bert():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pk.load("minilm", hf_model=BertModel(tiny_bert()).eval())


def toy_module(alpha: float = 0.1) -> LerpModulator:
    sizes = {"d_model": 32, "n_layers": 2, "vocab": VOCAB, "d_geometry": 4}
    return LerpModulator(**sizes, alpha=alpha)


def toy_examples(count: int = 61, length: int = 7) -> LemmaExamples:
    """Inputs of 3 tokens and more; the word is the input's first token, then the end."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCAB, (count, length), generator=draw)
    lengths = torch.randint(3, length + 1, (count, 1), generator=draw)
    mask = (torch.arange(length) < lengths).long()
    labels = torch.stack([ids[:, 0], torch.ones(count, dtype=torch.long)], 1)
    return LemmaExamples(ids * mask, mask, labels, ids[:, 0])


def toy_fit(
    folder: Path, module: LerpModulator, *, objective: Objective = DEFINITION, **more
) -> ModulatorTrace:
    lerp = pk.Lerp(module, site="encoder.resid_pre")
    where = {"title": "", "position": 0, "checkpoint_every": 4} | more
    model = where.pop("model", None) or toy_t5()
    return fit_modulator(RunDir(folder), model, lerp, toy_examples(), objective, TRAINING, **where)


def interrupting(at: int, how: int | None = None) -> Objective:
    """The objective, and before an update, counted from 0, Ctrl-C or a signal to this process."""
    updates = iter(range(1_000))

    @functools.wraps(DEFINITION.loss)  # its name tells a run's folder what it is trained on
    def loss(model, batch: LemmaExamples) -> Tensor:
        if torch.is_grad_enabled() and next(updates) == at:
            if how is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), how)
        return DEFINITION.loss(model, batch)

    return replace(DEFINITION, loss=loss)


def toy_logits(module: LerpModulator) -> Tensor:
    batch = toy_examples()
    with torch.no_grad(), pk.attach(model := toy_t5(), pk.Lerp(module, site="encoder.resid_pre")):
        return DEFINITION.logits(model, batch)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, *steps = sys.argv[1:]
    module = toy_module()
    for step in steps:
        # Forked, as every start of an interpreter imports for seconds.
        if not (child := os.fork()):
            toy_fit(Path(folder), module, objective=interrupting(int(step), signal.SIGKILL))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    toy_fit(Path(folder), module)
    torch.save(toy_logits(module), Path(folder) / "logits.pt")
