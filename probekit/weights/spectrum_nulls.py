"""What an iid matrix reads: the nulls of :mod:`probekit.weights.spectra`, with their error.

The squared singular values of a large m x n matrix of independent entries (m >= n) follow the
Marchenko-Pastur law whatever the entries' distribution; its edges fluctuate as Tracy and Widom say.
The smallest singular value of a square matrix follows Edelman's law, which has no mean.

Source: V. Marchenko and L. Pastur 1967; A. Edelman 1988, "Eigenvalues and condition numbers of
random matrices"; I. Johnstone 2001, "On the distribution of the largest eigenvalue in principal
components analysis"; O. Feldheim and S. Sodin 2010 (the lower edge); the terrain write-up's
critique, section B7.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import scipy

from ..checks import check_sizes
from ..geometry import dims_for_variance_null
from .spectra import ACTIVE, SpectrumStats

_TRACY_WIDOM = (-3.52, 1.46)  # 2.5 % and 97.5 % of the law for real matrices
_EDGE_FROM = 16  # columns less than rows from which the lower edge is soft


@dataclass(frozen=True)
class SpectrumNull:
    """``value`` of an iid matrix, and the range that holds 95 % of single ones for each number."""

    value: SpectrumStats
    low: SpectrumStats
    high: SpectrumStats


@lru_cache(maxsize=256)
def spectrum_null(rows: int, cols: int) -> SpectrumNull:
    """Closed forms and one-dimensional integrals for a rows x cols matrix of iid entries.

    With m and n the larger and the smaller size: stable rank ``mn / (sqrt m + sqrt n)^2`` (n / 4 of
    a square one); participation .7205 n and amplitude rank .672 n of a square one; condition
    ``(sqrt m + sqrt n) / (sqrt m - sqrt n)``, of a square one the median, 3.67 n. Between these, up
    to 15 rows more than columns, the condition has no closed form here and is NaN.

    The ranges are Tracy-Widom's for the largest and smallest values and Edelman's for the square
    condition; the sums fluctuate by a few units whatever the size, as found by simulation from 32
    columns on. Below that they are a guide.

    Raises:
        ProbekitError: sizes that are no whole numbers from 1.

    Example:
        >>> round(spectrum_null(512, 2048).value.stable_rank, 1)
        227.6
    """
    check_sizes(rows=rows, cols=cols)
    m, n = max(rows, cols), min(rows, cols)
    y = n / m
    amplitude = _integral(y, math.sqrt)
    participation = n * amplitude**2
    active = _integral(y, lambda _: 1.0, _angle(y, (ACTIVE * (1 + math.sqrt(y))) ** 2))
    energy_rank = float(dims_for_variance_null(n, m, (0.9,))[0])
    amplitude_rank = float(math.ceil(n * _amplitude_share(y, 0.9 * amplitude)))
    top = math.sqrt(m) + math.sqrt(n)
    spread = (1 / math.sqrt(m) + 1 / math.sqrt(n)) ** (1 / 3) / top
    condition = _condition(m, n)
    low, high = (1 + spread * t for t in _TRACY_WIDOM)

    def stats(sign: int) -> SpectrumStats:
        kappa = condition[sign]
        edge = (1.0, low, high)[sign]  # the larger s_1, the smaller the stable rank
        return SpectrumStats(
            stable_rank=m * n / top**2 / edge,
            participation=participation + sign * 1.2,
            active_fraction=min(1.0, active + sign * 2.0 / n),
            amplitude_rank_90=amplitude_rank + sign * 2.0,
            energy_rank_90=energy_rank + sign * 2.0,
            condition=kappa,
            log10_condition=math.log10(kappa),
        )

    return SpectrumNull(stats(0), stats(-1), stats(1))


def _integral(y: float, of: Callable[[float], float], angle: float = math.pi) -> float:
    """``of`` the eigenvalue (in units of m), averaged over the law down to ``angle``."""

    def density(t: float) -> float:
        value = 1 + y + 2 * math.sqrt(y) * math.cos(t)
        return 2 * math.sin(t) ** 2 / (math.pi * value) * of(value) if value > 0 else 0.0

    return scipy.integrate.quad(density, 0, angle, limit=200)[0]


def _angle(y: float, value: float) -> float:
    return math.acos(max(-1.0, min(1.0, (value - 1 - y) / (2 * math.sqrt(y)))))


def _amplitude_share(y: float, wanted: float) -> float:
    angle = scipy.optimize.brentq(lambda t: _integral(y, math.sqrt, t) - wanted, 0, math.pi)
    return _integral(y, lambda _: 1.0, float(angle))  # type: ignore[arg-type]


def _condition(m: int, n: int) -> tuple[float, float, float]:
    """Value, upper and lower 97.5 % points: indices 0, 1 and -1."""
    if m == n:
        # P(kappa / n < x) = exp(-2 / x - 2 / x^2)
        value, high, low = (n * _edelman(p) for p in (0.5, 0.975, 0.025))
        return value, high, low
    if m - n < _EDGE_FROM:
        return math.nan, math.nan, math.nan
    ends = []
    for sign in (1, -1):
        root = math.sqrt(m) + sign * math.sqrt(n)
        inverse = 1 / math.sqrt(n) + sign / math.sqrt(m)
        scale = sign * root * inverse ** (1 / 3)
        at = [max(root**2 + scale * t, 1e-300) for t in _TRACY_WIDOM]
        ends.append((root**2, max(at), min(at)))
    (top, top_high, top_low), (bottom, bottom_high, bottom_low) = ends
    ratios = (top / bottom, top_high / bottom_low, top_low / bottom_high)
    value, high, low = (math.sqrt(ratio) for ratio in ratios)
    return value, high, low


def _edelman(share: float) -> float:
    # 2 / x + 2 / x^2 = -ln share, solved for 1 / x
    return 2 / (math.sqrt(1 - 2 * math.log(share)) - 1)
