"""The cost model: how many seconds of the device a call takes, by verb and rows, learnt from the calls as they run.

Filled by the batcher; read by it (how much may join a call), by the planner (how to slice, what an iteration costs) and
so by admission. Knows verbs and clocks; nothing of plans, robots or queues.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from wavserve.core.types import Clock

KEEP = 0.95
"""How much of its weight a measurement keeps when the next one comes: about the last 20 count."""
SPREAD = 1e-3
"""Variance of the rows, relative to their square, from which on a line can be told."""
GAIN = 0.1
DEVIATIONS = 2.0
"""An estimate is what the line says plus this many mean deviations, so that a call rarely outruns it."""
FIRST_DEVIATION = 0.25
OUTLIER = 4.0
"""A call counts as at most this many times what was expected: one hiccup of the machine is not a trend, several are."""
HALF_LIFE_S = 2.0
"""How fast an estimate that is not measured again falls back to the best ever made: slow moments pass, and nobody would
find out if one of them had every plan refused."""


@dataclass(frozen=True, slots=True)
class CallKind:
    """Calls whose times compare: the same verb, flow or video steps, and value samples `M` of a row."""

    verb: str
    steps: int = 1
    value_samples: int = 1

    @property
    def work(self) -> int:
        """Of one row, relative to others of the verb."""
        return self.steps * self.value_samples


class Meter:
    """The device's time, shared evenly by the calls that run at once: their shares add up to the time it was busy."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._running = 0
        self._share = 0.0  # what a call that ran from the beginning on would have got
        self._at = clock()

    def start(self) -> float:
        """A call begins; what `stop` wants to be told."""
        self._advance(1)
        return self._share

    def stop(self, started: float) -> float:
        """A call ended: device seconds that were its own."""
        self._advance(-1)
        return self._share - started

    def _advance(self, change: int) -> None:
        now = self._clock()
        if self._running:
            self._share += (now - self._at) / self._running
        self._running, self._at = self._running + change, now


@dataclass(slots=True)
class Line:
    """Seconds over rows, fitted to the last calls: weighted sums for a least-squares line."""

    weight: float = 0.0
    rows: float = 0.0
    seconds: float = 0.0
    rows_rows: float = 0.0
    rows_seconds: float = 0.0
    base_share: float | None = None
    """of a call of one row, what it takes whatever its rows are; as it was when sizes differed last, None: never"""

    def add(self, rows: int, seconds: float) -> None:
        self.weight = KEEP * self.weight + 1
        self.rows = KEEP * self.rows + rows
        self.seconds = KEEP * self.seconds + seconds
        self.rows_rows = KEEP * self.rows_rows + rows * rows
        self.rows_seconds = KEEP * self.rows_seconds + rows * seconds

    def fit(self) -> tuple[float, float]:
        """`(seconds of no row, seconds a row)`; neither is negative, for more rows never take less time."""
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
class Lasting:
    """How long calls lasted of late, whatever their rows and whatever ran beside them."""

    mean: float = 0.0
    deviation: float = 0.0
    least: float = math.inf

    @property
    def upper(self) -> float:
        """One mean deviation over the mean: it is summed over several calls, which are not all slow."""
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
    """`(seconds of no row, seconds a row)` of the lowest estimate there ever was"""
    measured_at: float = -math.inf
    lasted: Lasting = field(default_factory=Lasting)

    def add(self, rows: int, seconds: float, lasted_s: float, now: float) -> None:
        self.calls += 1
        self.lasted.add(min(lasted_s, OUTLIER * self.lasted.mean) if self.calls > 2 else lasted_s)
        if self.calls > 2 and (expected := _at(self.line.fit(), rows)) > 0:
            self.deviation += GAIN * (min(abs(seconds - expected) / expected, 1.0) - self.deviation)
            seconds = min(seconds, OUTLIER * expected)
        elif self.calls == 2:
            self.line = Line()  # the first call of its kind loads kernels: the second takes its place
        self.line.add(rows, seconds)
        self.measured_at = now
        upper = self._upper()
        if _at(upper, rows) < _at(self.best, rows):
            self.best = upper

    def fit(self, now: float) -> tuple[float, float]:
        """`(seconds of no row, seconds a row)` that most of the next calls stay under."""
        fresh = math.exp2((self.measured_at - now) / HALF_LIFE_S)
        (base, slope), (best_base, best_slope) = self._upper(), self.best
        return best_base + (base - best_base) * fresh, best_slope + (slope - best_slope) * fresh

    def lowest(self, _now: float) -> tuple[float, float]:
        """As `fit`, at the best there ever was."""
        return self.best

    def lasts_s(self, now: float) -> float:
        """How long the next call lasts: as the last ones did; forgotten as `fit` forgets."""
        fresh = math.exp2((self.measured_at - now) / HALF_LIFE_S)
        return self.lasted.least + (self.lasted.upper - self.lasted.least) * fresh

    def _upper(self) -> tuple[float, float]:
        base, slope = self.line.fit()
        margin = 1 + DEVIATIONS * self.deviation
        return base * margin, slope * margin


