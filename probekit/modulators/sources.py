"""Where rows of a geometric table come from: relations, simplices, and nearest neighbours.

``from_relations``  a similarity's leading eigenvectors, and ``reconstruction``, how well their
                    products give it back, beside what a permuted similarity reads.
``pool_simplices``  the sum of a simplex's vertices.
``neighbour_rows``  for tokens without a row of their own, the mean of their neighbours' rows.

Source: the write-up "Geometric Terrain Analysis", its residual modulator (the initialisers that it
calls relational and Cayley-Menger) and its pipeline, and its critique, section B11.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import check_positive, check_sizes
from ..errors import ProbekitError
from ..geometry.similarity import unit_rows

#: A sum shorter than this share of its terms is rounding noise.
_VANISHED = 1e-5
_BATCH = 1000


def from_relations(
    similarity: Float[Tensor, "items items"], d_geometry: int
) -> Float[Tensor, "items d_geometry"]:
    """Rows whose products approximate a similarity: ``eigenvectors * sqrt(max(l, 0))``, unit rows.

    Of the ``d_geometry`` largest eigenvalues l; columns of negative ones are 0. Even noise, of 600
    items in 64 columns, is reconstructed with r = .54: compare with :func:`reconstruction_null`.

    Raises:
        ProbekitError: not symmetric, more columns than items, or an item without a part in them.
    """
    if not 1 <= d_geometry <= len(similarity):
        raise ProbekitError(f"d_geometry={d_geometry} of {len(similarity)} eigenvectors")
    matrix = similarity.double()
    if not (matrix - matrix.T).abs().max() <= 1e-5 * matrix.abs().max():  # NaN compares as False
        raise ProbekitError("the similarity is not symmetric or not finite; give (S + S.T) / 2")
    values, vectors = torch.linalg.eigh(matrix)
    rows = (vectors * values.clamp(min=0).sqrt())[:, -d_geometry:].flip(-1)  # largest first
    why = f"they have no part in the top {d_geometry} eigenvectors; raise d_geometry or drop them"
    return _unit_rows(rows, rows.norm(dim=-1).max(), why).to(similarity.dtype)


def pool_simplices(
    vertices: Float[Tensor, "items points d_geometry"],
) -> Float[Tensor, "items d_geometry"]:
    """A unit row an item: the sum of its simplex's vertices, normalised.

    A centred simplex sums to 0, and what rounding leaves becomes noise of length 1. The write-up
    keeps it; here it is an error.

    Raises:
        ProbekitError: a sum shorter than 1e-5 of its vertices' joint norm.
    """
    why = "a centred simplex sums to 0; shift it off the origin or give one vertex as the row"
    return _unit_rows(vertices.sum(1), vertices.norm(dim=(1, 2)), why)


def neighbour_rows(
    vectors: Float[Tensor, "items dim"],
    anchors: Float[Tensor, "anchors dim"],
    anchor_rows: Float[Tensor, "anchors d_geometry"],
    *,
    k: int = 10,
    temperature: float | int = 0.1,
) -> Float[Tensor, "items d_geometry"]:
    """Unit rows for items that have none: ``sum_j softmax(cos_j / temperature) row_j``, normalised.

    Over the k anchors with the greatest cosine. An anchor given as an item gets the mean of its
    neighbours, not its own row: leave anchors out, or set their rows again.

    Args:
        vectors: of the items, in the space where neighbours are looked for.
        anchors: of the items whose rows are known.
        anchor_rows: those rows.

    Raises:
        ProbekitError: k not from 1 to the number of anchors, a temperature that is not above 0,
            vectors of length 0, or neighbours' rows that sum to 0.
    """
    check_sizes(k=k)
    check_positive("temperature", temperature)
    if k > len(anchors) or len(anchors) != len(anchor_rows):
        raise ProbekitError(
            f"{len(anchors)} anchors with {len(anchor_rows)} rows do not give k={k} neighbours"
        )
    known, rows = unit_rows(anchors), anchor_rows.double()
    means = torch.cat(
        [
            _neighbours(unit_rows(part), known, rows, k, temperature)
            for part in vectors.split(_BATCH)
        ]
    )
    if not means.isfinite().all():
        raise ProbekitError("a vector, or a row, has length 0 or is not finite; leave it out")
    why = "the neighbours' rows cancel; lower the temperature or k"
    scale = rows.norm(dim=-1).max()
    return _unit_rows(means, scale, why).to(anchor_rows.dtype)


def _neighbours(
    units: Tensor, known: Tensor, rows: Tensor, k: int, temperature: float | int
) -> Tensor:
    cosines, nearest = (units @ known.T).topk(k)
    return torch.einsum("nk,nkg->ng", (cosines / temperature).softmax(-1), rows[nearest])


def reconstruction(
    similarity: Float[Tensor, "items items"], rows: Float[Tensor, "items d_geometry"]
) -> float:
    """Pearson correlation of ``S_ij`` and ``rows_i . rows_j`` over the pairs i < j.

    In sample: rows of :func:`from_relations` were chosen to make it large. Its null is
    :func:`reconstruction_null`.

    Raises:
        ProbekitError: as many rows as items are needed, three at least.
    """
    if len(similarity) != len(rows) or len(rows) < 3:
        raise ProbekitError(
            f"reconstruction needs a row an item and 3 items, not {len(rows)} for {len(similarity)}"
        )
    first, second = torch.triu_indices(len(rows), len(rows), 1)
    products = rows.double() @ rows.double().T
    pairs = torch.stack([similarity.double()[first, second], products[first, second]])
    return float(torch.corrcoef(pairs)[0, 1])


def reconstruction_null(
    similarity: Float[Tensor, "items items"], d_geometry: int, *, draws: int = 20, seed: int = 0
) -> tuple[float, float]:
    """Mean and deviation of :func:`reconstruction` where pairs have each other's similarity.

    Permuted items would change nothing, since the rows follow them. Here the values of the pairs
    i < j are dealt out anew by NumPy's ``default_rng(seed)``, the diagonal stays, and rows are
    fitted again: a similarity of the same values without any structure.

    Raises:
        ProbekitError: as :func:`from_relations`.
    """
    check_sizes(draws=draws)
    rng = np.random.default_rng(seed)
    first, second = torch.triu_indices(len(similarity), len(similarity), 1)
    values, found = similarity[first, second], []
    for _ in range(draws):
        dealt = similarity.diagonal().diag()
        dealt[first, second] = values[torch.from_numpy(rng.permutation(len(values)))]
        dealt = dealt + dealt.triu(1).T
        found.append(reconstruction(dealt, from_relations(dealt, d_geometry)))
    return float(np.mean(found)), float(np.std(found))


def _unit_rows(rows: Tensor, scale: Tensor, why: str) -> Tensor:
    norms = rows.norm(dim=-1)
    lost = (norms <= _VANISHED * scale).nonzero()[:, 0].tolist()
    if lost:
        raise ProbekitError(
            f"rows {str(lost[:5])[1:-1]}{', ...' if lost[5:] else ''} are 0 but for rounding, and"
            f" normalising would give noise: {why}"
        )
    return rows / norms.unsqueeze(-1)
