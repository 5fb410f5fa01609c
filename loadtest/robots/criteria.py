"""The criteria of a run, as aims: each with its threshold, the measured value, and whether it is met.

`figures` does the arithmetic. The scenario has the thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator

from loadtest.aims import Aim, entry
from loadtest.robots import figures
from loadtest.robots.event_log import EventLog, PhaseRecord, RequestRecord
from loadtest.robots.scenario import Scenario, Thresholds

MIN_OFFERED_SHARE = 0.95
"""Minimum share of an open-loop phase's requests that must be sent. Below it, the load was lower than stated."""
MB = 1e6
MIN_SLOPE_S = 60.0
"""Minimum seconds over which the growth of memory is judged."""


def evaluate(scenario: Scenario, log: EventLog) -> list[Aim]:
    """Every criterion of a scenario."""
    aims = [*nothing_lost(log), nothing_late(log)]
    if scenario.judge == "overload":
        aims += overload(scenario.aims, log)
    if scenario.judge == "mixed":
        aims += mixed(scenario.aims, log)
    return aims


def nothing_lost(log: EventLog) -> Iterator[Aim]:
    """Each request has exactly one matching answer, in all phases."""
    requests = log.requests
    lost = [request for request in requests if request.outcome == "lost"]
    without_end = figures.unaccounted(requests) + log.in_flight
    yield _none("requests without an answer", len(lost) + without_end, _message(lost))
    yield _none("answers sent twice", figures.repeated(requests))
    wrong = [request for request in requests if request.contradictions]
    example = wrong[0].contradictions[0] if wrong else ""
    yield _none("answers that contradict their request or their receipt", len(wrong), example)
    failed = [request for request in requests if request.outcome == "failed"]
    yield _none("requests that failed with another error", len(failed), _message(failed))


def nothing_late(log: EventLog) -> Aim:
    """No plan is sent as if on time after its deadline.

    The service's clock decides. A late arrival at the robot counts only when jitter does not explain it.
    """
    sent = figures.sent_late(log.requests)
    arrived = [late for phase in log.phases for late in figures.lateness(log, phase)]
    beyond = [late for late in arrived if late.beyond_jitter]
    at_robot = (
        f"{len(arrived)} late at the robot, by up to {max((one.late_s for one in arrived), default=0.0) * 1e3:.1f} ms"
    )
    seen = f"{len(sent)} sent late; {at_robot}, {len(beyond)} of them by more than jitter"
    return entry("plans sent as if on time after their deadline", "0", seen, not sent and not beyond)


def overload(thresholds: Thresholds, log: EventLog) -> Iterator[Aim]:
    """The criteria of the overload scenario: those of each judged phase, and the recovery after the last one."""
    judged = [phase for phase in log.phases if phase.judged]
    for phase in judged:
        requests = log.requests_of(phase.name)
        yield offered_load(phase, requests)
        yield deadlines_met(thresholds, phase, requests)
        yield goodput(thresholds, phase, requests, figures.capacity(log))
        health_s = [probe.value for probe in figures.during(log.health, phase)]
        yield refusal_latency(thresholds, phase, requests, health_s)
        if phase.ended - phase.began - thresholds.settled_s >= MIN_SLOPE_S:
            yield memory_growth(thresholds, phase, log)
    yield recovery(thresholds, log, judged[-1].ended)


def mixed(thresholds: Thresholds, log: EventLog) -> Iterator[Aim]:
    """Other robots raise a group's p99 by one slice at most: the group waits only for calls that already run."""
    alone = log.measuring("alone")
    for phase in (phase for phase in log.phases if phase.judged):
        for name in alone.robots:
            before, now = (figures.p99_s(log, one, name) for one in (alone, phase))
            over_ms = (now - before) * 1e3
            seen = f"{over_ms:.0f} ms: {now * 1e3:.0f} - {before * 1e3:.0f}"
            what = f"{phase.name}: p99 of {name} above its p99 alone"
            yield entry(what, f"<= {thresholds.slice_ms:g} ms", seen, over_ms <= thresholds.slice_ms)


