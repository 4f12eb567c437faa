"""What a constant answer survives: the null of accuracy under noise where the label never changes.

If every label is one class, an offset of the unembedding answers it. Under noise n of deviation
sigma before the unembedding class k is passed over while ``gap_k + sigma (w_label - w_k) n > 0``:
a Gaussian orthant, in which nothing of the input occurs, nor anything that was computed.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...attachment import attach
from ...hooked.load import random_twin
from ...hooked.model import HookedModel, weights
from ...items import Item
from ..fit import margins
from .sedation import setting_key


def gap_survival(
    gaps: Float[Tensor, " other"],
    directions: Float[Tensor, "other dim"],
    sigma: float,
    *,
    draws: int = 20_000,
    seed: int = 0,
) -> float:
    """``P(gap_k + sigma d_k . n > 0 for all k)`` with n standard normal.

    Of one other class it is ``Phi(gap / (sigma |d|))``; of many no closed form is known, so n is
    drawn, and the error is at most ``1 / (2 sqrt(draws))``.

    Args:
        gaps: logits of the label less those of the other classes.
        directions: the label's row of the unembedding less theirs.
        seed: of n.
    """
    drawn = torch.randn(
        draws, directions.shape[1], generator=torch.Generator().manual_seed(seed), dtype=gaps.dtype
    )
    return float((gaps + sigma * drawn @ directions.T > 0).all(-1).double().mean())


@torch.no_grad()
def constant_survival(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    label: int,
    sigmas: Sequence[float],
    *items: Item,
) -> dict[str, dict[str, float]]:
    """:func:`gap_survival` by sigma, of the last position's mean logits under ``items``.

    ``constant logits`` has the gaps of the mean over examples, so that no example counts;
    ``offset alone`` those of the unembedding's offset, so that no network does.

    Args:
        model: native, with an offset of the unembedding; noise is that after its final norm.
        label: the class that is right in every example.
    """
    own = weights(model)
    with attach(model, *items):
        logits = model(tokens)[:, -1].mean(0)
    others = torch.arange(len(logits)) != label
    unembed = own["head.weight"]
    directions = unembed[label] - unembed[others]
    rows = {"constant logits": logits, "offset alone": own["head.bias"]}
    return {
        name: {
            setting_key(sigma): gap_survival(row[label] - row[others], directions, sigma)
            for sigma in sigmas
        }
        for name, row in rows.items()
    }


@torch.no_grad()
def constant_predictor(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], label: int, seed: int
) -> HookedModel:
    """An untrained network with one offset, such that its mean margin is that of ``model``.

    It answers ``label`` with the certainty of ``model`` at the last position, and knows nothing:
    what it survives, a constant survives.

    Args:
        model: native, with an offset of the unembedding.
        seed: of the untrained weights.
    """
    twin = random_twin(model, seed)
    offset, targets = weights(twin)["head.bias"], torch.full((len(tokens),), label)
    wanted, found = (float(margins(each(tokens)[:, -1], targets).mean()) for each in (model, twin))
    offset[label] += wanted - found
    return twin
