"""Training a modulator: host still, as PyTorch's own loop does it, the same after a kill."""

import itertools
import math
import signal
import subprocess
import sys
from dataclasses import replace

import lemma_toys
import numpy as np
import pytest
import torch
from lemma_toys import (
    TRAINING,
    interrupting,
    toy_bert,
    toy_examples,
    toy_fit,
    toy_logits,
    toy_module,
    toy_t5,
)
from torch.nn import functional as F

import probekit as pk
from probekit.modulators import LerpModulator, load_modulator
from probekit.runs import RunDir
from probekit.training import (
    DEFINITION,
    LEAKING,
    MASKED_LEMMA,
    LemmaExamples,
    ModulatorTraining,
    fit_modulator,
    lemma_scores,
    read_trace,
)


def test_the_host_stays_bit_for_bit_and_only_the_modulator_moves(tmp_path) -> None:
    model, module = toy_t5(), toy_module()
    before = {n: t.clone() for n, t in model.original_model.state_dict().items()}
    start = {n: p.detach().clone() for n, p in module.named_parameters()}
    toy_fit(tmp_path, module, model=model)
    after = model.original_model.state_dict()
    assert before.keys() == after.keys()
    assert all(before[n].numpy().tobytes() == after[n].numpy().tobytes() for n in before)
    assert all(p.grad is None for p in model.parameters())
    assert not any(torch.equal(p, start[n]) for n, p in module.named_parameters())


def test_it_is_the_published_loop(tmp_path) -> None:
    """PyTorch's own schedule and clipping, and the split and orders of one generator.

    The first gradient is huge, so that without clipping Adam's later steps would be tiny.
    """
    module, by_hand, examples = toy_module(), toy_module(), toy_examples()
    updates = itertools.count()

    def loud(model, batch: LemmaExamples) -> torch.Tensor:
        first = torch.is_grad_enabled() and next(updates) == 0
        return DEFINITION.loss(model, batch) * (1000 if first else 1)

    trace = toy_fit(tmp_path, module, objective=replace(DEFINITION, loss=loud))
    rng = np.random.default_rng(42)
    order = rng.permutation(61)
    kept, model = order[:54], toy_t5()
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.02, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)
    losses, alphas = [], [by_hand.alpha.detach()]
    with pk.attach(model, pk.FreezeWeights("all"), pk.Lerp(by_hand, site="encoder.resid_pre")):
        for _ in range(3):
            shuffled = rng.permutation(54)
            for first in range(0, 54, 8):
                rows = torch.from_numpy(kept[shuffled[first : first + 8]])
                logits = model(
                    examples.ids[rows],
                    attention_mask=examples.mask[rows],
                    decoder_input=torch.stack([0 * rows, examples.labels[rows, 0]], 1),
                )
                loss = F.cross_entropy(logits.flatten(0, 1), examples.labels[rows].flatten())
                loss = loss * (1 if losses else 1000)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
                optimizer.step()
                losses.append(loss.detach())
                alphas.append(by_hand.alpha.detach())
            schedule.step()
    torch.testing.assert_close(trace.loss, torch.stack(losses), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trace.alpha, torch.stack(alphas), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(module.geometry, by_hand.geometry, rtol=1e-2, atol=1e-3)
    assert trace.loss[-7:].mean() < trace.loss[1:8].mean()


def test_a_row_without_gradient_only_decays_by_the_schedule(tmp_path) -> None:
    """No input holds token 2: each step takes a share of rate times decay, and no more."""
    module = toy_module()
    before = module.geometry[2].detach().clone()
    toy_fit(tmp_path, module)
    rates = [0.02 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3) for _ in range(7)]
    left = math.prod(1 - 0.01 * rate for rate in rates)
    assert left < 0.998
    torch.testing.assert_close(module.geometry[2], left * before, rtol=1e-5, atol=0)


def test_a_warmup_counts_its_steps(tmp_path) -> None:
    module = LerpModulator(**toy_module().config | {"warmup": 100})
    toy_fit(tmp_path, module)
    assert int(module.steps) == 21


