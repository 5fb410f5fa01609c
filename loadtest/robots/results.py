"""A run's results as plain data for JSON: figures of each phase and group, series by the second, and the aims.

Times are in milliseconds, sizes in megabytes. A figure without data is null.
"""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from loadtest.aims import Aim, none_missed
from loadtest.robots import figures
from loadtest.robots.event_log import OUTCOMES, EventLog, PhaseRecord, RequestRecord, Scrape
from loadtest.robots.scenario import Scenario

PACKAGES = ("wavserve", "torch", "numpy", "grpcio", "httpx", "fastapi", "uvicorn")
MB = 1e6
MAX_MESSAGES = 5

_number = re.compile(r"[0-9.]+")


def results(scenario: Scenario, log: EventLog, aims: list[Aim], about: Mapping[str, Any]) -> dict[str, Any]:
    """All results. `about` describes the service and the command."""
    return {
        "scenario": scenario.model_dump(mode="json"),
        **about,
        "machine": {"cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "ok": none_missed(aims),
        "aims": aims,
        "phases": [phase_figures(log, phase) for phase in log.phases],
        "series": series(log),
    }


def phase_figures(log: EventLog, phase: PhaseRecord) -> dict[str, Any]:
    """One phase's figures."""
    requests, seconds = log.requests_of(phase.name), phase.ended - phase.began
    done = figures.answered(requests)
    stalls = [stall for stall in log.stalls if stall.phase == phase.name]
    shares = {request.robot: 0 for request in requests} | Counter(request.robot for request in done)
    retry_after = (request.retry_after_s for request in requests if request.retry_after_s is not None)
    errors = (request.message for request in requests if request.outcome != "answered")
    return {
        "name": phase.name,
        "seconds": round(seconds, 3),
        "robots": dict(phase.robots),
        "warm_up": phase.warm_up,
        "offered_per_s": phase.offered_per_s,
        "unused_slots": phase.unused_slots,
        "requests": outcomes(requests),
        "requests_per_s": round(len(requests) / seconds, 3),
        "answered_per_s": round(sum(request.ended <= phase.ended for request in done) / seconds, 3),
        **_times(requests),
        "missed_ms": spread(request.seconds for request in requests if request.outcome == "missed"),
        "retry_after_ms": spread(retry_after),
        "healthz_ms": spread(probe.value for probe in figures.during(log.health, phase)),
        "client_lag_ms": spread(lag.value for lag in figures.during(log.lags, phase)),
        "deadlines": deadlines(log, phase, requests),
        "stalls": {
            "count": len(stalls),
            "seconds": round(sum(one.stall.seconds for one in stalls), 3),
            "robots": len({one.robot for one in stalls}),
        },
        "fairness": {"jain": figures.jain(shares.values()), "answered": dict(shares)},
        "memory": memory(log, phase),
        "contradictions": _most_common(text for request in requests for text in request.contradictions),
        "messages": _most_common(_number.sub("#", message) for message in errors),
        "groups": {name: group_figures([one for one in requests if one.group == name]) for name in phase.robots},
    }


def group_figures(requests: list[RequestRecord]) -> dict[str, Any]:
    """One group's figures in a phase."""
    return {"requests": outcomes(requests), **_times(requests)}


def outcomes(requests: list[RequestRecord]) -> dict[str, int]:
    """Outcome -> number of requests."""
    return {outcome: sum(request.outcome == outcome for request in requests) for outcome in OUTCOMES}


def deadlines(log: EventLog, phase: PhaseRecord, requests: list[RequestRecord]) -> dict[str, Any]:
    """Deadline results in three ways: from the receipts, by the service's clock, and by the robots' clock."""
    by_receipt = Counter(request.reply.deadline for request in requests if request.reply is not None)
    late = figures.lateness(log, phase)
    limits = {round(request.deadline_s * 1e3) for request in requests if request.deadline_s is not None}
    return {
        **{name: by_receipt[name] for name in ("none", "met", "met_degraded", "late")},
        "missed": sum(request.outcome == "missed" for request in requests),
        "deadline_ms": sorted(limits),
        "sent_late": len(figures.sent_late(requests)),
        "late_at_robot": len(late),
        "late_at_robot_ms": spread(one.late_s for one in late),
        "late_beyond_jitter": sum(one.beyond_jitter for one in late),
    }


def memory(log: EventLog, phase: PhaseRecord) -> dict[str, float] | None:
    """Resident memory of the service in a phase: first, last, largest, and its slope."""
    readings = figures.during(log.memory, phase)
    if not readings:
        return None
    sizes = [reading.value / MB for reading in readings]
    per_s = figures.slope(readings) or 0.0
    found = {"first_mb": sizes[0], "last_mb": sizes[-1], "max_mb": max(sizes), "slope_mb_min": per_s * 60 / MB}
    return {name: round(value, 2) for name, value in found.items()}


def spread(seconds: Iterable[float]) -> dict[str, float] | None:
    """Percentiles and the maximum, in milliseconds; None without values."""
    values = list(seconds)
    if not values:
        return None
    found = {f"p{q}": figures.percentile(values, q) for q in (50, 90, 99)} | {"max": max(values)}
    return {name: round((value or 0.0) * 1e3, 3) for name, value in found.items()}


def series(log: EventLog) -> dict[str, list[dict[str, float]]]:
    """Series over the seconds since the run began: requests by outcome, scrapes of /metrics, memory."""
    if not log.phases:
        return {"requests": [], "service": [], "memory": []}
    zero = log.phases[0].began
    seconds: dict[int, Counter[str]] = {}
    for request in log.requests:
        seconds.setdefault(int(request.ended - zero), Counter())[request.outcome] += 1
    return {
        "requests": [{"s": s, **{name: seconds[s][name] for name in OUTCOMES}} for s in sorted(seconds)],
        "service": [
            {"s": round(now.at - zero, 1), "queue": now.queue_depth, "plans": now.in_flight, "groups": batch(old, now)}
            for old, now in zip(log.scrapes, log.scrapes[1:], strict=False)
        ],
        "memory": [{"s": round(one.at - zero, 1), "mb": round(one.value / MB, 2)} for one in log.memory],
    }


def batch(old: Scrape, now: Scrape, verbs: Iterable[str] = ("imagine", "score", "value_features", "decode")) -> float:
    """Mean number of sample groups in a planning call between two scrapes; 0 without a call."""
    calls = sum(now.call_count.get(verb, 0) - old.call_count.get(verb, 0) for verb in verbs)
    groups = sum(now.call_groups.get(verb, 0) - old.call_groups.get(verb, 0) for verb in verbs)
    return round(groups / calls, 3) if calls > 0 else 0.0


def _times(requests: list[RequestRecord]) -> dict[str, Any]:
    done = figures.answered(requests)
    replies = [request.reply for request in done if request.reply is not None]
    stages = sorted({stage for reply in replies for stage in reply.stage_s})
    return {
        "latency_ms": spread(request.seconds for request in done),
        "refusal_ms": spread(request.seconds for request in requests if request.outcome == "refused"),
        "stage_ms": {s: spread(reply.stage_s[s] for reply in replies if s in reply.stage_s) for s in stages},
        "iterations": dict(sorted(Counter(str(reply.iterations_done) for reply in replies).items())),
    }


def _most_common(texts: Iterable[str]) -> dict[str, int]:
    return dict(Counter(texts).most_common(MAX_MESSAGES))
