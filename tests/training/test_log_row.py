"""A log row of a model whose attention is uniform and whose logits are 0."""

import math

import pytest
import torch

import probekit as pk
from probekit.entropy import uniform_causal_vdi
from probekit.training import ModularData, log_row


@pytest.fixture(scope="module")
def model():
    model = pk.load("grokking", seed=0)
    with torch.no_grad():
        for part in (model.blocks[0].attn.q, model.unembed):
            for parameter in part.parameters():
                parameter.zero_()
    return model


@pytest.mark.parametrize(("layout", "copied"), [("published", 1), ("leak-free", 0)])
def test_what_it_reads(model, layout, copied):
    data = ModularData.of(0, layout)
    row = log_row(model, data, 0, 500)
    uniform = uniform_causal_vdi(6)
    assert row["vdi"].tolist() == [pytest.approx([uniform] * 2, abs=1e-6)]
    assert row["loss_vdi"].tolist() == [pytest.approx([uniform] * 2, abs=1e-6)]
    assert float(row["vdi_mean"]) == pytest.approx(uniform, abs=1e-6)
    assert row["vdi_spread"] == pytest.approx(0, abs=1e-6)
    assert float(row["test_loss"]) == pytest.approx(math.log(model.cfg.d_vocab), abs=1e-5)
    # All logits are 0, and the first id wins.
    assert row["test_accuracy"] == (data.test[1] == 0).double().mean()
    assert row["copy_accuracy"] == copied
    assert row["norms"]["W_Q"] == 0 and row["norms"]["W_K"] > 0
    rows = [math.log(query + 1) / math.log(6) for query in range(6)]
    assert row["vdi_by_query"].tolist() == [pytest.approx(rows, abs=1e-6)] * 2
    visible = torch.arange(1.0, 7.0)[:, None]
    torch.testing.assert_close(row["pattern"], (torch.ones(6, 6).tril() / visible).expand(2, 6, 6))


@pytest.mark.parametrize(
    ("step", "monitored", "killed"),
    [(0, True, False), (10, False, False), (20, True, True), (40, True, False), (60, True, True)],
)
def test_when_the_monitor_looks(model, step, monitored, killed):
    row = log_row(model, ModularData.of(0), step, 20)
    for name in ("vdi_by_query", "gaussian_entropy", "pattern"):
        assert (name in row) == monitored
    assert ("kill_test" in row) == killed
