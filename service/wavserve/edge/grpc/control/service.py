"""The gRPC methods `Control` and `Watch`: each stream from its first message to its status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import grpc

from wavserve.core.control import Hello, Welcome
from wavserve.core.errors import DeadlineExceeded, InvalidRequest, Overloaded, WavserveError
from wavserve.edge.frontend import Frontend
from wavserve.edge.grpc.calls import Context, abort, sender_of
from wavserve.edge.grpc.control.handshake import check_hello
from wavserve.edge.grpc.control.intake import Intake
from wavserve.edge.grpc.control.outbox import Outbox
from wavserve.edge.grpc.control.replies import Replies, stream_error
from wavserve.edge.grpc.control.reports import Reports
from wavserve.edge.grpc.control.robots import Robot, Robots
from wavserve.edge.grpc.control.stream import Stream, parse
from wavserve.edge.grpc.control.work import Work
from wavserve.edge.report import ErrorReport, report
from wavserve.policy.epochs import RESUME_WITHIN_S, OpenedSession
from wavserve.system.control_metrics import ControlMetrics
from wavserve.wire.control_answers import watch_interval_s, watch_update

HELLO_S = 10.0
"""How long a stream may be open without a Hello."""
FLUSH_S = 1.0
"""How long the last messages of a stream, and its status, may take to leave."""
PING_INTERVAL_MS = 100
MAX_IN_FLIGHT = 1
MAX_WATCHERS = 64
"""Onlookers at a time. What they are told takes time of the event loop, which robots need."""
_WATCH_S = (0.1, 60.0)


class ClientGone(Exception):
    """The call has ended, and gRPC takes no further message."""


@dataclass(slots=True)
class _Call:
    """One call of Control. `writing` writes what `outbox` has."""

    context: Context
    outbox: Outbox
    writing: asyncio.Task[None]
    sender: str
    """the robot's id; its address until it has said Hello"""
    robot: Robot | None = None
    """None until Hello is accepted"""

    @property
    def is_welcome(self) -> bool:
        return self.robot is not None and self.robot.session_id is not None


