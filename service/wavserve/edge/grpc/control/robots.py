"""The robots with a living stream: one stream per robot id, and its status for onlookers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic

from wavserve.core.control import ExecutionReport, Hello, RobotStatus
from wavserve.core.errors import Overloaded, RobotBusy, StaleEpoch, shown
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Clock
from wavserve.policy.epochs import RESUME_WITHIN_S

GONE_S = 5.0
"""How long a stream may take to end after another has taken its session over."""
MAX_ROBOTS = 1024
"""Robots that may be connected at a time."""
_WINDOW = 100
"""Plans whose times count in a status."""


class Robot:
    """One robot with a living stream. The stream writes the facts and the counts."""

    def __init__(self, hello: Hello, peer: str, clock: Clock) -> None:
        self.hello = hello
        self.peer = peer
        self.session_id: str | None = None
        """None until the session is open"""
        self.epoch = 0
        self.instruction = hello.instruction
        self.observations = self.chunks = self.dropped = self.errors = 0
        self.last_report: ExecutionReport | None = None
        self.taken_over, self.gone = asyncio.Event(), asyncio.Event()
        self._clock = clock
        self._began = clock()
        self._last_chunk: tuple[ActionChunk, float] | None = None
        self._plan_ms: deque[float] = deque(maxlen=_WINDOW)

    def answered(self, chunk: ActionChunk) -> None:
        """Counts a chunk. Onlookers see it without the session's id and its images."""
        self.chunks += 1
        self._plan_ms.append((chunk.server_send_ns - chunk.server_recv_ns) / 1e6)
        self._last_chunk = (replace(without_iterations(chunk), session_id="", imagined={}), self._clock())

    async def until_taken_over(self) -> None:
        """Waits until another stream resumes the session. Raises StaleEpoch."""
        await self.taken_over.wait()
        raise StaleEpoch("epoch", "the epoch of the stream that has resumed this session", self.epoch)

    def status(self) -> RobotStatus:
        chunk, at = self._last_chunk or (None, self._clock())
        return RobotStatus(
            robot_id=self.hello.robot_id,
            embodiment=self.hello.embodiment,
            client=f"{self.hello.client_name} {self.hello.client_version}".strip(),
            peer=self.peer,
            epoch=self.epoch,
            connected_s=self._clock() - self._began,
            instruction=self.instruction,
            observations=self.observations,
            chunks=self.chunks,
            dropped=self.dropped,
            errors=self.errors,
            plan_ms_p50=self._percentile(0.50),
            plan_ms_p95=self._percentile(0.95),
            last_chunk=chunk,
            last_chunk_age_s=self._clock() - at,
            last_report=self.last_report,
        )

    def _percentile(self, share: float) -> float:
        times = sorted(self._plan_ms)
        return times[int(share * (len(times) - 1))] if times else 0.0


def without_iterations(chunk: ActionChunk) -> ActionChunk:
    """The chunk without the long part of its receipt."""
    return replace(chunk, receipt=replace(chunk.receipt, iterations=()))


class Robots:
    """Every robot that is connected to this server."""

    def __init__(self, clock: Clock = monotonic, max_robots: int = MAX_ROBOTS) -> None:
        self.draining = asyncio.Event()
        self._clock = clock
        self._max_robots = max_robots
        self._living: dict[str, Robot] = {}  # by robot id
        self._ended: dict[str, float] = {}  # session id -> when its stream ended, oldest first

    def __len__(self) -> int:
        return len(self._living)

    def drain(self) -> None:
        """Tells every stream, once and for all, that the server stops."""
        self.draining.set()

    @asynccontextmanager
    async def enter(self, hello: Hello, peer: str) -> AsyncIterator[Robot]:
        """Registers a robot for as long as its stream lives.

        Raises RobotBusy when another living stream has its id, Overloaded when too many robots are connected. A stream
        that resumes the session of the living one ends that.
        """
        older = self._living.get(hello.robot_id)
        if older is None and len(self._living) >= self._max_robots:
            raise Overloaded(f"{self._max_robots} robots are connected, and no more are taken")
        if older is not None and (older.session_id is None or older.session_id != hello.resume_session_id):
            text = f"another living stream has this robot id, {shown(hello.robot_id)}: end that one, resume its session"
            raise RobotBusy(f"{text}, or take another id")
        robot = self._living[hello.robot_id] = Robot(hello, peer, self._clock)
        try:
            if older is not None:
                await _take_over(older)
            yield robot
        finally:
            self._leave(robot)

    def silent_s(self, session_id: str | None) -> float | None:
        """Seconds since the end of the session's stream; None when none ended here lately."""
        ended = None if session_id is None else self._ended.get(session_id)
        return None if ended is None else self._clock() - ended

    def statuses(self) -> list[RobotStatus]:
        """All robots, by id."""
        return [robot.status() for _, robot in sorted(self._living.items())]

    def by_session(self) -> list[tuple[str | None, RobotStatus]]:
        """All robots by id, each with its session; None: it is not open yet."""
        return [(robot.session_id, robot.status()) for _, robot in sorted(self._living.items())]

    def _leave(self, robot: Robot) -> None:
        robot.gone.set()
        if self._living.get(robot.hello.robot_id) is robot:
            del self._living[robot.hello.robot_id]
        if robot.session_id is not None:
            self._ended.pop(robot.session_id, None)
            self._ended[robot.session_id] = self._clock()
        self._forget_ended()

    def _forget_ended(self) -> None:
        """Drops what can no longer be resumed: then the session's last commit, which is older, counts."""
        while self._ended:
            session_id, ended = next(iter(self._ended.items()))
            if self._clock() - ended <= RESUME_WITHIN_S:
                return
            del self._ended[session_id]


async def _take_over(older: Robot) -> None:
    """Ends a stream and waits for its plan to end. One that takes longer cannot commit it: its epoch is stale."""
    older.taken_over.set()
    try:
        async with asyncio.timeout(GONE_S):
            await older.gone.wait()
    except TimeoutError:
        return
