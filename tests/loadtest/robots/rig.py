"""Made-up requests, replies and event logs. A test changes fields to introduce a fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loadtest.robots.event_log import EventLog, PhaseRecord, Reading, RequestRecord, Scrape
from loadtest.robots.replies import Reply

LONE_S, CAPACITY = 0.4, 2.0
OVERLOAD = (100.0, 220.0)


def reply(**changes: Any) -> Reply:
    """A consistent answer to `observation()`."""
    fields: dict[str, Any] = {
        "session_id": "s",
        "sequence": 0,
        "first_control_step": 0,
        "num_steps": 16,
        "chunk_id": "c",
        "served_s": 0.39,
        "receipt_sequence": 0,
        "deadline": "met",
        "slack_s": 1.0,
        "iterations_done": 3,
        "iterations_requested": 3,
        "stopped": "done",
        "stage_s": {"encode": 0.02, "imagine": 0.1, "score": 0.2, "total": 0.38},
    }
    return Reply(**fields | changes)


def answered(sent: float, seconds: float = LONE_S, **changes: Any) -> RequestRecord:
    """A request that was answered with actions. Its chunk has its own id."""
    fields: dict[str, Any] = {
        "phase": "overload",
        "group": "grpc",
        "robot": "grpc-0",
        "sequence": 0,
        "deadline_s": 1.6,
        **changes,
    }
    chunk_id = f"{fields['robot']}/{fields['sequence']}"
    own = fields.pop("reply", None) or reply(chunk_id=chunk_id, served_s=seconds - 0.01)
    return RequestRecord(sent=sent, ended=sent + seconds, outcome="answered", reply=own, **fields)


def ended(outcome: str, sent: float, seconds: float, **changes: Any) -> RequestRecord:
    """A request that was not answered with actions."""
    fields: dict[str, Any] = {
        "phase": "overload",
        "group": "grpc",
        "robot": "grpc-0",
        "sequence": 0,
        "deadline_s": 1.6,
        **changes,
    }
    return RequestRecord(sent=sent, ended=sent + seconds, outcome=outcome, **fields)


def numbered(requests: list[RequestRecord]) -> list[RequestRecord]:
    """The same requests, each from its own robot."""
    records = []
    for number, request in enumerate(requests):
        robot = f"{request.group}-{number}"
        own = None if request.reply is None else replace(request.reply, chunk_id=robot)
        records.append(replace(request, robot=robot, reply=own))
    return records


def overload_run() -> EventLog:
    """A run that meets every criterion: capacity 2 plans/s, 6 requests/s for two minutes, a third of them answered."""
    log = EventLog()
    began, over = OVERLOAD
    log.phases = [
        PhaseRecord("capacity", 0.0, 50.0, {"saturating": 8}, measures="capacity"),
        PhaseRecord("lone", 60.0, 80.0, {"lone": 1}, measures="lone"),
        PhaseRecord("overload", began, over, {"grpc": 96}, judged=True, offered_per_s=6.0),
        PhaseRecord("recovery", over, over + 15.0, {"lone": 1}),
    ]
    log.requests = [answered(i / CAPACITY, 0.5, phase="capacity", deadline_s=None) for i in range(100)]
    log.requests += [answered(60.0 + i, phase="lone", deadline_s=None) for i in range(20)]
    for i in range(720):
        at = began + i / 6
        log.requests.append(answered(at, 1.0) if i % 3 == 0 else ended("refused", at, 0.008, retry_after_s=0.5))
    log.requests += [answered(over + 0.5 + i * 0.5, phase="recovery", deadline_s=None) for i in range(20)]
    log.requests = numbered(log.requests)
    seconds = [float(s) for s in range(int(over) + 15)]
    log.health = [Reading(s, 0.004) for s in seconds]
    log.lags = [Reading(s, 0.001) for s in seconds]
    log.memory = [Reading(s, 5e8 + (s % 2) * 1e5) for s in seconds]
    log.scrapes = [Scrape(s, 2.0, 4.0, {"score": s}, {"score": 3 * s}, {"score": 24 * s}) for s in seconds]
    return log
