"""Weight decay by itself: the control that tells what decay does from what learning does."""

import torch
from torch.optim import Optimizer


@torch.no_grad()
def decay_alone(optimizer: Optimizer) -> None:
    """A step of AdamW as if all gradients were zero: ``p *= 1 - lr * weight_decay``."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
