"""Similarities against scipy, Gram matrices and brute-force permutations."""

import doctest
import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import torch
from torch import Tensor

from probekit.errors import ProbekitError
from probekit.geometry import (
    cka,
    cka_null,
    cosine_similarity,
    procrustes,
    procrustes_null,
    similarity,
)
from probekit.geometry.similarity import cosine_of_others, mean_cosine


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def rotation(dim: int) -> Tensor:
    return torch.linalg.qr(normal(dim, dim, seed=9))[0]


def gram_cka(x: Tensor, y: Tensor, unbiased: bool) -> float:
    """CKA from Gram matrices: centred, or U-centred (Szekely and Rizzo 2014)."""
    n = len(x)

    def centred(points: Tensor) -> Tensor:
        k = points @ points.T
        if not unbiased:
            h = torch.eye(n, dtype=torch.float64) - 1 / n
            return h @ k @ h
        k = k.fill_diagonal_(0)
        k = k - (k.sum(0) + k.sum(1)[:, None]) / (n - 2) + k.sum() / ((n - 1) * (n - 2))
        return k.fill_diagonal_(0)

    k, l = centred(x), centred(y)  # noqa: E741
    return float((k * l).sum() / ((k * k).sum() * (l * l).sum()).sqrt())


def test_examples_in_docstrings():
    found = doctest.testmod(similarity, extraglobs={"torch": torch})
    assert found.failed == 0 and found.attempted == 1


def test_cosine_is_scipys():
    x, y = normal(7, 5), normal(7, 5, seed=2)
    expected = [1 - scipy.spatial.distance.cosine(a, b) for a, b in zip(x, y, strict=True)]
    assert cosine_similarity(x, y).tolist() == pytest.approx(expected)
    assert cosine_similarity(x, torch.zeros_like(x)).isnan().all()


def test_mean_cosine_and_its_null_are_what_loops_give():
    x, y = normal(4, 2, 3, 5), normal(4, 2, 3, 5, seed=2)
    counted = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()
    for group in range(2):
        own, others = [], []
        for row in range(3):
            having = [i for i in range(4) if counted[i, row]]
            pairs = {
                (i, j): 1 - scipy.spatial.distance.cosine(x[i, group, row], y[j, group, row])
                for i, j in itertools.product(having, having)
            }
            own += [pairs[i, i] for i in having]
            different = [cosine for (i, j), cosine in pairs.items() if i != j]
            if different:  # a row that one example alone has is left out
                others += [np.mean(different)] * len(having)
        assert float(mean_cosine(x, y, counted)[group]) == pytest.approx(np.mean(own))
        assert float(cosine_of_others(x, y, counted)[group]) == pytest.approx(np.mean(others))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("rows", "widths"), [(12, (5, 5)), (6, (9, 4)), (4, (3, 7))])
def test_cka_is_that_of_gram_matrices(rows, widths, debiased):
    shared = normal(rows, 3, seed=5)
    x = torch.cat([shared, normal(rows, widths[0] - 3)], 1) + 7
    y = torch.cat([normal(rows, widths[1] - 3, seed=2), 2 * shared], 1)
    expected = gram_cka(x, y, debiased)
    assert cka(x, y, debiased=debiased) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_is_blind_to_rotation_scale_and_shift(debiased):
    x = normal(30, 6)
    assert cka(x, 3 * x @ rotation(6) + 2, debiased=debiased) == pytest.approx(1)


def test_the_null_of_cka_is_its_mean_over_all_permutations():
    x, y = normal(6, 4), normal(6, 3, seed=2)
    orders = [list(order) for order in itertools.permutations(range(6))]
    assert cka_null(x, y) == pytest.approx(np.mean([cka(x, y[order]) for order in orders]))
    # Debiased, it is 0.
    assert np.mean([cka(x, y[order], debiased=True) for order in orders]) == pytest.approx(
        0, abs=1e-12
    )


def test_few_rows_in_many_dimensions_read_high():
    x, y = normal(20, 200), normal(20, 200, seed=2)
    assert cka(x, y) > 0.8 and cka_null(x, y) == pytest.approx(cka(x, y), abs=0.02)
    assert abs(cka(x, y, debiased=True)) < 0.1


def test_procrustes_is_scipys():
    x, y = normal(40, 6) + 3, normal(40, 6, seed=2) - 1
    found = procrustes(x, y)
    cx, cy = x - x.mean(0), y - y.mean(0)
    expected, nuclear = scipy.linalg.orthogonal_procrustes(cx.numpy(), cy.numpy())
    torch.testing.assert_close(found.rotation, torch.from_numpy(expected))
    assert found.scale == pytest.approx(nuclear / float(cx.square().sum()))
    aligned = cosine_similarity(cx @ torch.from_numpy(expected), cy)
    assert found.cosine == pytest.approx(float(aligned.mean()))
    assert found.held_out is None