def test_rows_of_epochs(tmp_path) -> None:
    module, examples = toy_module(), toy_examples()
    trace = toy_fit(tmp_path, module)
    assert [row["step"] for row in trace.epochs] == [0, 7, 14, 21]
    assert trace.epochs[0]["train_loss"] is None
    assert trace.epochs[2]["train_loss"] == pytest.approx(trace.loss[7:14].mean().item())
    held_out = examples.take(TRAINING.split(61)[1])
    assert len(held_out) == 7
    nll, rank = lemma_scores(toy_logits(module), examples.lemmas)
    chosen = TRAINING.split(61)[1]
    assert trace.epochs[-1]["lemma_nll"] == pytest.approx(nll[chosen].mean().item(), rel=1e-5)
    assert trace.epochs[-1]["lemma_rank"] == rank[chosen].double().median().item()
    assert trace.epochs[-1]["alpha"] == pytest.approx(module.alpha.tolist())


def test_the_published_sizes() -> None:
    training = ModulatorTraining()
    train, held_out, orders = training.split(9_362)
    assert (len(train), len(held_out), len(orders)) == (8_425, 937, 10)
    assert training.batches(9_362) == 264 and len(training.rates(9_362)) == 2_640
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(9_362))
    assert all(sorted(order.tolist()) == list(range(8_425)) for order in orders)


def test_alpha_is_read_after_every_tenth_batch(tmp_path) -> None:
    trace = toy_fit(tmp_path, toy_module())
    assert torch.equal(trace.published, trace.alpha[[1, 8, 15]])  # 7 batches an epoch


