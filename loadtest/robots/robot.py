"""A simulated robot: observes, requests a chunk, executes it at its control rate, and requests the next in time.

After a refusal the robot waits for the retry time that the service sent, and observes anew. After a missed deadline it
sends another request at once. Clock and transport are injected.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from loadtest.robots.chunks import Playback, Stall
from loadtest.robots.event_log import EventLog, RequestRecord, StallRecord
from loadtest.robots.frames import Frames
from loadtest.robots.pacing import Pacing
from loadtest.robots.replies import Reply, contradictions
from loadtest.robots.scenario import RobotGroup
from loadtest.robots.transports import RequestLost, Transport
from wavserve.core.errors import DeadlineExceeded, Overloaded, UnknownSession, WavserveError
from wavserve.core.messages import Observation

AFTER_FAILURE_S = 0.5
"""How long a robot waits after an error that is neither a refusal nor a missed deadline."""
MIN_RETRY_S = 0.01


class Clock(Protocol):
    """A monotonic clock in seconds, and how to wait on it."""

    def now(self) -> float: ...

    async def sleep_until(self, when: float) -> None: ...


class WallClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(when - time.monotonic(), 0.0))


@dataclass(frozen=True, slots=True)
class Identity:
    """A robot's name, its group and its seed."""

    name: str
    group_name: str
    group: RobotGroup
    seed: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """A robot's part in one phase: its end, pacing, transport and deadline."""

    phase: str
    until: float
    pacing: Pacing
    transport: Transport
    deadline_ms: int | None = None


class Robot:
    """One robot with its own session, which continues in later phases."""

    def __init__(self, identity: Identity, frames: Frames, log: EventLog, clock: Clock) -> None:
        self._identity = identity
        self._frames = frames
        self._log = log
        self._clock = clock
        self._random = random.Random(identity.seed)
        self._playback = Playback.of(identity.group)
        self._session: str | None = None
        self._sequence = 0
        self._accepted_step = 0
        """control step of the last observation that was answered"""
        self._chunk_due = False
        """a request was sent, and no chunk has arrived since"""

    async def work(self, assignment: Assignment) -> None:
        """Requests and executes until the end of the assignment, then waits for the request in flight."""
        ready = self._clock.now()
        self._playback.pause(ready)
        self._chunk_due = False
        while True:
            await self._clock.sleep_until(min(ready + self._pause(), assignment.until))
            over = self._clock.now() >= assignment.until or not await assignment.pacing.slot()
            if assignment.pacing.open_loop and not self._chunk_due:
                self._playback.extend_to(self._clock.now())
            if over:
                break
            self._chunk_due = True
            request = await self._send(assignment)
            self._log.requests.append(request)
            ready = self._ready_after(request)
        self._record(assignment.phase, self._playback.stall(min(self._clock.now(), assignment.until)))

    def _record(self, phase: str, stall: Stall | None) -> None:
        if stall is not None:
            self._log.stalls.append(StallRecord(phase, self._identity.group_name, self._identity.name, stall))

    def _pause(self) -> float:
        return self._identity.group.think_s + self._random.random() * self._identity.group.jitter_s

    def _ready_after(self, request: RequestRecord) -> float:
        """When the robot is ready for its next request."""
        match request.outcome:
            case "answered":
                self._chunk_due = False
                self._record(request.phase, self._playback.begin(request.ended))
                return self._playback.request_at
            case "refused":
                retry_after_s = (request.retry_after_s or 0.0) if self._identity.group.honours_retry_after else 0.0
                return request.ended + max(retry_after_s, MIN_RETRY_S)
            case "missed":
                return request.ended
            case _:
                return request.ended + AFTER_FAILURE_S

    def _observe(self, deadline_ms: int | None) -> Observation:
        step = self._playback.step(self._clock.now())
        frame = self._frames.at(self._sequence)
        options: Mapping[str, object] = dict(self._identity.group.planner)
        observation = replace(
            frame,
            session_id=self._session,
            sequence=self._sequence,
            control_step=step,
            executed_steps=step - self._accepted_step if self._session else 0,
            options=options,
            seed=self._identity.seed,
            deadline_ms=deadline_ms,
        )
        self._sequence += 1
        return observation

    async def _send(self, assignment: Assignment) -> RequestRecord:
        sent = self._observe(assignment.deadline_ms)
        self._log.in_flight += 1
        began = self._clock.now()
        who = self._identity
        request = RequestRecord(assignment.phase, who.group_name, who.name, sent.sequence, began, began, "lost")
        request = replace(request, deadline_s=None if sent.deadline_ms is None else sent.deadline_ms / 1e3)
        try:
            reply = await assignment.transport.plan(sent)
            return self._accept(request, sent, reply)
        except Overloaded as error:
            return self._end(request, "refused", error.message, error.retry_after_s)
        except DeadlineExceeded as error:
            ended = self._end(request, "missed", error.message)
            early = ended.deadline_s is not None and ended.seconds < ended.deadline_s
            return replace(ended, outcome="refused") if early and error.missed is None else ended
        except UnknownSession as error:
            self._session = None  # the service has dropped the session: the next observation opens another
            return self._end(request, "failed", error.message)
        except WavserveError as error:
            return self._end(request, "failed", f"{type(error).__name__}: {error.message}")
        except RequestLost as error:
            return self._end(request, "lost", str(error))
        finally:
            self._log.in_flight -= 1

    def _accept(self, request: RequestRecord, sent: Observation, reply: Reply) -> RequestRecord:
        ended = self._end(request, "answered", "")
        wrong = tuple(contradictions(sent, reply, ended.seconds, self._identity.group.min_chunk_steps))
        self._session, self._accepted_step = reply.session_id, sent.control_step
        return replace(ended, reply=reply, contradictions=wrong)

    def _end(
        self, request: RequestRecord, outcome: str, message: str, retry_after_s: float | None = None
    ) -> RequestRecord:
        return replace(request, ended=self._clock.now(), outcome=outcome, message=message, retry_after_s=retry_after_s)
