"""The figures of a run: rates, percentiles, shares and slopes of an event log, while it grows and at its end.

All times are in seconds. This module knows no threshold of a scenario.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.robots.event_log import EventLog, PhaseRecord, Reading, RequestRecord

NORMAL_WINDOW_S = 3.0
NORMAL_MIN_PLANS = 3
"""Minimum number of plans in a window."""


def percentile(values: Iterable[float], q: float) -> float | None:
    """The q-th percentile (0 to 100); None when there are no values."""
    listed = list(values)
    return float(np.percentile(listed, q)) if listed else None


def answered(requests: Iterable[RequestRecord]) -> list[RequestRecord]:
    return [request for request in requests if request.outcome == "answered"]


def during(readings: Iterable[Reading], phase: PhaseRecord) -> list[Reading]:
    """The readings taken during a phase."""
    return [reading for reading in readings if phase.began <= reading.at <= phase.ended]


def capacity(log: EventLog, measure: str = "capacity") -> float:
    """Plans a second in the phase that measures `capacity` or `no-planning`, from its start until its last answer.

    Raises LookupError when no plan was answered in it.
    """
    phase = log.measuring(measure)
    done = answered(log.requests_of(phase.name))
    if not done:
        raise LookupError(f"phase {phase.name} measures {measure}, and no plan was answered in it")
    return len(done) / (max(request.ended for request in done) - phase.began)


def lone_s(log: EventLog) -> float:
    """The median seconds of a plan in the phase that measures a lone robot.

    Raises LookupError when no plan was answered in it.
    """
    phase = log.measuring("lone")
    median = percentile((request.seconds for request in answered(log.requests_of(phase.name))), 50)
    if median is None:
        raise LookupError(f"phase {phase.name} measures a lone robot, and no plan was answered in it")
    return median


def p99_s(log: EventLog, phase: PhaseRecord, group: str) -> float:
    """The p99 of a group's plans in a phase, in seconds. Raises LookupError when none was answered."""
    done = answered(log.requests_of(phase.name))
    p99 = percentile((request.seconds for request in done if request.group == group), 99)
    if p99 is None:
        raise LookupError(f"phase {phase.name}: no plan of {group} was answered")
    return p99


@dataclass(frozen=True, slots=True)
class Lateness:
    """An answer with actions that reached its robot after its deadline.

    `allowed_s` is the part of the delay that this process and the network may have caused.
    """

    late_s: float
    allowed_s: float

    @property
    def beyond_jitter(self) -> bool:
        return self.late_s > self.allowed_s


def lateness(log: EventLog, phase: PhaseRecord) -> list[Lateness]:
    """Every answer of a phase that reached its robot after the deadline.

    `allowed_s` is the longest delay of this process's event loop while the robot waited, plus the phase's p99 of
    /healthz.
    """
    network = percentile((probe.value for probe in during(log.health, phase)), 99) or 0.0
    dues = np.array([lag.at for lag in log.lags])
    delays = np.array([lag.value for lag in log.lags])
    late = []
    for request in answered(log.requests_of(phase.name)):
        if request.deadline_s is not None and request.seconds > request.deadline_s:
            overlapping = delays[(dues <= request.ended) & (dues + delays >= request.sent)]
            own_delay = float(overlapping.max()) if len(overlapping) else 0.0
            late.append(Lateness(request.seconds - request.deadline_s, own_delay + network))
    return late


def sent_late(requests: Iterable[RequestRecord]) -> list[float]:
    """Seconds after the deadline of every answer that the service sent too late, by the service's own clock."""
    late = []
    for request in answered(requests):
        assert request.reply is not None, "an answered request has a reply"
        if request.deadline_s is not None and request.reply.served_s > request.deadline_s:
            late.append(request.reply.served_s - request.deadline_s)
    return late


def in_time(requests: Iterable[RequestRecord]) -> list[RequestRecord]:
    """The answered requests whose answer the service sent by the deadline, and those without a deadline."""
    return [
        request
        for request in answered(requests)
        if request.reply is not None and (request.deadline_s is None or request.reply.served_s <= request.deadline_s)
    ]


def admitted(requests: Iterable[RequestRecord]) -> list[RequestRecord]:
    """All requests but the refused ones: answered, missed, failed, lost."""
    return [request for request in requests if request.outcome != "refused"]


def repeated(requests: Iterable[RequestRecord]) -> int:
    """How many answers a robot received again, for another of its requests."""
    named = Counter((request.robot, request.reply.chunk_id) for request in requests if request.reply is not None)
    return sum(count - 1 for count in named.values())


def unaccounted(requests: Iterable[RequestRecord]) -> int:
    """How many sequence numbers of the robots have no record, or more than one."""
    numbers: dict[str, list[int]] = {}
    for request in requests:
        numbers.setdefault(request.robot, []).append(request.sequence)
    return sum(len(set(range(max(used) + 1)) ^ set(used)) + len(used) - len(set(used)) for used in numbers.values())


def slope(readings: Sequence[Reading]) -> float | None:
    """Growth a second: the median of the slopes between any two readings (Theil and Sen).

    None with fewer than three readings. A short dip does not change the median much: protobuf, for example, trims the
    heap now and then.
    """
    if len(readings) < 3:
        return None
    at, value = np.array([reading.at for reading in readings]), np.array([reading.value for reading in readings])
    first, last = np.triu_indices(len(readings), 1)
    return float(np.median((value[last] - value[first]) / (at[last] - at[first])))


def jain(counts: Iterable[float]) -> float | None:
    """Jain's fairness index: 1 if all counts are equal, 1/n if only one is above 0, None if none is."""
    shares = np.array(list(counts), float)
    return float(shares.sum() ** 2 / (len(shares) * (shares**2).sum())) if shares.any() else None


def normal_after_s(requests: Iterable[RequestRecord], since: float, limit_s: float) -> float | None:
    """Seconds from `since` until latency is normal again; None when it never is.

    It is normal from the first plan that meets two conditions. The plan took at most `limit_s`. At least
    NORMAL_MIN_PLANS plans were sent in the NORMAL_WINDOW_S from then, and their median is at most `limit_s`.
    """
    done = sorted(answered(requests), key=lambda request: request.sent)
    for first in done:
        window = [request.seconds for request in done if 0 <= request.sent - first.sent <= NORMAL_WINDOW_S]
        median = percentile(window, 50)
        if len(window) >= NORMAL_MIN_PLANS and first.seconds <= limit_s and median is not None and median <= limit_s:
            return max(first.sent - since, 0.0)
    return None
