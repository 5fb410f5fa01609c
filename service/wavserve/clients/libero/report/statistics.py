"""Intervals of success rates, of paired differences, and of their means. Pure arithmetic; knows no record and no page.

All are 95 % score intervals: they hold near 0 and 1, where success rates lie, and for few episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its interval, in fractions. NaN, and the widest interval, where nothing was counted."""

    value: float
    low: float
    high: float
    num: int
    """episodes, or pairs of them"""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two outcomes of each start: how many succeeded in both, in one alone, in neither."""

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0

    @classmethod
    def of(cls, outcomes: Iterable[tuple[bool, bool]]) -> Pairs:
        """Counts pairs `(success in a, success in b)`."""
        listed = list(outcomes)
        return cls(*(listed.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))))

    @property
    def num(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither


def success_rate(num_successes: int, num: int, confidence: float = CONFIDENCE) -> Estimate:
    """A success rate with Wilson's score interval (Wilson 1927)."""
    if not num:
        return Estimate(math.nan, 0.0, 1.0, 0)
    z, rate = _z(confidence), num_successes / num
    scale = 1 + z * z / num
    centre = (rate + z * z / (2 * num)) / scale
    half = z * math.sqrt(rate * (1 - rate) / num + z * z / (4 * num * num)) / scale
    low = 0.0 if num_successes == 0 else centre - half  # exact at the ends, without a rounding error
    high = 1.0 if num_successes == num else centre + half
    return Estimate(rate, low, high, num)


def paired_difference(pairs: Pairs, confidence: float = CONFIDENCE) -> Estimate:
    """Success rate of a minus that of b on the same starts, with Tango's score interval (Tango 1998).

    The interval holds all differences that the score test accepts. It contains 0 exactly when McNemar's asymptotic test
    does not tell a from b; the exact one (`mcnemar`) tells them apart less often. It has a width even when no pair
    differs, unlike Wald's.
    """
    if not pairs.num:
        return Estimate(math.nan, -1.0, 1.0, 0)
    z, value = _z(confidence), (pairs.only_a - pairs.only_b) / pairs.num
    low = _crossing(lambda delta: _score(pairs, delta) <= z, -1.0, value)
    high = _crossing(lambda delta: _score(pairs, delta) < -z, value, 1.0)
    return Estimate(value, low, high, pairs.num)


def mcnemar(pairs: Pairs) -> float:
    """McNemar's test (Psychometrika 12, 153, 1947) with exact binomial probabilities, two-sided: how probable a split
    of the differing pairs is that is at least as uneven, if a and b are alike."""
    differing, fewer = pairs.only_a + pairs.only_b, min(pairs.only_a, pairs.only_b)
    tail: float = sum(math.comb(differing, k) for k in range(fewer + 1)) / 2**differing
    return min(1.0, 2.0 * tail)


def mean(parts: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates, each with the same weight, as the literature averages suites.

    Its interval adds the squares of the parts' half intervals, each side for itself (Newcombe 1998; Zou and Donner
    2008), so that the mean of one part is that part.
    """
    if not parts or any(not part.num for part in parts):
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = sum(part.value for part in parts) / len(parts)
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / len(parts)
    return Estimate(value, value - below, value + above, sum(part.num for part in parts))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _score(pairs: Pairs, delta: float) -> float:
    """Tango's statistic: how far the counts lie above a true difference of `delta`, in standard deviations."""
    n, only_a, only_b = pairs.num, pairs.only_a, pairs.only_b
    above = only_a - only_b - n * delta
    # The likeliest probability of "only b" among all with this difference is the root of a quadratic.
    b = -only_a - only_b + (2 * n - only_a + only_b) * delta
    c = -only_b * delta * (1 - delta)
    likeliest = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * likeliest + delta * (1 - delta))
    if variance <= 0:
        return math.copysign(math.inf, above) if above else 0.0
    return above / math.sqrt(variance)


def _crossing(is_past: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that stays true once it is true becomes true, between `low` and `high`."""
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (low, middle) if is_past(middle) else (middle, high)
    return (low + high) / 2
