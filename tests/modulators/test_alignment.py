"""align_rows against SciPy and NumPy, on planted rotations, and on unrelated rows."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from unchecked import unchecked

from probekit.errors import ProbekitError
from probekit.modulators import align_rows


def planted(noise: float, items: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows of width 5, and states of width 9 that hold them, turned and moved."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = drawn(items, 5)
    rows -= rows.mean(0)  # so that lengths do not disturb the centred fit
    rows = rows / rows.norm(dim=-1, keepdim=True)
    turn = torch.linalg.qr(drawn(9, 9))[0][:5]
    return rows, 3 + 7 * rows @ turn + noise * drawn(items, 9)


def test_the_published_fit_is_numpys_and_scipys() -> None:
    rows, states = (x.numpy() for x in planted(2.0))
    found = align_rows(torch.tensor(rows), torch.tensor(states))
    centred = states - states.mean(0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:5]
    y = centred @ components.T
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    x = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rotation, _ = scipy.linalg.orthogonal_procrustes(x - x.mean(0), y - y.mean(0))
    mapped = (x - x.mean(0)) @ rotation + y.mean(0)
    cosines = (mapped * y).sum(1) / np.linalg.norm(mapped, axis=1)
    assert found.cosine == pytest.approx(cosines.mean())
    length = np.linalg.norm(states, axis=1).mean()
    assert found.length == pytest.approx(length)
    expected = (rotation @ components).T * 0.1 * length
    np.testing.assert_allclose(found.projection.numpy(), expected, atol=1e-9)


def test_the_corrected_fit_is_of_half_the_rows() -> None:
    rows, states = (x.numpy() for x in planted(2.0))
    found = align_rows(torch.tensor(rows), torch.tensor(states), seed=3)
    order = np.random.default_rng(3).permutation(200)
    fitted, held = order[:100], order[100:]
    centred = states - states[fitted].mean(0)
    components = np.linalg.svd(centred[fitted], full_matrices=False)[2][:5]
    scores = centred @ components.T
    y = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    x, y = rows - rows[fitted].mean(0), y - y[fitted].mean(0)
    rotation, nuclear = scipy.linalg.orthogonal_procrustes(x[fitted], y[fitted])
    mapped = x[held] @ rotation
    cosines = (mapped * y[held]).sum(1) / np.linalg.norm(mapped, axis=1)
    assert found.held_out == pytest.approx((cosines / np.linalg.norm(y[held], axis=1)).mean())
    scale = nuclear / np.square(x[fitted]).sum()
    assert found.scale == pytest.approx(scale)
    reach = np.linalg.norm(scores[fitted], axis=1).mean()
    expected = (rotation @ components).T * scale * reach
    np.testing.assert_allclose(found.corrected.numpy(), expected, atol=1e-9)


def test_a_planted_rotation_is_found() -> None:
    rows, states = planted(0.0)
    found = align_rows(rows, states)
    assert found.cosine == pytest.approx(1, abs=1e-3)
    assert found.held_out == pytest.approx(1, abs=1e-2)
    predicted = (rows - rows.mean(0)) @ found.corrected.T + states.mean(0)
    torch.testing.assert_close(predicted, states, atol=0.5, rtol=0)  # of length 7 about the mean
    lengths = (rows @ found.projection.T).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.1 * found.length))
    assert abs(found.held_out_shuffled) < 0.1 < found.shuffled < 0.25  # null: .134


def test_unrelated_rows_read_the_null() -> None:
    """Findings 003, B11: about (8 / 3 pi) sqrt(64 / 3000) = .124 in sample, 0 held out."""
    found = align_rows(torch.randn(3000, 64), torch.randn(3000, 80))
    assert found.null == pytest.approx(8 / (3 * math.pi) * math.sqrt(64 / 3000))
    for value in (found.centred, found.cosine, found.shuffled):
        assert value == pytest.approx(0.1245, abs=0.01)
    assert abs(found.held_out) < 0.02 and abs(found.held_out_shuffled) < 0.02


def test_results_keep_the_dtype_of_the_states() -> None:
    rows, states = planted(1.0)
    found = align_rows(rows, states.float())
    assert found.projection.dtype == found.corrected.dtype == torch.float32
    assert found.projection.shape == (9, 5)


def test_refusals() -> None:
    rows, states = planted(1.0, items=11)
    message = (
        r"11 rows of width 5 with states of shape \[10, 9\]: give a state a row, as wide at least, "
        "and more than 10 of them"
    )
    with pytest.raises(ProbekitError, match=message):
        unchecked(align_rows, rows, states[:10])
    with pytest.raises(ProbekitError, match=r"\[11, 4\]"):
        align_rows(rows, states[:, :4])
    with pytest.raises(ProbekitError, match="10 rows of width 5"):
        align_rows(rows[:10], states[:10])
    align_rows(rows, states)
    with pytest.raises(ProbekitError, match="a row has length 0"):
        align_rows(rows * (torch.arange(11) > 0)[:, None], states)