def offered_load(phase: PhaseRecord, requests: list[RequestRecord]) -> Aim:
    """The robots sent requests at the phase's rate. If they did not, the service was not overloaded as intended."""
    offered = phase.offered_per_s or 0.0
    rate = len(requests) / (phase.ended - phase.began)
    met = rate >= MIN_OFFERED_SHARE * offered > 0
    return entry(f"{phase.name}: requests/s offered", f">= {MIN_OFFERED_SHARE * offered:.2f}", f"{rate:.2f}", met)


def deadlines_met(thresholds: Thresholds, phase: PhaseRecord, requests: list[RequestRecord]) -> Aim:
    """The share of admitted plans that are answered by their deadline."""
    admitted = figures.admitted(requests)
    in_time = figures.in_time(admitted)
    return _share(f"{phase.name}: admitted plans in time", len(in_time), len(admitted), thresholds.met)


def goodput(thresholds: Thresholds, phase: PhaseRecord, requests: list[RequestRecord], capacity: float) -> Aim:
    """Plans in time a second, as a share of the capacity without deadlines and refusals."""
    seconds = phase.ended - phase.began
    good = sum(request.ended <= phase.ended for request in figures.in_time(requests)) / seconds
    share = good / capacity
    aim, seen = f">= {thresholds.goodput:.0%} of capacity", f"{share:.0%}: {good:.2f} of {capacity:.2f} plans/s"
    return entry(f"{phase.name}: plans answered in time", aim, seen, share >= thresholds.goodput)


def refusal_latency(
    thresholds: Thresholds, phase: PhaseRecord, requests: list[RequestRecord], health_s: list[float]
) -> Aim:
    """The p99 of refusals is close to that of /healthz, the cheapest request. Met when nothing was refused."""
    refused = [request.seconds for request in requests if request.outcome == "refused"]
    name, aim = f"{phase.name}: p99 of refusals above /healthz's p99", f"<= {thresholds.refusal_ms:g} ms"
    refusal, health = figures.percentile(refused, 99), figures.percentile(health_s, 99)
    if refusal is None:
        return entry(name, aim, "nothing was refused", True)
    if health is None:
        return entry(name, aim, "/healthz was not measured", False)
    over_ms = (refusal - health) * 1e3
    seen = f"{over_ms:.1f} ms: {refusal * 1e3:.1f} - {health * 1e3:.1f}"
    return entry(name, aim, seen, over_ms <= thresholds.refusal_ms)


def memory_growth(thresholds: Thresholds, phase: PhaseRecord, log: EventLog) -> Aim:
    """The service's resident memory does not grow once the overload has settled."""
    name, aim = f"{phase.name}: growth of resident memory", f"<= {thresholds.growth_mb_min:g} MB/min"
    settled = phase.began + thresholds.settled_s
    readings = [reading for reading in figures.during(log.memory, phase) if reading.at >= settled]
    per_s = figures.slope(readings)
    if per_s is None:
        return entry(name, aim, f"not measured: {len(readings)} readings", False)
    growth = per_s * 60 / MB
    seen = f"{growth:.2f} MB/min over {len(readings)} readings"
    return entry(name, aim, seen, growth <= thresholds.growth_mb_min)


def recovery(thresholds: Thresholds, log: EventLog, ended: float) -> Aim:
    """A lone robot has its earlier latency again soon after the overload ends."""
    limit = thresholds.normal * figures.lone_s(log)
    after = figures.normal_after_s(log.requests_of("recovery"), ended, limit)
    aim = f"p50 <= {limit * 1e3:.0f} ms within {thresholds.normal_within_s:g} s"
    seen = "never" if after is None else f"after {after:.1f} s"
    return entry("latency back to normal", aim, seen, after is not None and after <= thresholds.normal_within_s)


def _none(name: str, count: int, example: str = "") -> Aim:
    return entry(name, "0", f"{count}: {example}" if example else str(count), count == 0)


def _share(name: str, part: int, whole: int, least: float) -> Aim:
    share = part / whole if whole else 0.0
    return entry(name, f">= {least:.0%}", f"{share:.1%}: {part} of {whole}", share >= least)


def _message(requests: list[RequestRecord]) -> str:
    return requests[0].message[:80] if requests else ""
