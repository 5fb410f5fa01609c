"""The event log of a run: every request, stall, probe and reading, with times on one clock.

Plain records. Nothing is computed here; `figures` does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loadtest.robots.chunks import Stall
from loadtest.robots.replies import Reply

OUTCOMES = ("answered", "refused", "missed", "failed", "lost")
"""How a request ends:

- `answered`: with actions
- `refused`: there was no place or no time for a plan
- `missed`: the service reports that an admitted plan missed its deadline
- `failed`: with another error
- `lost`: without an answer
"""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request and its outcome. Times are seconds on the run's clock, as the robot saw them."""

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
    message: str = ""
    """the error's message, when the request was not answered"""
    retry_after_s: float | None = None
    contradictions: tuple[str, ...] = ()
    """how the reply contradicts its request or itself"""

    @property
    def seconds(self) -> float:
        return self.ended - self.sent


@dataclass(frozen=True, slots=True)
class StallRecord:
    """A stall, with the robot and the phase in which it happened."""

    phase: str
    group: str
    robot: str
    stall: Stall


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """A phase of the run. Its robots sent requests from `began` to `ended`."""

    name: str
    began: float
    ended: float
    robots: Mapping[str, int]
    warm_up: bool = False
    measures: str | None = None
    judged: bool = False
    offered_per_s: float | None = None
    """the request rate of an open-loop phase; None: closed loop"""
    unused_slots: int = 0
    """request slots of an open-loop phase for which no robot was free"""


@dataclass(frozen=True, slots=True)
class Reading:
    """A value at a time: seconds of a round trip or a delay, or bytes of memory."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Scrape:
    """One scrape of /metrics: current gauges, and counters since the service's start, by verb."""

    at: float
    queue_depth: float
    in_flight: float
    call_count: Mapping[str, float]
    """verb -> calls"""
    call_groups: Mapping[str, float]
    """verb -> sample groups joined in those calls"""
    call_rows: Mapping[str, float]


@dataclass(slots=True)
class EventLog:
    """The events of one run. It may be read while it grows."""

    requests: list[RequestRecord] = field(default_factory=list)
    stalls: list[StallRecord] = field(default_factory=list)
    phases: list[PhaseRecord] = field(default_factory=list)
    health: list[Reading] = field(default_factory=list)
    """round trips to /healthz"""
    lags: list[Reading] = field(default_factory=list)
    """delay of this process's wake-ups; `at` is when the wake-up was due"""
    memory: list[Reading] = field(default_factory=list)
    scrapes: list[Scrape] = field(default_factory=list)
    in_flight: int = 0
    """requests without an outcome so far"""

    def phase(self, name: str) -> PhaseRecord:
        """The phase with this name. Raises LookupError when none was run."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise LookupError(f"no phase {name} was run")

    def measuring(self, measure: str) -> PhaseRecord:
        """The last phase that measured `measure`. Raises LookupError when none did."""
        for phase in reversed(self.phases):
            if phase.measures == measure:
                return phase
        raise LookupError(f"no phase has measured {measure}")

    def requests_of(self, phase: str) -> list[RequestRecord]:
        """The requests of a phase's robots."""
        return [request for request in self.requests if request.phase == phase]
