"""The cost model: device seconds of a call by verb and rows, learnt from the calls that ran.

It answers how much may join a call, how a plan is sliced, and what an iteration costs. Knows verbs and clocks, and
nothing of plans, robots or queues.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from wavserve.core.types import Clock

KEEP = 0.95
"""Share of its weight that a measurement keeps when the next one comes: about the last 20 count."""
SPREAD = 1e-3
"""Least variance of the rows, relative to their squared mean, for a line to be fitted."""
GAIN = 0.1
"""Weight of the newest value in a running mean."""
DEVIATIONS = 2.0
"""An estimate is the line plus this many mean deviations, so that few calls take longer."""
FIRST_DEVIATION = 0.25
"""Mean deviation, as a share of the estimate, before anything is known of it."""
OUTLIER = 4.0
"""A call counts as at most this many times its estimate: one slow call is no trend, several are."""
GUIDED_WORK = 3
"""Work of a guided step over that of a plain one, until calls were measured: forward, and backward to the input."""
HALF_LIFE_S = 2.0
"""How fast an estimate falls back to the lowest one while nothing is measured.

Without this, an estimate from a slow moment could refuse every plan and would never be corrected."""


@dataclass(frozen=True, slots=True)
class CallKind:
    """Calls whose times are comparable: same verb, steps and value samples `M` of a row, guided or not."""

    verb: str
    steps: int = 1
    value_samples: int = 1
    guided: bool = False
    """whether a left-over guides the flow, which needs derivatives of the model"""

    @property
    def work(self) -> int:
        """Work of one row, relative to other kinds of the same verb."""
        return self.steps * self.value_samples * (GUIDED_WORK if self.guided else 1)


@dataclass(slots=True)
class Line:
    """Seconds over rows: the weighted sums of a least-squares line through the last calls."""

    weight: float = 0.0
    rows: float = 0.0
    seconds: float = 0.0
    rows_rows: float = 0.0
    rows_seconds: float = 0.0
    base_share: float | None = None
    """fixed cost as a share of a one-row call, from the last time that sizes differed; None: they never did"""

    def add(self, rows: int, seconds: float) -> None:
        self.weight = KEEP * self.weight + 1
        self.rows = KEEP * self.rows + rows
        self.seconds = KEEP * self.seconds + seconds
        self.rows_rows = KEEP * self.rows_rows + rows * rows
        self.rows_seconds = KEEP * self.rows_seconds + rows * seconds

    def fit(self) -> tuple[float, float]:
        """`(fixed seconds, seconds per row)`; neither is negative, because more rows never take less time."""
        rows, seconds = self.rows / self.weight, self.seconds / self.weight
        spread = self.rows_rows / self.weight - rows * rows
        if spread > SPREAD * rows * rows:
            slope = (self.rows_seconds / self.weight - rows * seconds) / spread
            slope = min(max(slope, 0.0), seconds / rows)
            base = seconds - slope * rows
            self.base_share = base / (base + slope) if seconds > 0 else None
            return base, slope
        share = self.base_share or 0.0
        one = seconds / (share + (1 - share) * rows)
        return one * share, one * (1 - share)


@dataclass(slots=True)
class WallTime:
    """How long recent calls took by the clock, whatever their rows and the calls beside them."""

    mean: float = 0.0
    deviation: float = 0.0
    least: float = math.inf

    @property
    def upper(self) -> float:
        """One mean deviation over the mean: a plan sums several calls, and not all of them are slow."""
        return self.mean + self.deviation

    def add(self, seconds: float) -> None:
        if self.least == math.inf:
            self.mean = seconds
        self.deviation += GAIN * (abs(seconds - self.mean) - self.deviation)
        self.mean += GAIN * (seconds - self.mean)
        self.least = min(self.least, self.upper)


@dataclass(slots=True)
class Estimate:
    """What calls of one kind cost."""

    line: Line = field(default_factory=Line)
    deviation: float = FIRST_DEVIATION
    """mean absolute error of the line, as a share of it"""
    calls: int = 0
    best: tuple[float, float] = (math.inf, math.inf)
    """`(fixed seconds, seconds per row)` of the lowest estimate so far"""
    measured_at: float = -math.inf
    wall: WallTime = field(default_factory=WallTime)

    def add(self, rows: int, seconds: float, wall_s: float, now: float) -> None:
        self.calls += 1
        self.wall.add(min(wall_s, OUTLIER * self.wall.mean) if self.calls > 2 else wall_s)
        if self.calls > 2 and (expected := _at(self.line.fit(), rows)) > 0:
            self.deviation += GAIN * (min(abs(seconds - expected) / expected, 1.0) - self.deviation)
            seconds = min(seconds, OUTLIER * expected)
        elif self.calls == 2:
            self.line = Line()  # the first call of a kind loads kernels: the second replaces it
        self.line.add(rows, seconds)
        self.measured_at = now
        upper = self._upper()
        if _at(upper, rows) < _at(self.best, rows):
            self.best = upper

    def fit(self, now: float) -> tuple[float, float]:
        """`(fixed seconds, seconds per row)`; most of the next calls take less."""
        fresh = math.exp2((self.measured_at - now) / HALF_LIFE_S)
        (base, slope), (best_base, best_slope) = self._upper(), self.best
        return best_base + (base - best_base) * fresh, best_slope + (slope - best_slope) * fresh

    def lowest(self, _: float) -> tuple[float, float]:
        """As `fit`, from the lowest estimate so far."""
        return self.best

    def wall_s(self, now: float) -> float:
        """How long the next call takes by the clock: as long as the recent ones. It fades as `fit` does."""
        fresh = math.exp2((self.measured_at - now) / HALF_LIFE_S)
        return self.wall.least + (self.wall.upper - self.wall.least) * fresh

    def _upper(self) -> tuple[float, float]:
        base, slope = self.line.fit()
        margin = 1 + DEVIATIONS * self.deviation
        return base * margin, slope * margin


Fit = Callable[[Estimate, float], tuple[float, float]]


class Costs:
    """Estimates by kind.

    The estimate of a kind that never ran comes from the kind of the same verb that is closest in work. A verb that
    never ran costs nothing, so its first call always runs and is measured.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._estimates: dict[CallKind, Estimate] = {}
        self._longest_s, self._longest_at = 0.0, clock()

    def measured(
        self, kind: CallKind, rows: int, seconds: float, wall_s: float | None = None, yields: bool = False
    ) -> None:
        """A call of `rows` rows took `seconds` of the device and `wall_s` by the clock (None: it ran alone).

        `yields`: it would have been cancelled for a plan, so no plan waits for one like it.
        """
        wall_s = seconds if wall_s is None else wall_s
        if not yields:
            self._longest_s, self._longest_at = max(wall_s, self.longest_s()), self._clock()
        self._estimates.setdefault(kind, Estimate()).add(rows, seconds, wall_s, self._clock())

    def seconds(self, kind: CallKind, rows: int) -> float:
        """Device seconds of one call."""
        return _at(self._fit(kind), rows)

    def least_seconds(self, kind: CallKind, rows: int) -> float:
        """Device seconds of one call at the lowest estimate so far."""
        return _at(self._fit(kind, Estimate.lowest), rows)

    def wall_s(self, kind: CallKind) -> float:
        """How long a call takes by the clock, as recent calls of its kind did; 0 before the first."""
        known = self._estimates.get(kind)
        return 0.0 if known is None else known.wall_s(self._clock())

    def longest_s(self) -> float:
        """How long the longest recent call took by the clock for which plans wait. It fades as estimates do."""
        return self._longest_s * math.exp2((self._longest_at - self._clock()) / HALF_LIFE_S)

    def rows_within(self, kind: CallKind, seconds: float, most: int) -> int:
        """The largest power of two of rows, at least 1 and at most `most`, whose call stays within `seconds`.

        Powers of two keep call sizes steady from one measurement to the next. While only one size was measured nothing
        is known of others; `most` is returned, and its call is measured.
        """
        if (known := self._estimates.get(kind)) is None or known.line.base_share is None:
            return most
        rows = 1
        while 2 * rows <= most and self.fits(kind, 2 * rows, seconds):
            rows *= 2
        return most if 2 * rows > most and self.fits(kind, most, seconds) else rows

    def fits(self, kind: CallKind, rows: int, seconds: float) -> bool:
        """Whether a call is short enough: within `seconds`, or so small that its fixed cost is half of it or more.

        A smaller call would lose more time to the fixed cost than it saves for others.
        """
        fit = self._fit(kind)
        return _at(fit, rows) <= max(seconds, 2 * fit[0])

    def _fit(self, kind: CallKind, fit: Fit = Estimate.fit) -> tuple[float, float]:
        now = self._clock()
        if (known := self._estimates.get(kind)) is not None:
            return fit(known, now)
        same_verb = [other for other in self._estimates if other.verb == kind.verb]
        if not same_verb:
            return 0.0, 0.0
        nearest = min(same_verb, key=lambda other: abs(math.log(other.work / kind.work)))
        scale = kind.work / nearest.work
        base, slope = fit(self._estimates[nearest], now)
        return base * scale, slope * scale


def _at(fit: tuple[float, float], rows: int) -> float:
    base, slope = fit
    return base + slope * rows