def test_a_killed_run_ends_the_same_and_its_modulator_loads_elsewhere(tmp_path) -> None:
    """Killed after the checkpoint of step 8, again three updates on, and then not."""
    module = toy_module()
    whole = toy_fit(tmp_path / "whole", module)
    command = [sys.executable, lemma_toys.__file__, str(tmp_path / "killed"), "10", "3"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert [int(line) for line in done.stdout.split()] == [-signal.SIGKILL] * 2
    resumed = read_trace(RunDir(tmp_path / "killed"))
    assert torch.equal(resumed.alpha, whole.alpha) and torch.equal(resumed.loss, whole.loss)
    assert resumed.epochs == whole.epochs
    loaded = load_modulator(tmp_path / "whole" / "modulator")
    theirs = torch.load(tmp_path / "killed" / "logits.pt")
    assert torch.equal(toy_logits(module), theirs) and torch.equal(toy_logits(loaded), theirs)


@pytest.mark.parametrize("at", [0, 3, 4, 5, 20])
def test_an_interrupted_run_ends_the_same(tmp_path, at: int) -> None:
    whole = toy_fit(tmp_path / "whole", toy_module())
    with pytest.raises(KeyboardInterrupt):
        toy_fit(tmp_path / "cut", toy_module(), objective=interrupting(at))
    resumed = toy_fit(tmp_path / "cut", toy_module())
    assert torch.equal(resumed.alpha, whole.alpha) and torch.equal(resumed.loss, whole.loss)


def test_a_finished_run_gives_its_weights_and_no_update(tmp_path) -> None:
    module, again = toy_module(), toy_module()
    trace = toy_fit(tmp_path, module)
    repeated = toy_fit(tmp_path, again, objective=interrupting(0))
    assert torch.equal(trace.alpha, repeated.alpha)
    assert torch.equal(module.geometry, again.geometry)


def test_other_items_act_in_training(tmp_path) -> None:
    louder = pk.Edit("encoder.ln_final", torch.exp)
    trace = toy_fit(tmp_path, toy_module(), items=(louder,))
    rows, _, orders = TRAINING.split(61)
    lerp = pk.Lerp(toy_module(), site="encoder.resid_pre")
    with torch.no_grad(), pk.attach(model := toy_t5(), lerp, louder):
        first = DEFINITION.loss(model, toy_examples().take(rows[orders[0][:8]]))
    assert trace.loss[0] == pytest.approx(first.item(), rel=1e-5)


def test_a_loss_that_does_not_reach_the_modulator_is_refused(tmp_path) -> None:
    silent = pk.Edit("encoder.ln_final", torch.zeros_like)
    with pytest.raises(pk.ProbekitError, match=r"^the loss does not depend on Lerp\("):
        toy_fit(tmp_path, toy_module(), items=(silent,))


def test_an_encoder_learns_its_word_at_the_mask(tmp_path) -> None:
    examples, module = toy_examples(), toy_module()
    at_first = torch.full_like(examples.ids, -100)
    at_first[:, 0] = examples.lemmas
    masked = LemmaExamples(examples.ids, examples.mask, at_first, examples.lemmas)
    where = {"title": "", "position": 0}
    trace = fit_modulator(
        RunDir(tmp_path), toy_bert(), pk.Lerp(module), masked, MASKED_LEMMA, TRAINING, **where
    )
    assert trace.loss[-7:].mean() < trace.loss[:7].mean()


def test_another_run_in_the_folder_is_refused(tmp_path) -> None:
    toy_fit(tmp_path, toy_module())
    with pytest.raises(pk.RunError, match=r"holds a run with another config: module"):
        toy_fit(tmp_path, toy_module(alpha=0.2))
    with pytest.raises(pk.RunError, match=r"holds a run with another config: objective"):
        toy_fit(tmp_path, toy_module(), objective=LEAKING)
    with pytest.raises(pk.RunError, match=r"holds a run with another config: form"):
        shrinking = pk.Lerp(toy_module(), site="encoder.resid_pre", form="shrink-only")
        where = {"title": "", "position": 0}
        fit_modulator(
            RunDir(tmp_path), toy_t5(), shrinking, toy_examples(), DEFINITION, TRAINING, **where
        )
    with pytest.raises(pk.ProbekitError, match=r"held_out must be a share inside \(0, 1\), not 1"):
        ModulatorTraining(held_out=1.0)
    with pytest.raises(pk.RunError, match=r"has no checkpoint; train it first"):
        read_trace(RunDir(tmp_path / "empty"))


def test_what_could_not_train_is_refused(tmp_path) -> None:
    still = pk.Lerp(toy_module(), 0.2, "encoder.resid_pre")
    with pytest.raises(
        pk.ProbekitError, match=r"holds alpha at 0\.2, .*module\.set_alpha\(0\.2\)$"
    ):
        where = {"title": "", "position": 0}
        fit_modulator(
            RunDir(tmp_path), toy_t5(), still, toy_examples(), DEFINITION, TRAINING, **where
        )
    assert not list(tmp_path.iterdir())
    for name, value in {"lr": 0.0, "clip": 0.0, "weight_decay": -0.1}.items():
        with pytest.raises(pk.ProbekitError, match=f"{name} must be a finite"):
            ModulatorTraining(**{name: value})


def test_factors_are_learning_rates_of_their_own(tmp_path) -> None:
    """AdamW's first step is the rate whatever the gradient: a tenth of it for a tenth."""
    once = ModulatorTraining(epochs=1, batch=54, lr=0.02, weight_decay=0.0)
    moved = {}
    for name, factors in {"same": {}, "tenth": {"geometry": 0.1, "geo": 5.0}}.items():
        module = toy_module()
        before = {n: p.detach().clone() for n, p in module.named_parameters()}
        item = pk.Lerp(module, site="encoder.resid_pre")
        fit_modulator(
            RunDir(tmp_path / name), toy_t5(), item, toy_examples(), DEFINITION, once,
            title="t", position=0, factors=factors,
        )  # fmt: skip
        moved[name] = {
            n: (p.detach() - before[n]).abs().max() for n, p in module.named_parameters()
        }
    ratio = moved["tenth"]["geometry"] / moved["same"]["geometry"]
    assert float(ratio) == pytest.approx(0.1, rel=1e-3)
    torch.testing.assert_close(moved["tenth"]["projection"], moved["same"]["projection"])
