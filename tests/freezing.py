"""One step of training, and what the tests of freezing freeze and look at."""

import torch
from families import Family
from torch import nn

import probekit as pk
from probekit.hooked.selection import Selection

HEAD = pk.FreezeWeights(("Q",), layers=(0,), heads=(1,))  # rows 32 and on of a native model


def step(family: Family, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    output = family.output(family.model(*family.args, **family.kwargs))
    output.square().mean().backward()
    optimizer.step()


def q(family: Family) -> nn.Parameter:
    return family.model.blocks[0].attn.q.original_component.weight


def slices(family: Family, item: pk.FreezeWeights) -> list[torch.Tensor]:
    return [
        each.view.clone() for each in Selection(item.parts, heads=item.heads).find(family.model)
    ]
