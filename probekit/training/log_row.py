"""What one model logs at a step of its training: accuracy, VDI, norms, and the monitor's columns.

The rows are what :func:`~probekit.training.developmental_trajectory` reads. Loss and accuracy are
of the test set, all else of the monitored examples.
"""

from typing import Any

import torch
from torch.nn import functional as F
from transformer_lens.model_bridge import TransformerBridge

from ..attachment import attach
from ..probes import VDI, Record
from .kill_test import kill_test
from .modular import ModularData
from .monitor import gaussian_entropy
from .window import head_spread


@torch.no_grad()
def log_row(
    model: TransformerBridge, data: ModularData, step: int, monitor_every: int
) -> dict[str, Any]:
    """One log row.

    ``vdi`` averages rows' entropies, as the monitor does, ``loss_vdi`` patterns first, as the
    losses do; ``vdi_mean`` and ``vdi_spread`` are over the heads of layer 0. ``copy_accuracy`` is
    of no model: the token at the read-out position as the answer.

    Args:
        monitor_every: steps between monitor checkpoints, which add ``vdi_by_query``,
            ``gaussian_entropy`` and ``pattern``; every second one, from the first after the
            start, adds ``kill_test``.
    """
    tokens, labels = data.test
    logits = model(tokens)[:, -1]
    probes = [VDI(), VDI(order="pattern-first", name="loss_vdi"), Record("0.pattern")]
    with attach(model, *probes, Record("0.resid_post", name="resid")) as run:
        model(data.monitored)
    vdi, attn = run["vdi"], model.blocks[0].attn
    row: dict[str, Any] = {
        "step": step,
        "test_loss": F.cross_entropy(logits, labels),
        "test_accuracy": (logits.argmax(-1) == labels).double().mean(),
        "copy_accuracy": (tokens[:, -1] == labels).double().mean(),
        "vdi": vdi.values,
        "loss_vdi": run["loss_vdi"].values,
        "vdi_mean": vdi.values[0].mean(),
        "vdi_spread": head_spread(vdi.values[0]),
        "norms": {name: float(getattr(attn, name).norm()) for name in ("W_Q", "W_K", "W_V", "W_O")},
    }
    if step % monitor_every == 0:
        row["vdi_by_query"] = vdi.rows.values[0] if vdi.rows else None
        row["gaussian_entropy"] = gaussian_entropy(run["resid"].values.flatten(0, 1))
        row["pattern"] = run["record"].values[0]
    if step % (2 * monitor_every) == monitor_every:
        row["kill_test"] = kill_test(model, data.monitored)
    return row
