"""The same network in another basis, and a donor's attention brought into a model's own.

For experiments that put weights of one trained network into another. Such a hybrid fails for two
reasons that its accuracy does not tell apart: the donor computes something else, or it computes
the same in another basis of the residual stream. :func:`permuted_twin` differs by the basis alone;
:func:`aligned_attention` takes the basis away.

A permutation of the features (and a sign common to all) is the only change of basis under which a
network with LayerNorms keeps its function exactly: subtracting the mean of the features excludes
other rotations, and so do unequal gains. Hence there is no exact rotation of a whole donor. What
attention reads can be rotated all the same, a projection at a time.

Read more: Ainsworth et al. 2022, "Git Re-Basin", https://arxiv.org/abs/2209.04836; Bansal et al.
2021, "Revisiting Model Stitching", https://arxiv.org/abs/2106.07682.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ...attachment import attach
from ...errors import ProbekitError
from ...geometry import Procrustes, procrustes
from ...hooked.load import random_twin
from ...hooked.model import HookedModel, load_weights, weights
from ...hooked.native import native_field
from ...hooked.selection import Selection
from ...interventions.swap_weights import donor_weights
from ...probes import Record
from ..readout import check_readable

# Which axis of a native model's parameter runs over the features of the residual stream.
_OUT = ("attn.o.weight", "attn.o.bias", "mlp.fc_out.weight", "mlp.fc_out.bias")
_IN = ("attn.q.weight", "attn.k.weight", "attn.v.weight", "mlp.fc_in.weight", "head.weight")
_IN += ("tok_embed.weight", "pos.weight")
_NORMS = ("ln1", "ln2", "ln_out")


def permute_features(
    tensors: Mapping[str, Tensor], order: Int[Tensor, " d_model"]
) -> dict[str, Tensor]:
    """Weights of the same function whose residual feature i is the old feature ``order[i]``.

    Args:
        tensors: of a native model with LayerNorms, by their names in a checkpoint.
    """
    return {name: _permuted(name, tensor, order) for name, tensor in tensors.items()}


def _permuted(name: str, tensor: Tensor, order: Tensor) -> Tensor:
    if name.endswith(_OUT) or name.split(".")[-2] in _NORMS:
        return tensor[order]
    return tensor[:, order] if name.endswith(_IN) else tensor


def permuted_twin(model: HookedModel, seed: int) -> HookedModel:
    """A model of the same function, to rounding, whose residual features are in another order.

    The null of a weight swap and of any cosine of residuals: as a donor it knows exactly what
    ``model`` knows, so that what a swap loses, the basis loses.

    Args:
        seed: of the order.

    Raises:
        ProbekitError: not a native model with LayerNorms.
    """
    check_readable(model, "permuted_twin")
    drawn = torch.Generator().manual_seed(seed)
    order, twin = torch.randperm(model.cfg.d_model, generator=drawn), random_twin(model, seed)
    load_weights(twin, permute_features(weights(model), order))
    return twin


def aligned_attention(
    model: HookedModel,
    donor: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    parts: Sequence[str] = ("Q", "K"),
    layer: int = 0,
) -> tuple[dict[str, Tensor], Procrustes]:
    """The donor's projections, reading the model's residual stream through the best rotation.

    With x what attention reads in ``model`` and y what it reads in ``donor`` on the same tokens,
    ``y = mean_y + s (x - mean_x) R`` nearly (Procrustes), and the projections of the right side
    are put into W and b. The queries and keys of one head meet each other only, so that Q and K
    together need no further change of basis, and an exact fit gives the donor's own pattern.
    V (and Q or K alone) ends in the donor's basis within its heads, which O does not read.

    Args:
        tokens: to fit the rotation on; more positions than d_model.
        parts: of Q, K and V.

    Returns:
        a donor for :class:`~probekit.SwapWeights`, and the fit: its ``cosine`` says how well the
        rotation does (compare :func:`~probekit.geometry.procrustes_null`).

    Raises:
        ProbekitError: other parts, or models of another kind or width.
    """
    if not set(parts) <= {"Q", "K", "V"}:
        raise ProbekitError(f"aligned_attention has parts of Q, K and V, not {tuple(parts)}")
    x, y = (_attention_input(each, tokens, layer) for each in (model, donor))
    fit = procrustes(x, y)
    center, there = x.double().mean(0), y.double().mean(0)
    given = donor_weights(donor, Selection(tuple(parts), (layer,)))
    aligned = dict(given)
    for address, weight in given.items():
        if address.endswith(".weight"):
            turned = fit.scale * weight.double() @ fit.rotation.T
            bias = address.removesuffix("weight") + "bias"
            shift = weight.double() @ there - turned @ center
            if bias not in given:
                raise ProbekitError(
                    f"aligned_attention moves the means into biases, and {address} has none; "
                    "load the models with attention_bias=True"
                )
            aligned[address] = turned.to(weight)
            aligned[bias] = (given[bias].double() + shift).to(weight)
    return aligned, fit


@torch.no_grad()
def _attention_input(model: HookedModel, tokens: Tensor, layer: int) -> Tensor:
    check_readable(model, "aligned_attention")
    site = f"{layer}.resid_pre" if native_field(model.cfg, "post_norm") else f"{layer}.ln1"
    with attach(model, Record(site, name="read")) as run:
        model(tokens)
    return run["read"].values.flatten(0, 1)
