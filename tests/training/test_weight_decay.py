"""Decay alone is AdamW on zero gradients."""

import torch
from torch import nn

from probekit.training import decay_alone


def test_decay_alone_is_a_step_of_adamw_with_zero_gradients():
    ours, theirs = (
        torch.optim.AdamW(
            [
                {"params": [nn.Parameter(torch.arange(1.0, 7.0))]},
                {"params": [nn.Parameter(torch.ones(2, 3))], "weight_decay": 0.0},
            ],
            lr=0.1,
            weight_decay=2.0,
        )
        for _ in range(2)
    )
    for group in theirs.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    for _ in range(3):
        decay_alone(ours)
        theirs.step()
    for one, two in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert torch.equal(one["params"][0], two["params"][0])
    assert not torch.equal(ours.param_groups[0]["params"][0], torch.arange(1.0, 7.0))
