"""How token norms, token cosines and used dimensions change through the layers.

A final norm sets every length: an RMSNorm of gain 1 makes norms exactly sqrt(d), and what looks
like learned flattening is normalisation. Hugging Face's last hidden state of T5 is after it; take
the raw residual stream of the last block beside it. Random networks align tokens too (cosines of 0
to .62 through T5-small at initialisation): the null is a random twin's hidden states.

All work in float64; deviations divide by the number of tokens or pairs.

Source: the write-up "Geometric Terrain Analysis" (its layer evolution).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError
from .similarity import unit_rows


@dataclass(frozen=True, eq=False)
class LayerEvolution:
    """One number a layer: norms and pair cosines of tokens, and their participation ratio."""

    norm_mean: Float[Tensor, "*batch layer"]
    norm_std: Float[Tensor, "*batch layer"]
    cosine_mean: Float[Tensor, "*batch layer"]
    cosine_std: Float[Tensor, "*batch layer"]
    participation: Float[Tensor, "*batch layer"]


def layer_evolution(hidden: Float[Tensor, "*batch layer token dim"]) -> LayerEvolution:
    """Mean and deviation of ``|h_t|`` and of ``cos(h_s, h_t)``, s < t, and the tokens' PR.

    Of one text at a time (average over texts afterwards, as published); leave special tokens out,
    which lie elsewhere than words. Nulls: cosine :func:`cosine_null`, participation
    :func:`participation_null` with the tokens as rows. PR is at most tokens - 1, and that of a
    short text says mostly how short: see :func:`debiased_participation`. NaN where a token has
    length 0, or PR where all are one.

    Raises:
        ProbekitError: fewer than 2 tokens.
    """
    tokens = hidden.shape[-2]
    if tokens < 2:
        raise ProbekitError(
            f"layer_evolution needs two tokens at least, not {tuple(hidden.shape)}; hidden is "
            "[layer, token, dim]"
        )
    hidden = hidden.double()
    norms = hidden.norm(dim=-1)
    units = unit_rows(hidden)
    gram = units @ units.mT
    pairs = tokens * (tokens - 1)
    off_diagonal = gram - gram.diagonal(dim1=-2, dim2=-1).diag_embed()
    mean = off_diagonal.sum((-2, -1)) / pairs
    deviations = gram - mean[..., None, None]
    deviations = deviations - deviations.diagonal(dim1=-2, dim2=-1).diag_embed()
    centred = hidden - hidden.mean(-2, keepdim=True)
    products = centred @ centred.mT
    trace = products.diagonal(dim1=-2, dim2=-1).sum(-1)
    return LayerEvolution(
        norms.mean(-1),
        norms.std(-1, correction=0),
        mean,
        (deviations.square().sum((-2, -1)) / pairs).sqrt(),
        trace.square() / products.square().sum((-2, -1)),
    )
