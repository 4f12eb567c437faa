"""Entropy of attention patterns, in nats, with its closed-form nulls. Plain functions.

Source: Shannon entropy of each query's distribution over keys. The write-up "Homeostatic
Crystallization" averages it over heads and queries, divides by ln T and calls it VDI.
It misleads where the mask is forgotten: a causal query sees few keys, so that uniform attention,
the maximum, reads ln(T!)/(T ln T) and not 1.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: Below this many weights the logarithms are cheap and the direct form, exact to rounding, is used.
_SMALL = 2**17
#: Scores beyond it are measured from the best of their row.
_LARGE = 50.0


def row_entropy(pattern: Float[Tensor, "*rows key"]) -> Float[Tensor, "*rows"]:
    """``-sum_s p_s ln p_s`` of each row, in nats; 0 ln 0 = 0.

    Example:
        >>> row_entropy(torch.full((2, 4), 0.25))  # ln 4
        tensor([1.3863, 1.3863])
    """
    if pattern.dtype in (torch.float16, torch.bfloat16):
        pattern = pattern.float()
    # The least number, added to a weight, changes no bit that counts, and makes 0 ln 0 finite, and
    # its slope. Where it is used most torch.special.entr takes twice the time.
    tiny = torch.finfo(pattern.dtype).tiny
    if pattern.requires_grad:
        return 0 - (pattern * (pattern + tiny).log()).sum(-1)
    return 0 - (pattern + tiny).log_().mul_(pattern).sum(-1)  # in place: one tensor as large


def softmax_entropy(
    scores: Float[Tensor, "*rows key"], pattern: Float[Tensor, "*rows key"]
) -> Float[Tensor, "*rows"]:
    """The same where ``pattern`` is the softmax of ``scores``, without a logarithm a weight.

    ``H = logsumexp(s) - sum p s``, and ``logsumexp(s) = max s - ln max p``: half the time of the
    direct form on large patterns.
    """
    if pattern.numel() <= _SMALL or pattern.dtype in (torch.float16, torch.bfloat16):
        return row_entropy(pattern)
    best = scores.amax(-1, keepdim=True)
    if best.abs().amax() > _LARGE:  # or they would cancel to rounding
        scores, best = scores - best, torch.zeros_like(best)
    # As a product of matrices: p * s as a tensor of its own would cost more than the sum.
    mean = torch.matmul(pattern.unsqueeze(-2), scores.unsqueeze(-1))[..., 0, 0]
    entropy = (best[..., 0] - pattern.amax(-1).log() - mean).clamp(min=0)
    # Keys masked with -inf, where 0 * inf is NaN, need the direct form.
    return entropy if entropy.isfinite().all() else row_entropy(pattern)


def uniform_entropy(visible: Bool[Tensor, "*rows key"]) -> Float[Tensor, "*rows"]:
    """ln of the number of visible keys: the entropy of uniform attention under that mask."""
    return visible.sum(-1).clamp(min=1).to(torch.get_default_dtype()).log()


def uniform_causal_vdi(length: int) -> float:
    """VDI of uniform causal attention over ``length`` positions: ``ln(T!) / (T ln T)``.

    Example:
        >>> round(uniform_causal_vdi(6), 6)
        0.611992
    """
    return math.lgamma(length + 1) / (length * math.log(length))


def one_hot_last_row_vdi(length: int) -> float:
    """VDI when the last query attends to one key and the others uniformly: ``ln((T-1)!)/(T ln T)``.

    Example:
        >>> round(one_hot_last_row_vdi(6), 6)
        0.445325
    """
    return math.lgamma(length) / (length * math.log(length))
