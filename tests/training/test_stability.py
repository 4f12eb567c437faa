"""Stability classifiers by rule; exact tests against published values, scipy, enumeration."""

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from probekit.errors import ProbekitError
from probekit.training import (
    classify_recovery,
    collapse_count,
    first_drop,
    fisher_exact,
    fisher_power,
    permutation_p,
    seeds_needed,
    stability,
    time_to_generalisation,
    time_to_stability,
)

accuracies = st.lists(st.floats(0, 1), max_size=30)
arm = st.integers(1, 12).flatmap(lambda runs: st.tuples(st.integers(0, runs), st.just(runs)))


def steps_of(values):
    return list(range(0, 200 * len(values), 200))


def test_examples_in_docstrings():
    found = doctest.testmod(stability)
    assert found.failed == 0 and found.attempted == 2


def test_a_collapse_needs_a_log_above_and_a_log_below():
    assert collapse_count([]) == 0
    assert collapse_count([0.1, 0.2, 0.94, 0.1]) == 0  # never generalised
    assert collapse_count([0.95, 0.5]) == 0  # .50 is not below .50
    assert collapse_count([0.95, 0.7, 0.6, 0.49]) == 1  # the fall may take its time
    assert collapse_count([1.0, 0.0, 0.94, 0.0]) == 1  # not re-armed
    assert collapse_count([1.0, 0.0] * 5) == 5
    assert collapse_count([0.31, 0.14, 0.3, 0.1], below=0.15, after=0.30) == 2  # text


@given(accuracies)
def test_collapses_are_those_of_a_two_state_walk(values):
    # As a word: each log is high, low or neither; a collapse is an h..l with no h or l between.
    word = "".join("h" if v >= 0.95 else "l" if v < 0.5 else "" for v in values)
    assert collapse_count(values) == word.count("hl")


def test_generalisation_is_the_first_log_and_stability_the_last_stretch():
    values = [0.1, 0.96, 0.4, 0.95, 0.9, 0.92]
    assert time_to_generalisation(steps_of(values), values) == 200
    assert time_to_stability(steps_of(values), values) == 600
    assert time_to_generalisation([0, 200], [0.1, 0.94]) is None
    assert time_to_stability([0, 200], [1.0, 0.89]) is None
    assert time_to_stability([0, 200], [0.1, 0.26], at=0.25) == 200


@given(accuracies)
def test_stability_is_equivalent_to_the_last_log(values):
    found = time_to_stability(steps_of(values), values)
    assert (found is not None) == (bool(values) and values[-1] >= 0.90)
    starts = [s for i, s in enumerate(steps_of(values)) if all(v >= 0.9 for v in values[i:])]
    assert found == min(starts, default=None)


def test_a_drop_looks_back_five_logs():
    assert first_drop([0, 100, 200], [0.9, 0.61, 0.59]) == 200
    slow = [0.9, 0.8, 0.8, 0.8, 0.8, 0.7, 0.55]
    assert first_drop(steps_of(slow), slow) is None  # .55 is .25 below the best of five
    quicker = [*slow[:5], 0.59]
    assert first_drop(steps_of(quicker), quicker) == 1000
    assert first_drop([], []) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.99, 0.98, 0.70, 0.99], "stable"),
        ([0.01, 0.01], "stable"),
        ([0.99, 0.20, 0.50, 0.99], "collapse-recover"),
        ([0.99, 0.20, 0.50, 0.90], "collapse-recover"),
        ([0.99, 0.20, 0.99, 0.49], "irreversible"),
        ([0.99, 0.20, 0.50], "partial"),
        ([0.99, 0.20, 0.89], "partial"),
    ],
)
def test_recovery_by_rule(values, expected):
    assert classify_recovery(values) == expected


def test_published_counts():
    assert fisher_exact((4, 8), (2, 8)) == pytest.approx(0.61, abs=0.005)
    assert fisher_exact((4, 8), (4, 16)) == pytest.approx(0.36, abs=0.005)
    assert fisher_exact((3, 6), (4, 6)) == pytest.approx(1.0)
    # The printed .31 is one-sided: the upper tail of the hypergeometric distribution.
    one_sided = sum(math.comb(8, k) * math.comb(8, 6 - k) for k in (4, 5, 6)) / math.comb(16, 6)
    assert one_sided == pytest.approx(0.31, abs=0.01)


@given(arm, arm)
def test_fisher_sums_the_tables_that_are_no_likelier(first, second):
    (a, n), (b, m) = first, second
    ways = [math.comb(n, k) * math.comb(m, a + b - k) for k in range(a + b + 1)]
    expected = sum(w for w in ways if w <= ways[a]) / math.comb(n + m, a + b)
    assert fisher_exact(first, second) == pytest.approx(expected)


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=5),
    st.lists(st.integers(0, 5), min_size=2, max_size=5),
)
def test_the_permutation_test_counts_all_ways(first, second):
    pooled, n = first + second, len(first)
    whole = sum(pooled)

    def apart(chosen):  # the difference of means times both sizes: whole numbers
        own = sum(pooled[i] for i in chosen)
        return abs(own * len(second) - (whole - own) * n)

    ways = [apart(chosen) for chosen in itertools.combinations(range(len(pooled)), n)]
    expected = np.mean([way >= apart(range(n)) for way in ways])
    # Shifted and scaled, so that ties are ties of floats.
    floats = ([0.1 * v + 0.7 for v in first], [0.1 * v + 0.7 for v in second])
    assert permutation_p(*floats) == pytest.approx(expected)


