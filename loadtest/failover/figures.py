"""The figures of a failover run, and its aims. Times are in seconds of the monotonic clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from loadtest.aims import Aim, at_most, entry
from loadtest.failover.fleet import Answer, Logbook, Role
from loadtest.failover.kills import KINDS, Kill
from loadtest.failover.oracle import TOLERANCE, Verdict
from loadtest.failover.site import GATEWAY_DOWN_S
from loadtest.robots import figures
from loadtest.robots.event_log import RequestRecord
from loadtest.robots.results import outcomes

MAX_GAP_S = 3.0
"""Aim for the longest time between two answers of a robot around a gateway's death, and while it starts again."""
RECORD_S = 2.0
"""A record is written after its answer: one that came so shortly before a gateway's death may have none."""


def gaps(answers: Iterable[Answer], kill: Kill) -> dict[str, float]:
    """Robot -> the longest time between two of its answers that overlaps a kill and its repair."""
    times: dict[str, list[float]] = {}
    for answer in answers:
        times.setdefault(answer.role.name, []).append(answer.at)
    return {robot: max(_overlapping(sorted(of_robot), kill), default=0.0) for robot, of_robot in times.items()}


def _overlapping(times: Sequence[float], kill: Kill) -> Iterator[float]:
    for before, after in itertools.pairwise(times):
        if before <= kill.back and after >= kill.at:
            yield after - before


def gaps_by_kind(answers: Sequence[Answer], kills: Sequence[Kill]) -> dict[str, dict[str, Any]]:
    """Kind of kill -> how often, the longest repair, and the longest gap of any robot and of those without deadlines,
    whom nobody refuses while the machine is busy with a restart."""
    free = [answer for answer in answers if answer.role.deadline_ms is None]
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        of_kind = [kill for kill in kills if kill.kind == kind]
        if of_kind:
            longest = [longest_gap(answers, kill) for kill in of_kind]
            found[kind] = {
                "kills": len(of_kind),
                "longest_repair_s": round(max(kill.back - kill.at for kill in of_kind), 2),
                "longest_gap_s": round(max(longest), 2),
                "median_longest_gap_s": round(figures.percentile(longest, 50) or 0.0, 2),
                "longest_gap_without_deadline_s": round(max(longest_gap(free, kill) for kill in of_kind), 2),
            }
    return found


def longest_gap(answers: Iterable[Answer], kill: Kill) -> float:
    """The longest time that any robot was without an answer around a kill."""
    return max(gaps(answers, kill).values(), default=0.0)


def death_alone(kill: Kill) -> Kill:
    """A gateway's death without its start, which takes processor time from the gateway that is left."""
    return replace(kill, back=min(kill.back, kill.at + GATEWAY_DOWN_S))


def deadline_figures(requests: Sequence[RequestRecord]) -> dict[str, Any]:
    """Of requests with a deadline: how many, and how many were not answered by it, by the robots' clock."""
    bounded = [request for request in requests if request.deadline_s is not None]
    late = [request for request in bounded if request.outcome != "answered" or request.seconds > _deadline(request)]
    p50, p99 = (figures.percentile((each.seconds for each in figures.answered(bounded)), q) for q in (50, 99))
    times = {"p50_s": None if p50 is None else round(p50, 3), "p99_s": None if p99 is None else round(p99, 3)}
    return {"requests": len(bounded), "missed": len(late), **times}


def phase_figures(logbook: Logbook, phase: str) -> dict[str, Any]:
    """What became of a phase's requests."""
    requests = logbook.log.requests_of(phase)
    return {"requests": outcomes(requests), "deadlines": deadline_figures(requests)}


def evaluate(
    logbook: Logbook, roles: Sequence[Role], kills: Sequence[Kill], verdict: Verdict, twice: Sequence[str]
) -> list[Aim]:
    """Every aim of a run."""
    requests = logbook.log.requests
    lost = [request for request in requests if request.outcome == "lost"]
    without_end = figures.unaccounted(requests)
    contradicting = [text for request in requests for text in request.contradictions]
    deaths = [kill.at for kill in kills if kill.kind == "gateway"]
    unexplained = [
        answer for answer in verdict.unrecorded if not any(0 <= death - answer.at <= RECORD_S for death in deaths)
    ]
    end = max((kill.back for kill in kills), default=0.0)
    served = {answer.role.name for answer in logbook.answers if answer.at >= end}
    of_gateways = [kill for kill in kills if kill.kind == "gateway"]
    return [
        _none("requests without an answer or an error", len(lost) + without_end, [each.message for each in lost]),
        _none("errors that no retry mends", len(logbook.final), logbook.final),
        _none("answers given twice", figures.repeated(requests), []),
        _none("plans committed twice", len(twice), twice),
        _none("answers that contradict their request", len(contradicting), contradicting),
        _none(f"answers that differ by more than {TOLERANCE:g}", len(verdict.wrong), verdict.wrong),
        _none(
            "answers without a record, and no gateway died", len(unexplained), [each.role.name for each in unexplained]
        ),
        entry("robots served after the last repair", str(len(roles)), str(len(served)), len(served) == len(roles)),
        _gap("longest gap at a gateway's death, s", logbook, [death_alone(kill) for kill in of_gateways]),
        _gap("longest gap until it has started again, s", logbook, of_gateways),
    ]


def _gap(name: str, logbook: Logbook, kills: Sequence[Kill]) -> Aim:
    longest = [longest_gap(logbook.answers, kill) for kill in kills]
    return at_most(name, MAX_GAP_S, round(max(longest), 2) if longest else None)


def _deadline(request: RequestRecord) -> float:
    assert request.deadline_s is not None, "it has one"
    return request.deadline_s


def _none(name: str, count: int, examples: Sequence[str]) -> Aim:
    seen = f"{count}: {examples[0][:160]}" if examples else str(count)
    return entry(name, "0", seen, count == 0)
