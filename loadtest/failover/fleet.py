"""The robots of a failover run: what each one is, and what it logs of its requests and answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from loadtest.robots.event_log import EventLog, RequestRecord
from loadtest.robots.replies import contradictions, from_chunk
from wavserve.core.errors import DeadlineExceeded, Overloaded, StaleEpoch, UnknownSession, WavserveError
from wavserve.core.messages import ActionChunk, Observation

OPTIONS: Mapping[str, object] = {
    "num_iterations": 1,
    "num_video_samples": 3,
    "num_value_samples": 2,
    "num_flow_steps": 2,
    "video_elite_fraction": 0.7,
    "value_elite_fraction": 0.5,
    "warm_start": True,
}
"""Planner options of every request: a small plan, so that many are made and checked, which continues the last one."""
STEPS = 2
"""Control steps that a robot executes between two observations."""
DEADLINE_MS = 1500
ANSWER_TIMEOUT_S = 120.0
"""A request that has no answer after this time counts as lost."""

LOST_SESSION = (UnknownSession, StaleEpoch)
"""The session is gone with its Redis, or another stream has it: the robot opens a new one."""

Link = Literal["grpc", "http", "stream"]


@dataclass(frozen=True, slots=True)
class Role:
    """A robot: its name, how it asks, the deadline of each request, its seed."""

    name: str
    link: Link
    deadline_ms: int | None
    seed: int


def fleet(phase: str) -> list[Role]:
    """The eight robots of a phase: half of them on streams, half of each half with deadlines."""
    links: tuple[Link, ...] = ("grpc", "http", "stream", "stream")
    return [
        Role(f"{phase}-{link}-{number}", link, deadline_ms, seed=number)
        for number, (link, deadline_ms) in enumerate((link, ms) for ms in (None, DEADLINE_MS) for link in links)
    ]


@dataclass(frozen=True, slots=True)
class Answer:
    """A chunk as a robot got it."""

    role: Role
    session: int
    """number of the robot's session; a robot whose session is lost opens another"""
    observation: Observation | None
    """what was asked; None on a stream, whose client completes it"""
    chunk: ActionChunk
    at: float


@dataclass(slots=True)
class Logbook:
    """What all robots saw."""

    log: EventLog = field(default_factory=EventLog)
    answers: list[Answer] = field(default_factory=list)
    final: list[str] = field(default_factory=list)
    """errors that no retry mends"""

    def asked(self, role: Role, phase: str, number: int) -> RequestRecord:
        """The record of a request that begins now."""
        deadline_s = None if role.deadline_ms is None else role.deadline_ms / 1e3
        now = time.monotonic()
        return RequestRecord(phase, role.link, role.name, number, now, now, "lost", deadline_s)

    def answered(self, request: RequestRecord, answer: Answer, asked: Observation, first_attempt: bool) -> None:
        """Logs an answer. The times in a receipt agree with the first attempt alone: a retry gets an older answer."""
        reply = from_chunk(answer.chunk)
        ended = replace(request, ended=answer.at, outcome="answered", reply=reply)
        wrong = tuple(contradictions(asked, reply, ended.seconds, min_steps=1)) if first_attempt else ()
        self.log.requests.append(replace(ended, contradictions=wrong))
        self.answers.append(answer)

    def failed(self, request: RequestRecord, error: WavserveError) -> None:
        """Logs a request that ended with an error."""
        missed = isinstance(error, DeadlineExceeded) and error.missed is not None
        refused = isinstance(error, Overloaded | DeadlineExceeded)
        outcome = "missed" if missed else "refused" if refused else "failed"
        if outcome == "failed" and not error.retryable and not isinstance(error, LOST_SESSION):
            self.final.append(f"{request.robot}: {type(error).__name__}: {error.message}")
        self.ended(request, outcome, f"{type(error).__name__}: {error.message}")

    def ended(self, request: RequestRecord, outcome: str, message: str) -> None:
        self.log.requests.append(replace(request, ended=time.monotonic(), outcome=outcome, message=message))


class FleetRobot(Protocol):
    """A robot that asks again and again."""

    async def turn(self, phase: str) -> None:
        """One request, until its outcome is known."""
        ...

    async def close(self) -> None: ...
