"""A training run that is interrupted anywhere ends as one that is not."""

import numpy as np
import pytest
import torch

import probekit as pk
from probekit.hooked.model import weights
from probekit.runs import RunDir
from probekit.training import readout_logits, train


class Killed(Exception):
    pass


def one_run(folder, kill_at=None, steps=23):
    """Train, dying before the update of ``kill_at``; the second value is the weights."""
    model = pk.load("grokking", seed=0, d_vocab=30)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    run = RunDir(folder)

    def update(step):
        if step == kill_at:
            raise Killed
        draw = np.random.default_rng([0, step]).integers(0, 30, (8, 6))
        tokens = torch.from_numpy(draw)
        loss = torch.nn.functional.cross_entropy(readout_logits(model, tokens), tokens[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def log(step):
        return {"step": step, "norm": float(model.embed.weight.norm())}

    train(
        run,
        model,
        optimizer,
        steps=steps,
        update=update,
        log=log,
        log_every=2,
        checkpoint_every=5,
        title="test",
        position=0,
    )
    return run.rows(), {name: tensor.clone() for name, tensor in weights(model).items()}


@pytest.mark.parametrize("kill_at", [0, 3, 5, 6, 10, 17, 22])
def test_interrupted_run_ends_the_same(tmp_path, kill_at):
    rows, final = one_run(tmp_path / "whole")
    with pytest.raises(Killed):
        one_run(tmp_path / "killed", kill_at)
    resumed_rows, resumed = one_run(tmp_path / "killed")
    assert resumed_rows == rows
    assert [row["step"] for row in rows] == list(range(0, 24, 2))
    for name, tensor in final.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    one_run(tmp_path)
    run = RunDir(tmp_path)
    step, tensors, meta = run.load_checkpoint()
    name = next(name for name in tensors if not name.startswith("optimizer."))
    tensors[name] = torch.zeros(3)
    run.save_checkpoint(step, tensors, meta)
    with pytest.raises(pk.CardError, match="the checkpoint does not fit the model"):
        one_run(tmp_path)