class ControlService:
    """Serves robots' streams over one frontend."""

    def __init__(self, frontend: Frontend, robots: Robots, metrics: ControlMetrics, hello_s: float = HELLO_S) -> None:
        self._frontend = frontend
        self._robots = robots
        self._metrics = metrics
        self._hello_s = hello_s
        self._watchers = 0

    async def control(self, _messages: AsyncIterator[bytes], context: Context) -> None:
        """One robot's stream. A failure that ends it is told as a fatal Error and as the call's status."""
        outbox, outcome = Outbox(partial(_write, context)), "ok"
        call = _Call(context, outbox, asyncio.create_task(outbox.write_all()), sender_of(context))
        try:
            await self._serve(call)
            await _flush(call)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except ClientGone:
            outcome = "cancelled"
        except Exception as error:  # noqa: BLE001  # every stream gets a status; `report` logs the unexpected
            problem = report(error, "grpc")
            outcome = problem.name
            if not call.is_welcome:  # later failures are those of its requests
                self._frontend.trail.on_failed(error, call.sender)
            await _end(call, problem)
        finally:
            call.writing.cancel()
            await asyncio.gather(call.writing, return_exceptions=True)
            self._metrics.stream_ended(outcome)

    async def watch(self, raw: bytes, context: Context) -> None:
        """Tells onlookers of all robots, until they go away or the service stops."""
        try:
            interval_s = watch_interval_s(raw) or 1.0
            if not _WATCH_S[0] <= interval_s <= _WATCH_S[1]:  # also true for NaN
                raise InvalidRequest("interval_s", f"0, or {_WATCH_S[0]:g} to {_WATCH_S[1]:g}", interval_s)
            if self._watchers >= MAX_WATCHERS:
                raise Overloaded(f"{MAX_WATCHERS} onlookers watch, and no more are taken")
        except WavserveError as error:
            await abort(context, report(error, "grpc"))
        self._watchers += 1
        try:
            await self._tell(context, interval_s)
        except ClientGone:
            return
        finally:
            self._watchers -= 1

    async def _tell(self, context: Context, interval_s: float) -> None:
        while not self._robots.draining.is_set():
            await _write(context, watch_update(self._robots.statuses()).SerializeToString())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._robots.draining.wait()

    async def _serve(self, call: _Call) -> None:
        hello = await self._hello(call.context)
        call.sender = hello.robot_id or call.sender
        self._frontend.check_ready()
        check_hello(hello, self._frontend.info())
        peer = sender_of(call.context)
        async with self._robots.enter(hello, peer) as robot:
            call.robot = robot
            silent_s = self._robots.silent_s(hello.resume_session_id)
            opened = await self._frontend.open_session(hello.robot_id, hello.resume_session_id, silent_s)
            robot.session_id, robot.epoch = opened.session_id, opened.epoch
            call.outbox.put(self._welcome(opened))
            stream = self._stream(robot, opened, call.outbox)
            await stream.run(partial(_read, call.context), call.writing, self._robots.draining)

    def _stream(self, robot: Robot, opened: OpenedSession, outbox: Outbox) -> Stream:
        replies = Replies(outbox, robot, self._metrics, self._frontend.trail.on_failed)
        intake = Intake(self._frontend.policy.spec, opened, robot.hello.instruction)
        work = Work(self._frontend, robot, intake, replies, self._robots.draining)
        reports = Reports(robot, self._metrics)
        return Stream(robot, intake, work, replies, reports, self._frontend.limits.max_body_bytes)

    async def _hello(self, context: Context) -> Hello:
        """The first message. Raises InvalidRequest when it is another one, DeadlineExceeded when none comes."""
        try:
            async with asyncio.timeout(self._hello_s):
                raw = await _read(context)
        except TimeoutError:
            raise DeadlineExceeded(f"no hello came within {self._hello_s:g} s") from None
        if raw is None:
            raise InvalidRequest("message", "hello as the first message", "the end of the stream")
        message = parse(raw, self._frontend.limits.max_body_bytes)
        if not isinstance(message, Hello):
            raise InvalidRequest("message", "hello as the first message", type(message).__name__)
        return message

    def _welcome(self, opened: OpenedSession) -> Welcome:
        info = self._frontend.info()
        return Welcome(
            session_id=opened.session_id,
            epoch=opened.epoch,
            server_version=version("wavserve"),
            policy=info,
            dt_ns=round(1e9 / info.control_hz),
            max_in_flight=MAX_IN_FLIGHT,
            ping_interval_ms=PING_INTERVAL_MS,
            resumed=opened.resumed,
            next_sequence=opened.next_sequence,
            resume_within_ms=round(1e3 * RESUME_WITHIN_S),
        )


async def _read(context: Context) -> bytes | None:
    """The next message; None at the end, for which gRPC has an object of its own."""
    raw = await context.read()
    return raw if isinstance(raw, bytes) else None


async def _write(context: Context, raw: bytes) -> None:
    """Sends a message. Raises ClientGone when the call has ended: gRPC may say so before it cancels the method."""
    try:
        await context.write(raw)
    except grpc.aio.BaseError as error:
        raise ClientGone from error


async def _flush(call: _Call) -> None:
    """Lets the last messages leave, unless the client does not read them."""
    call.outbox.close()
    await asyncio.wait((call.writing,), timeout=FLUSH_S)


async def _end(call: _Call, problem: ErrorReport) -> None:
    """Ends the stream with an error. The status of a client that does not read waits in gRPC: nobody waits for it."""
    if not call.writing.done():
        epoch = 0 if call.robot is None else call.robot.epoch
        with contextlib.suppress(Exception):
            call.outbox.put(stream_error(problem, epoch=epoch, fatal=True))
        await _flush(call)
    call.writing.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_S):
            await abort(call.context, problem)