def test_the_scale_is_that_of_least_squares():
    x, y = normal(40, 6), normal(40, 6, seed=2)
    found = procrustes(x, y)
    cx, cy = x - x.mean(0), y - y.mean(0)

    def error(scale: float) -> float:
        return float((scale * cx @ found.rotation - cy).square().sum())

    assert error(found.scale) < min(error(found.scale * 1.01), error(found.scale * 0.99))
    # scipy.spatial.procrustes reports 1 - scale^2 of unit-norm sets.
    _, _, disparity = scipy.spatial.procrustes(cy.numpy(), cx.numpy())
    assert disparity == pytest.approx(error(found.scale) / float(cy.square().sum()))


@pytest.mark.parametrize("test", [0.25, list(range(30, 40))])
def test_a_rotated_copy_is_found_again(test):
    x = normal(40, 6)
    found = procrustes(x, 3 * x @ rotation(6) + 2, test=test)
    torch.testing.assert_close(found.rotation, rotation(6))
    assert found.scale == pytest.approx(3)
    assert found.cosine == pytest.approx(1) and found.held_out == pytest.approx(1)


def test_held_out_rows_do_not_enter_the_fit():
    x, y = normal(40, 6), normal(40, 6, seed=2)
    found, alone = procrustes(x, y, test=0.25), procrustes(x[:30], y[:30])
    torch.testing.assert_close(found.rotation, alone.rotation)
    assert found.cosine == pytest.approx(alone.cosine)
    aligned = (x[30:] - x[:30].mean(0)) @ alone.rotation
    expected = cosine_similarity(aligned, y[30:] - y[:30].mean(0)).mean()
    assert found.held_out == pytest.approx(float(expected))


def test_where_the_rows_leave_the_rotation_free_it_stays_near_the_identity():
    x = normal(5, 8)
    same = procrustes(x, x, test=0.4)
    torch.testing.assert_close(same.rotation, torch.eye(8, dtype=torch.float64))
    assert same.held_out == pytest.approx(1)
    turned = procrustes(x, x @ rotation(8))
    eye = torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(turned.rotation @ turned.rotation.T, eye)
    assert turned.cosine == pytest.approx(1)
    # Nearer to the identity than other completions of the same fit.
    left, _, right = torch.linalg.svd((x - x.mean(0)).T @ ((x - x.mean(0)) @ rotation(8)))
    for seed in range(20):
        free = torch.linalg.qr(normal(4, 4, seed=seed))[0]
        other = left[:, :4] @ right[:4] + left[:, 4:] @ free @ right[4:]
        assert (turned.rotation - eye).norm() <= (other - eye).norm() + 1e-9


def test_the_null_of_procrustes_is_what_unrelated_rows_read():
    rows, dim = 2000, 40
    x, y = (torch.nn.functional.normalize(normal(rows, dim, seed=s), dim=-1) for s in (1, 2))
    found = procrustes(x, y)
    assert found.cosine == pytest.approx(procrustes_null(rows, dim), rel=0.02)
    assert procrustes_null(rows, dim) == pytest.approx(8 / (3 * math.pi) * math.sqrt(0.02))
    held = procrustes(x, y, test=0.5).held_out
    assert held == pytest.approx(0, abs=5 / math.sqrt(dim * rows / 2))
    assert procrustes_null(3, 40) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: cosine_similarity(x, x[:3]),
            "cosine_similarity pairs rows of one shape, not (5, 4) and (3, 4)",
        ),
        (
            lambda x: cka(x, x[:3]),
            "cka pairs at least 2 rows of x with as many of y, not 5 with 3",
        ),
        (
            lambda x: cka(x[:3], x[:3], debiased=True),
            "cka pairs at least 4 rows of x with as many of y, not 3 with 3",
        ),
        (
            lambda x: cka_null(x[:1], x[:1]),
            "cka_null pairs at least 2 rows of x with as many of y, not 1 with 1",
        ),
        (
            lambda x: procrustes(x, x[:, :3]),
            "procrustes needs one width, not 4 and 3; cka compares any",
        ),
        (
            lambda x: procrustes(x, x, test=0.9),
            "test=0.9 of 5 rows leaves 1 to fit and 4 to hold out; 2 and 1 are needed at least",
        ),
        (
            lambda x: procrustes(x, x, test=[]),
            "test=[] of 5 rows leaves 5 to fit and 0 to hold out; 2 and 1 are needed at least",
        ),
        (
            lambda x: procrustes(x, x, test=1.0),
            "test as a fraction lies between 0 and 1, not 1.0",
        ),
        (lambda x: procrustes(x, x, test=[1, 5]), "test rows [5] lie outside the 5 rows"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call(normal(5, 4))
    assert str(error.value) == message
