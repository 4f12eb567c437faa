"""Checks of predictions against the logits that they were read from."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

CLOSE = {"rtol": 0, "atol": 1e-5}  # SDPA against eager attention, on logits of order one


def close(actual: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.tensor(list(actual)).double(), expected.double(), **CLOSE)


def check_top(rows: Any, logits: Tensor, top: int) -> None:
    """The rows of one position against its logits."""
    best = logits.topk(top)
    assert rows["id"].tolist() == best.indices.tolist()
    assert rows["rank"].tolist() == list(range(1, top + 1))
    close(rows["logit"], best.values)
    close(rows["probability"], logits.softmax(-1)[best.indices])


def check_label(row: Any, logits: Tensor, label: int) -> None:
    close([row["loss"]], F.cross_entropy(logits[None], torch.tensor([label]))[None])
    others = [logit for i, logit in enumerate(logits.tolist()) if i != label]
    assert row["margin"] == pytest.approx(logits[label].item() - max(others), abs=1e-5)
