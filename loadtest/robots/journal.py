"""What a run saw, as it saw it: every ask, stall, probe and reading, with the times they have on one clock.

Robots and probes write, figures and verdicts read. Plain records; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loadtest.robots.answers import Reply
from loadtest.robots.chunks import Stall

OUTCOMES = ("answered", "refused", "missed", "failed", "lost")
"""How an ask ends: actions; told to come again; too late, said the service; another error; no answer at all."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request and what became of it. Times are seconds on the run's clock, as the robot saw them."""

    phase: str
    group: str
    robot: str
    sequence: int
    sent: float
    ended: float
    outcome: str
    """one of OUTCOMES"""
    deadline_s: float | None = None
    reply: Reply | None = None
    words: str = ""
    """what the service said instead of an answer"""
    retry_after_s: float | None = None
    faults: tuple[str, ...] = ()
    """what is wrong with the answer"""

    @property
    def seconds(self) -> float:
        return self.ended - self.sent


@dataclass(frozen=True, slots=True)
class RobotStall:
    """A robot that stood still."""

    phase: str
    group: str
    robot: str
    stall: Stall


@dataclass(frozen=True, slots=True)
class Span:
    """A phase as it was run: its robots asked from `began` to `ended`; `offered_per_s` where asks were told to come."""

    name: str
    began: float
    ended: float
    robots: Mapping[str, int]
    warm_up: bool = False
    measures: str | None = None
    judged: bool = False
    offered_per_s: float | None = None
    untaken: int = 0
    """turns to ask for which no robot was free"""


@dataclass(frozen=True, slots=True)
class Timed:
    """A value seen at a time: seconds of a round trip or a delay, bytes of memory, a count."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading of /metrics: gauges as they are, counters since the service's start, by name and label value."""

    at: float
    queue_depth: float
    in_flight: float
    call_count: Mapping[str, float]
    """verb -> calls"""
    call_groups: Mapping[str, float]
    """verb -> sample groups joined in them"""
    call_rows: Mapping[str, float]


@dataclass(slots=True)
class Journal:
    """One run, growing."""

    asks: list[Ask] = field(default_factory=list)
    stalls: list[RobotStall] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    health: list[Timed] = field(default_factory=list)
    """round trips to /healthz"""
    lags: list[Timed] = field(default_factory=list)
    """how late this process woke up, at `at`"""
    memory: list[Timed] = field(default_factory=list)
    scrapes: list[Scrape] = field(default_factory=list)
    under_way: int = 0
    """asks sent and not ended"""

    def span(self, name: str) -> Span:
        """The phase of a name. Raises LookupError when none was run."""
        for span in self.spans:
            if span.name == name:
                return span
        raise LookupError(f"no phase {name} was run")

    def measured(self, what: str) -> Span:
        """The last phase that measured something. Raises LookupError when none did."""
        for span in reversed(self.spans):
            if span.measures == what:
                return span
        raise LookupError(f"no phase has measured {what}")

    def of(self, name: str) -> list[Ask]:
        """Asks that a phase's robots made."""
        return [ask for ask in self.asks if ask.phase == name]
