"""What a trained network does when noise is added to it: accuracy, margin and lengths by sigma.

For "stroke" experiments, which look for a gain that answers noise. A network with fixed weights
cannot answer noise added downstream of where its length is read, and upstream of a LayerNorm the
length is set by that norm's gain and offset: neither reading can show a reflex.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...attachment import attach
from ...geometry.activity import mean_norm
from ...hooked.model import weights
from ...interventions import Noise
from ...probes import Accuracy, LogitMargin, Record
from ..fit import margins
from .sedation import setting_key

Tokens = Int[Tensor, "batch pos"]
Labels = Int[Tensor, "batch pos"]


@torch.no_grad()
def scores_under_noise(
    model: TransformerBridge,
    tokens: Tokens,
    labels: Labels,
    site: str,
    sigmas: Sequence[float],
    draws: int,
) -> dict[str, dict[str, float]]:
    """By sigma the means over draws of the noise, the same draws for every sigma.

    ``accuracy`` (fraction) and ``margin`` (logits) over all positions, and mean L2 norms:
    ``residual`` of what the last block gives, ``final`` of what the final norm gives, ``read`` of
    what the unembedding reads, which is the latter with any noise that is added there.

    Args:
        site: where noise is added, such as ``"ln_final"`` or ``"0.ln1"``.
    """
    before = [Record(f"{model.cfg.n_layers - 1}.resid_post", name="residual")]
    before += [Record("ln_final", name="final")]
    after = [
        Record("ln_final", name="read"),
        Accuracy(lambda _: labels),
        LogitMargin(lambda _: labels),
    ]
    found = {}
    for sigma in sigmas:
        each: list[dict[str, float]] = []
        for seed in range(draws if sigma else 1):
            # One forward each: settings that share a batch differ by rounding.
            with attach(model, *before, Noise(sigma, site, seed), *after) as run:
                model(tokens)
            lengths = {name: mean_norm(run[name].values) for name in ("residual", "final", "read")}
            accuracy, margin = (float(run[name].values) for name in ("accuracy", "logit_margin"))
            each.append({"accuracy": accuracy, "margin": margin, **lengths})
        found[setting_key(sigma)] = _mean(each)
    return found


@torch.no_grad()
def noisy_logit_scores(
    model: TransformerBridge,
    tokens: Tokens,
    labels: Labels,
    sigmas: Sequence[float],
    draws: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """``accuracy`` and ``margin`` by sigma, of the clean logits plus ``N(0, sigma^2 W W^T)``.

    The null of noise after the final norm: the network has no part in it. Draws are independent
    of those of :class:`~probekit.Noise`, so that the two agree to sampling.
    """
    logits, unembed = model(tokens), weights(model)["head.weight"]
    generator = torch.Generator().manual_seed(seed)

    def disturbed(sigma: float) -> Float[Tensor, "batch pos d_vocab"]:
        noise = torch.randn(*tokens.shape, unembed.shape[1], generator=generator)
        return logits + sigma * noise @ unembed.T

    return {
        setting_key(sigma): _mean(
            [_scores(disturbed(sigma), labels) for _ in range(draws if sigma else 1)]
        )
        for sigma in sigmas
    }


def falling_share(values: Sequence[float]) -> float:
    """The share of steps from each value to the next that go down: 1 for what only falls.

    Example:
        >>> falling_share([3.0, 2.0, 2.5, 1.0])
        0.6666666666666666
    """
    return float((np.diff(values) < 0).mean())


def _scores(logits: Float[Tensor, "batch pos d_vocab"], labels: Labels) -> dict[str, float]:
    right = logits.argmax(-1) == labels
    return {
        "accuracy": float(right.double().mean()),
        "margin": float(margins(logits, labels).double().mean()),
    }


def _mean(each: list[dict[str, float]]) -> dict[str, float]:
    """Means by name, exact where all are equal."""
    first = each[0]
    return {
        name: value + sum(one[name] - value for one in each) / len(each)
        for name, value in first.items()
    }
