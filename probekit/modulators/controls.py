"""Controls of a modulator's table: what its effect is without the geometry that it is said to have.

``permuted_rows``  the same rows at other tokens: all but who has which.
``random_rows``    other directions of the same lengths: no geometry at all.
``zero_rows``      tokens without geometry of their own get nothing, where the write-up leaves them
                   random rows, several times longer than the others.

Each returns a changed copy and leaves the module alone. What remains then is the shrinking of the
stream (``pk.Lerp(module, form="shrink-only")``).

Source: the write-up "Geometric Terrain Analysis", and its critique, section B11.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..checks import check_whole
from .lerp import LerpModulator

Ids = Int[Tensor, " rows"] | Sequence[int]


def permuted_rows(
    module: LerpModulator, seed: int = 0, token_ids: Ids | None = None
) -> LerpModulator:
    """Token ``ids[i]`` gets the row of ``ids[p[i]]``, p NumPy's ``default_rng(seed).permutation``.

    Args:
        token_ids: among which rows change places, in this order; None means all tokens.

    Raises:
        ProbekitError: ids out of range or repeated.
    """
    check_whole("seed", seed)
    ids = _ids(module, token_ids)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(ids)))
    return _with_rows(module, module.geometry[ids[order]], ids)


def random_rows(
    module: LerpModulator, seed: int = 0, token_ids: Ids | None = None
) -> LerpModulator:
    """Every row gets a random direction, uniform on the sphere, and keeps its length.

    Directions are ``default_rng(seed).standard_normal((ids, d_geometry))``, normalised.

    Args:
        token_ids: whose rows change; None means all tokens'.

    Raises:
        ProbekitError: ids out of range or repeated.
    """
    check_whole("seed", seed)
    ids = _ids(module, token_ids)
    own = module.geometry[ids].detach()
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal(own.shape)).to(own)
    lengths = own.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)
    return _with_rows(module, drawn * lengths, ids)


def zero_rows(module: LerpModulator, other_than: Ids) -> LerpModulator:
    """Rows of all tokens but those of ``other_than`` are 0.

    Raises:
        ProbekitError: ids out of range or repeated.
    """
    ids = _ids(module, other_than)
    return _with_rows(module, module.geometry[ids], ids, zero_others=True)


def _ids(module: LerpModulator, token_ids: Ids | None) -> Tensor:
    if token_ids is None:
        return torch.arange(len(module.geometry))
    return torch.as_tensor(token_ids).cpu().long()


def _with_rows(
    module: LerpModulator, rows: Tensor, ids: Tensor, zero_others: bool = False
) -> LerpModulator:
    changed = copy.deepcopy(module)
    changed.set_geometry(rows.detach(), ids, zero_others)
    return changed