def test_the_smallest_p_of_three_against_three_is_a_tenth():
    assert permutation_p([0.1, 0.2, 0.3], [0.7, 0.8, 0.9]) == pytest.approx(0.1)
    assert permutation_p([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]) == 1
    assert permutation_p([0.0, 0.0], [0.0, 0.0]) == 1


def test_many_runs_are_dealt_at_random_with_a_seed():
    generator = np.random.default_rng(0)
    first, second = (generator.normal(mean, 1, 12).tolist() for mean in (0, 0.9))
    p = permutation_p(first, second)
    assert p == permutation_p(first, second)
    assert p == pytest.approx(stats.ttest_ind(first, second).pvalue, rel=0.15)


@pytest.mark.parametrize("runs", [1, 4, 9])
@pytest.mark.parametrize("rates", [(0.5, 0.25), (0.9, 0.2), (0.3, 0.3)])
def test_power_sums_over_all_pairs_of_counts(runs, rates):
    power = 0.0
    for a, b in itertools.product(range(runs + 1), repeat=2):
        table = [[a, runs - a], [b, runs - b]]
        if stats.fisher_exact(table).pvalue <= 0.05:
            power += stats.binom.pmf(a, runs, rates[0]) * stats.binom.pmf(b, runs, rates[1])
    assert fisher_power(*rates, runs) == pytest.approx(power, abs=1e-12)


@given(st.floats(0, 1), st.integers(1, 20))
@example(2.2250738585072014e-308, 4)  # SciPy's binomial overflows there
def test_the_true_level_is_below_the_nominal_one(rate, runs):
    assert fisher_power(rate, rate, runs) <= 0.05 + 1e-12


def test_seeds_that_tell_a_quarter_from_a_half():
    needed = seeds_needed(0.5, 0.25)
    assert fisher_power(0.5, 0.25, needed) >= 0.8
    assert all(fisher_power(0.5, 0.25, runs) < 0.8 for runs in range(1, needed))
    # Fleiss's formula with the continuity correction approximates Fisher's test.
    za, zb, mean = 1.959964, 0.841621, 0.375
    root = za * math.sqrt(2 * mean * (1 - mean)) + zb * math.sqrt(0.25 + 0.1875)
    plain = (root / 0.25) ** 2
    corrected = plain / 4 * (1 + math.sqrt(1 + 4 / (plain * 0.25))) ** 2
    assert needed == pytest.approx(corrected, abs=3)
    assert fisher_power(0.5, 0.25, 8) < 0.1  # what the published comparison had
    assert seeds_needed(0.25, 0.5) == needed


def test_certain_outcomes_need_four_seeds():
    # All against none has p = 2 / C(2n, n): .1 at 3, .029 at 4.
    assert seeds_needed(1.0, 0.0) == 4
    assert seeds_needed(1.0, 0.0, level=0.02) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: time_to_generalisation([0, 100], [0.5]),
            "a log needs increasing steps with one value each, not 1 values at steps [0, 100]",
        ),
        (
            lambda: time_to_stability([100, 0], [0.5, 0.5]),
            "a log needs increasing steps with one value each, not 2 values at steps [100, 0]",
        ),
        (
            lambda: first_drop([0, 0], [0.5, 0.5]),
            "a log needs increasing steps with one value each, not 2 values at steps [0, 0]",
        ),
        (
            lambda: classify_recovery([]),
            "classify_recovery needs one logged accuracy at least; given none",
        ),
        (
            lambda: fisher_exact((9, 8), (2, 8)),
            "an arm is (successes, runs), successes from 0 to runs and one run at least; given "
            "(9, 8) and (2, 8)",
        ),
        (
            lambda: fisher_exact((0, 0), (2, 8)),
            "an arm is (successes, runs), successes from 0 to runs and one run at least; given "
            "(0, 0) and (2, 8)",
        ),
        (
            lambda: permutation_p([1.0], [1.0, 2.0]),
            "permutation_p needs two finite values an arm at least, not [1.0] and [1.0, 2.0]; "
            "leave out runs without a value",
        ),
        (
            lambda: permutation_p([1.0, math.nan], [1.0, 2.0]),
            "permutation_p needs two finite values an arm at least, not [1.0, nan] and "
            "[1.0, 2.0]; leave out runs without a value",
        ),
        (lambda: fisher_power(0.5, 1.5, 8), "q must be a number from 0 to 1, not 1.5"),
        (
            lambda: fisher_power(0.5, 0.5, 0),
            "runs must be 1 at least, not 0; give the seeds of one arm",
        ),
        (
            lambda: seeds_needed(0.5, 0.25, power=1.0),
            "power must lie between 0 and 1, such as 0.8, not 1.0",
        ),
        (
            lambda: seeds_needed(0.5, 0.25, level=math.nan),
            "level must be a finite number, not nan",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call()
    assert str(error.value) == message


def test_rates_too_close_to_tell(monkeypatch):
    monkeypatch.setattr(stability, "_MOST_SEEDS", 20)
    with pytest.raises(ProbekitError) as error:
        seeds_needed(0.5, 0.45)
    assert str(error.value) == (
        "20 seeds an arm do not tell 0.5 from 0.45 with power 0.8; compare rates further apart, or "
        "a real-valued outcome with permutation_p"
    )