Fit = Callable[[Estimate, float], tuple[float, float]]


class Costs:
    """Estimates by kind. A kind never measured is guessed from the measured one of its verb closest in work; a verb
    never measured costs nothing: it goes ahead and is found out."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._estimates: dict[CallKind, Estimate] = {}
        self._longest_s, self._longest_at = 0.0, clock()

    def measured(self, kind: CallKind, rows: int, seconds: float, lasted_s: float | None = None) -> None:
        """A call of `rows` rows took so many device seconds, and `lasted_s` by the clock (None: it had no company)."""
        lasted_s = seconds if lasted_s is None else lasted_s
        self._longest_s, self._longest_at = max(lasted_s, self.longest_s()), self._clock()
        self._estimates.setdefault(kind, Estimate()).add(rows, seconds, lasted_s, self._clock())

    def seconds(self, kind: CallKind, rows: int) -> float:
        """Device seconds of one call."""
        return _at(self._fit(kind), rows)

    def least_seconds(self, kind: CallKind, rows: int) -> float:
        """Device seconds of one call at the lowest estimate there ever was."""
        return _at(self._fit(kind, Estimate.lowest), rows)

    def lasts_s(self, kind: CallKind) -> float:
        """How long a call lasts by the clock, in the company that such calls had of late; 0 when there was none."""
        known = self._estimates.get(kind)
        return 0.0 if known is None else known.lasts_s(self._clock())

    def longest_s(self) -> float:
        """How long the longest call of late lasted by the clock; forgotten as estimates are."""
        return self._longest_s * math.exp2((self._longest_at - self._clock()) / HALF_LIFE_S)

    def rows_within(self, kind: CallKind, seconds: float, most: int) -> int:
        """The largest power of two of rows, at most `most`, whose call stays within `seconds`; at least one.

        Powers of two keep the sizes of calls from wandering with every measurement. As long as calls of one size only
        were measured nothing is known of others, and `most` finds out.
        """
        if (known := self._estimates.get(kind)) is None or known.line.base_share is None:
            return most
        rows = 1
        while 2 * rows <= most and self.fits(kind, 2 * rows, seconds):
            rows *= 2
        return most if 2 * rows > most and self.fits(kind, most, seconds) else rows

    def fits(self, kind: CallKind, rows: int, seconds: float) -> bool:
        """Whether a call is short enough: within `seconds`, or cut so small that the half of it is for no row at all.

        Cutting further would cost more time than it saves anybody.
        """
        fit = self._fit(kind)
        return _at(fit, rows) <= max(seconds, 2 * fit[0])

    def _fit(self, kind: CallKind, fit: Fit = Estimate.fit) -> tuple[float, float]:
        now = self._clock()
        if (known := self._estimates.get(kind)) is not None:
            return fit(known, now)
        alike = [other for other in self._estimates if other.verb == kind.verb]
        if not alike:
            return 0.0, 0.0
        nearest = min(alike, key=lambda other: abs(math.log(other.work / kind.work)))
        scale = kind.work / nearest.work
        base, slope = fit(self._estimates[nearest], now)
        return base * scale, slope * scale


def _at(fit: tuple[float, float], rows: int) -> float:
    base, slope = fit
    return base + slope * rows
