"""A robot with a control stream. Its client connects again by itself, and resumes the session in a new epoch.

An observation whose stream ends before its answer is not sent again: the next one shows a newer scene.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from loadtest.bench.control_frames import Pictures, robot
from loadtest.failover.fleet import ANSWER_TIMEOUT_S, OPTIONS, STEPS, Answer, Logbook, Role
from loadtest.robots.event_log import RequestRecord
from loadtest.robots.frames import Frames
from wavserve.clients.async_robot_client import AsyncRobotClient
from wavserve.clients.robot import Event, LinkDown, RobotObservation, RobotOptions, Stopped
from wavserve.core.control import DropReason, ObservationDropped, StreamError, Welcome
from wavserve.core.errors import NotReady, Overloaded
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo

_REFUSED = (DropReason.OVERLOADED, DropReason.TOO_OLD)


class StreamRobot:
    """One robot with its own stream."""

    def __init__(self, role: Role, frames: Frames, pictures: Pictures, logbook: Logbook) -> None:
        self._role = role
        self._frames = frames
        self._pictures = pictures
        self._logbook = logbook
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._number = 0
        self._session = 0
        self._executed_steps = 0

    async def connect(self, targets: Sequence[str], policy: PolicyInfo) -> None:
        """Opens the stream. `targets`: of the gateways."""
        self._cameras = [camera.name for camera in policy.cameras]
        options = RobotOptions(planner=OPTIONS, deadline_ms=self._role.deadline_ms, jpeg_quality=None)
        described = robot(policy, self._role.name)
        self._client = AsyncRobotClient(targets, described, options, self._events.put_nowait)
        await self._client.connect()

    async def turn(self, phase: str) -> None:
        """One observation, until its chunk or its error. Without a stream, waits until something happens."""
        while not self._events.empty():
            self._noted(self._events.get_nowait())
        seen = self._seen()
        request = self._logbook.asked(self._role, phase, self._number)
        sequence = self._client.observe(seen)
        if sequence is None:
            await self._next()
            return
        self._number += 1
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while not self._decided(request, seen, sequence, await self._next()):
                    pass
        except TimeoutError:
            self._logbook.ended(request, "lost", f"no answer within {ANSWER_TIMEOUT_S:.0f} s")

    async def close(self) -> None:
        await self._client.close()

    def _seen(self) -> RobotObservation:
        frame = self._frames.at(self._number)
        return RobotObservation(
            images=self._pictures.at(self._number, self._cameras),
            state=tuple(frame.state),
            control_step=self._executed_steps,
            executed_steps=self._executed_steps,
            instruction=frame.instruction,
            seed=self._role.seed,
        )

    async def _next(self) -> Event:
        event = await self._events.get()
        self._noted(event)
        return event

    def _noted(self, event: Event) -> None:
        """Raises the error of a client that connects no more."""
        if isinstance(event, Stopped):
            raise event.error
        if isinstance(event, Welcome) and not event.resumed:
            self._session += 1

    def _decided(self, request: RequestRecord, seen: RobotObservation, sequence: int, event: Event) -> bool:
        """Whether an event ends the request. Then it is logged."""
        match event:
            case ActionChunk():
                asked = Observation(
                    images=(),
                    state=seen.state,
                    instruction=seen.instruction,
                    sequence=sequence,
                    control_step=seen.control_step,
                    deadline_ms=self._role.deadline_ms,
                )
                answer = Answer(self._role, self._session, None, event, time.monotonic())
                self._logbook.answered(request, answer, asked, first_attempt=True)
                self._executed_steps += STEPS
            case ObservationDropped() if event.sequence == sequence and event.reason in _REFUSED:
                self._logbook.failed(request, Overloaded(f"dropped: {event.reason.value}"))
            case ObservationDropped() if event.sequence == sequence:
                self._logbook.failed(request, NotReady(f"dropped: {event.reason.value}"))
            case StreamError() if event.sequence in (None, sequence):
                self._logbook.failed(request, event.error())
            case LinkDown():
                self._logbook.failed(request, NotReady(event.error.message))
            case _:
                return False
        return True
