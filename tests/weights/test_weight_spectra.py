"""Spectra against NumPy and plain loops; their nulls against simulated matrices."""

import dataclasses
import doctest
import math

import numpy as np
import pytest
import torch

from probekit.errors import ProbekitError
from probekit.weights import (
    SpectrumStats,
    singular_values,
    spectra,
    spectrum_null,
    spectrum_nulls,
    spectrum_row,
)

NAMES = [field.name for field in dataclasses.fields(SpectrumStats)]


def by_loops(matrix: np.ndarray) -> dict[str, float]:
    """The write-up's formulas, one value at a time."""
    s = np.linalg.svd(matrix, compute_uv=False)

    def rank(values: np.ndarray) -> int:
        running = 0.0
        for number, value in enumerate(values, 1):
            running += value
            if running >= 0.9 * values.sum():
                return number
        return len(values)

    condition = s[0] / (s[-1] + 1e-10)
    return {
        "stable_rank": (s**2).sum() / s[0] ** 2,
        "participation": s.sum() ** 2 / (s**2).sum(),
        "active_fraction": sum(value > 0.01 * s[0] for value in s) / len(s),
        "amplitude_rank_90": rank(s),
        "energy_rank_90": rank(s**2),
        "condition": condition,
        "log10_condition": math.log10(condition),
    }


@pytest.mark.parametrize("shape", [(7, 4), (600, 520), (520, 600), (530, 530)])
def test_singular_values_against_numpy(shape):
    """The larger go through a Gram matrix; k is some hundreds here, ten thousand if square."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(singular_values(matrix).numpy(), expected, rtol=1e-6)


def test_singular_values_of_a_matrix_of_low_rank():
    low = torch.randn(600, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = singular_values(low @ low.mT)
    assert found.isfinite().all() and found[2] > 1e7 * found[3]
    torch.testing.assert_close(found[:3], torch.linalg.svdvals(low).square())


@pytest.mark.parametrize("shape", [(12, 12), (9, 30), (30, 9)])
def test_each_number_against_loops(shape):
    matrix = np.random.default_rng(0).standard_normal(shape) * np.logspace(0, -3, shape[1])
    ours = spectrum_row(torch.linalg.svdvals(torch.from_numpy(matrix)))
    assert dataclasses.asdict(ours) == pytest.approx(by_loops(matrix), rel=1e-9)


def test_a_singular_matrix_has_the_published_floor():
    row = spectrum_row(torch.tensor([2.0, 0.0], dtype=torch.float64))
    assert row.condition == pytest.approx(2e10) and row.log10_condition == pytest.approx(10.30103)
    assert (row.stable_rank, row.participation, row.active_fraction) == (1, 1, 0.5)


@pytest.mark.parametrize("shape", [(48, 48), (96, 64), (40, 160)])
def test_nulls_hold_nineteen_of_twenty_matrices(shape):
    null = spectrum_null(*shape)
    drawn = torch.randn(150, *shape, generator=torch.Generator().manual_seed(0))
    rows = [dataclasses.asdict(spectrum_row(s)) for s in torch.linalg.svdvals(drawn)]
    for name in NAMES:
        low, high = getattr(null.low, name), getattr(null.high, name)
        assert low <= getattr(null.value, name) <= high
        inside = np.mean([low <= row[name] <= high for row in rows])
        assert inside >= 0.91, (name, low, high)


def test_closed_forms():
    """The critique's B7, from large simulated matrices and the literature."""
    square = spectrum_null(512, 512).value
    assert square.stable_rank == pytest.approx(128)
    assert square.participation == pytest.approx((8 / (3 * math.pi)) ** 2 * 512)
    assert square.amplitude_rank_90 / 512 == pytest.approx(0.672, abs=2e-3)
    assert square.energy_rank_90 / 512 == pytest.approx(0.510, abs=2e-3)
    assert square.active_fraction == pytest.approx(0.987, abs=5e-4)
    assert square.condition == pytest.approx(3.67 * 512, rel=1e-3)
    wide = spectrum_null(2048, 512).value
    assert wide.stable_rank == pytest.approx(227.6, abs=0.05)
    assert wide.participation / 512 == pytest.approx(0.936, abs=1e-3)
    assert wide.amplitude_rank_90 / 512 == pytest.approx(0.841, abs=2e-3)
    assert wide.energy_rank_90 / 512 == pytest.approx(0.761, abs=2e-3)
    assert (wide.active_fraction, wide.condition) == (pytest.approx(1), pytest.approx(3))
    assert spectrum_null(384, 1152).value.participation / 384 == pytest.approx(0.915, abs=1e-3)
    assert spectrum_null(384, 1152).value.condition == pytest.approx(3.732, abs=1e-3)


def test_a_null_does_not_depend_on_orientation_and_admits_what_it_lacks():
    assert spectrum_null(96, 64) == spectrum_null(64, 96)
    assert math.isnan(spectrum_null(64, 60).value.condition)


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [1.0, -1.0], [math.inf, 1.0], [math.nan, 1.0]])
def test_no_spectrum(values):
    with pytest.raises(ProbekitError, match=r"^singular_values needs finite values from 0 that"):
        spectrum_row(torch.tensor(values))


def test_sizes_are_whole():
    with pytest.raises(ProbekitError, match=r"^rows must be a whole number from 1, not 0$"):
        spectrum_null(0, 3)


@pytest.mark.parametrize("module", [spectra, spectrum_nulls])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module, extraglobs={"torch": torch}) == (0, 1)
