"""Intervals against published examples, and against an independent computation that enumerates."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from wavserve.clients.libero.report.statistics import Estimate, Pairs, mcnemar, mean, paired_difference, success_rate

Z = 1.959963984540054


@pytest.mark.parametrize(
    ("num_successes", "num", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(num_successes: int, num: int, low: float, high: float) -> None:
    """Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3."""
    estimate = success_rate(num_successes, num)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(("num_successes", "num"), [(0, 1), (1, 1), (3, 8), (49, 50), (500, 500)])
def test_wilsons_limits_are_the_rates_whose_test_just_accepts_the_count(num_successes: int, num: int) -> None:
    estimate = success_rate(num_successes, num)
    rates = np.linspace(1e-7, 1 - 1e-7, 400_001)
    accepted = rates[np.abs(num_successes - num * rates) <= Z * np.sqrt(num * rates * (1 - rates))]
    assert (estimate.low, estimate.high) == (
        pytest.approx(accepted[0], abs=1e-5),
        pytest.approx(accepted[-1], abs=1e-5),
    )


def test_tangos_interval_is_the_published_one() -> None:
    """Airway hyper-responsiveness of 21 children before and after a transplantation: Fagerland, Lydersen and Laake
    2014 (Statistics in Medicine 33, 2850-2875)."""
    estimate = paired_difference(Pairs(both=1, only_a=1, only_b=7, neither=12))
    assert estimate.value == pytest.approx(-6 / 21)
    assert (round(estimate.low, 3), round(estimate.high, 3)) == (-0.517, -0.026)


def test_tangos_interval_is_that_of_another_program() -> None:
    """R's PropCIs::scoreci.mp(25, 28, 618, 0.90), whose difference is the second count minus the first."""
    estimate = paired_difference(Pairs(only_a=28, only_b=25, both=300, neither=265), confidence=0.90)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (-0.0148, 0.0247)


def likeliest_by_enumeration(pairs: Pairs, delta: float) -> float:
    """Probability of "only b" with the highest likelihood among all with this difference, found by trying them."""
    low, high = max(0.0, -delta), (1 - delta) / 2
    only_b = np.linspace(low, high, 200_001)[1:-1]
    agree = pairs.both + pairs.neither
    likelihood = (
        pairs.only_a * np.log(only_b + delta) + pairs.only_b * np.log(only_b) + agree * np.log(1 - delta - 2 * only_b)
    )
    return float(only_b[np.argmax(likelihood)])


@pytest.mark.parametrize(
    "pairs",
    [Pairs(480, 12, 5, 3), Pairs(1, 1, 7, 12), Pairs(18, 0, 4, 2), Pairs(24, 0, 0, 0), Pairs(0, 6, 0, 0)],
    ids=str,
)
def test_tangos_limits_are_where_the_score_test_turns(pairs: Pairs) -> None:
    estimate = paired_difference(pairs)
    for limit, sign in ((estimate.low, 1), (estimate.high, -1)):
        if abs(limit) > 1 - 1e-6:  # no larger difference exists
            continue
        likeliest = likeliest_by_enumeration(pairs, limit)
        variance = pairs.num * (2 * likeliest + limit * (1 - limit))
        score = (pairs.only_a - pairs.only_b - pairs.num * limit) / math.sqrt(variance)
        assert score == pytest.approx(sign * Z, abs=2e-3)


def multinomial(num: int, probabilities: tuple[float, float, float]) -> Callable[[int, int], float]:
    only_a, only_b, agree = probabilities

    def probability(a: int, b: int) -> float:
        ways = math.comb(num, a) * math.comb(num - a, b)
        return float(ways * only_a**a * only_b**b * agree ** (num - a - b))

    return probability


@pytest.mark.parametrize("probabilities", [(0.05, 0.03, 0.92), (0.2, 0.05, 0.75), (0.3, 0.3, 0.4), (0.02, 0.0, 0.98)])
def test_tangos_interval_covers_as_often_as_it_says(probabilities: tuple[float, float, float]) -> None:
    """Every outcome of 24 pairs with its probability: the interval covers the truth in about 95 % of them."""
    num, truth = 24, probabilities[0] - probabilities[1]
    probability = multinomial(num, probabilities)
    covered = 0.0
    for a, b in product(range(num + 1), repeat=2):
        if a + b <= num:
            estimate = paired_difference(Pairs(num - a - b, a, b, 0))
            covered += probability(a, b) * (estimate.low <= truth <= estimate.high)
    assert 0.93 <= covered <= 1.0


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 0), (4, 0), (9, 2), (10, 2), (12, 5), (13, 5), (60, 40)])
def test_an_interval_excludes_zero_when_mcnemars_test_rejects_equality(only_a: int, only_b: int) -> None:
    statistic = (only_a - only_b) / math.sqrt(only_a + only_b) if only_a + only_b else 0.0
    estimate = paired_difference(Pairs(100, only_a, only_b, 7))
    assert (estimate.low > 0 or estimate.high < 0) == (abs(statistic) > Z)


def test_swapping_the_runs_mirrors_the_interval() -> None:
    forward, back = paired_difference(Pairs(5, 4, 1, 2)), paired_difference(Pairs(5, 1, 4, 2))
    assert (forward.value, forward.low, forward.high) == pytest.approx((-back.value, -back.high, -back.low), abs=1e-6)


def test_equal_outcomes_have_an_interval_with_a_width() -> None:
    few, many = paired_difference(Pairs(both=10)), paired_difference(Pairs(both=500))
    assert few.low < 0 < few.high
    assert few.high - few.low > 10 * (many.high - many.low)


def test_nothing_counted_says_nothing() -> None:
    assert math.isnan(success_rate(0, 0).value)
    assert math.isnan(paired_difference(Pairs()).value)
    assert (success_rate(0, 0).low, success_rate(0, 0).high) == (0.0, 1.0)
    assert math.isnan(mean([success_rate(1, 2), success_rate(0, 0)]).value)


def test_pairs_are_counted() -> None:
    outcomes = [(True, True), (True, False), (True, False), (False, True), (False, False), (False, False)]
    assert Pairs.of(outcomes) == Pairs(1, 2, 1, 2)


def test_the_mean_of_one_suite_is_that_suite() -> None:
    one = success_rate(9, 10)
    assert mean([one]) == Estimate(one.value, pytest.approx(one.low), pytest.approx(one.high), 10)


def test_the_mean_of_four_suites_is_as_sharp_as_their_episodes_together() -> None:
    """The rates of the paper's table, 500 episodes a suite."""
    together = mean([success_rate(num, 500) for num in (498, 500, 493, 472)])
    pooled = success_rate(498 + 500 + 493 + 472, 2000)
    assert together.value == pytest.approx(pooled.value)
    assert together.high - together.low == pytest.approx(pooled.high - pooled.low, rel=0.25)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (4, 4), (9, 1), (2, 7), (0, 12)])
def test_mcnemars_probability_counts_the_splits_that_are_as_uneven(only_a: int, only_b: int) -> None:
    differing = only_a + only_b
    splits = [sum(sides) for sides in product((0, 1), repeat=differing)]
    uneven = [split for split in splits if abs(2 * split - differing) >= abs(only_a - only_b)]
    expected = len(uneven) / len(splits)
    assert mcnemar(Pairs(both=30, only_a=only_a, only_b=only_b, neither=5)) == pytest.approx(expected)
